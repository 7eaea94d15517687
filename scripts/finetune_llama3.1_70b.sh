#!/usr/bin/env bash
# Llama 3.1 70B tuned on the cleaned Alpaca data, one pass. A gated model: run `hf auth login` first.
# Your own data: add --dataset my.jsonl (formats: data/README.md). More flags may follow: the last one given counts.
# GPU memory: 45.1 GiB for micro-batches of 1 x (1024 + 1024) tokens; one GPU of 80 GB (48 GB paged).
#   = quantized weights 32.9 + other weights 3.9 + LoRA 3.1 + activations 4.2 + CUDA 1.0
#   Computed, not measured: the top of scripts/memory_table.py says how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python qlora.py \
    --model_name_or_path meta-llama/Llama-3.1-70B \
    --use_auth_token \
    --dataset alpaca-clean \
    --output_dir ./output/llama-3.1-70b \
    --bits 4 \
    --quant_type nf4 \
    --double_quant \
    --bf16 \
    --lora_modules all \
    --lora_r 16 \
    --lora_alpha 32 \
    --lora_dropout 0.0 \
    --source_max_len 1024 \
    --target_max_len 1024 \
    --per_device_train_batch_size 1 \
    --per_device_eval_batch_size 1 \
    --gradient_accumulation_steps 16 \
    --gradient_checkpointing \
    --group_by_length \
    --learning_rate 1e-4 \
    --lr_scheduler_type cosine \
    --warmup_ratio 0.03 \
    --max_grad_norm 1.0 \
    --num_train_epochs 1 \
    --max_steps -1 \
    --do_eval \
    --eval_strategy steps \
    --eval_steps 500 \
    --eval_dataset_size 512 \
    --save_steps 500 \
    --save_total_limit 3 \
    --dataloader_num_workers 2 \
    --seed 42 \
    "$@"
