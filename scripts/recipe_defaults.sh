# Flags that recipes share; each finetune_*.sh sources this file and adds its own flags, and behind them the user's.

# The published recipes of 2023 (https://arxiv.org/abs/2305.14314).
published=(
    --do_train
    --do_eval
    --do_mmlu_eval
    --logging_steps 10
    --save_strategy steps
    --save_total_limit 40
    --evaluation_strategy steps
    --eval_dataset_size 1024
    --max_eval_samples 1000
    --data_seed 42
)

# Guanaco, of every size: 16 rows a step, one at a time, and the loss on the whole conversation.
guanaco=(
    "${published[@]}"
    --dataset oasst1
    --source_max_len 16
    --target_max_len 512
    --max_new_tokens 32
    --group_by_length
    --remove_unused_columns False
    --bits 4
    --quant_type nf4
    --double_quant
    --bf16
    --lora_modules all
    --lora_r 64
    --lora_alpha 16
    --per_device_train_batch_size 1
    --per_device_eval_batch_size 1
    --gradient_accumulation_steps 16
    --max_steps 1875
    --eval_steps 187
    --logging_strategy steps
    --lr_scheduler_type constant
    --warmup_ratio 0.03
    --adam_beta2 0.999
    --max_grad_norm 0.3
    --weight_decay 0.0
    --seed 0
)

# Models of today on the cleaned Alpaca data, one pass.
one_pass=(
    --dataset alpaca-clean
    --source_max_len 1024
    --target_max_len 1024
    --group_by_length
    --dataloader_num_workers 2
    --bits 4
    --quant_type nf4
    --double_quant
    --bf16
    --lora_modules all
    --lora_dropout 0.0
    --lr_scheduler_type cosine
    --warmup_ratio 0.03
    --max_grad_norm 1.0
    --num_train_epochs 1
    --max_steps -1
    --do_eval
    --eval_strategy steps
    --eval_steps 500
    --eval_dataset_size 512
    --save_steps 500
    --save_total_limit 3
    --seed 42
)

# Beside it, the same 16 rows a step: small models take two at a time, large ones one, a smaller adapter and half the
# learning rate.
small=(
    "${one_pass[@]}"
    --lora_r 32
    --lora_alpha 64
    --per_device_train_batch_size 2
    --per_device_eval_batch_size 2
    --gradient_accumulation_steps 8
    --learning_rate 2e-4
)
large=(
    "${one_pass[@]}"
    --lora_r 16
    --lora_alpha 32
    --per_device_train_batch_size 1
    --per_device_eval_batch_size 1
    --gradient_accumulation_steps 16
    --learning_rate 1e-4
)
