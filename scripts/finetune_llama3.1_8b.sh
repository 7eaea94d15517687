#!/usr/bin/env bash
# Llama 3.1 8B tuned on the cleaned Alpaca data, one pass. A gated model: run `hf auth login` first.
# Your own data: add --dataset my.jsonl (formats: data/README.md). More flags may follow: the last one given counts.
# GPU memory: 12.0 GiB for micro-batches of 2 x (1024 + 1024) tokens; one GPU of 16 GB.
#   = quantized weights 3.4 + other weights 2.0 + LoRA 1.2 + activations 4.4 + CUDA 1.0
#   Computed, not measured: the top of scripts/memory_table.py says how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python qlora.py \
    --model_name_or_path meta-llama/Llama-3.1-8B \
    --use_auth_token \
    --dataset alpaca-clean \
    --output_dir ./output/llama-3.1-8b \
    --bits 4 \
    --quant_type nf4 \
    --double_quant \
    --bf16 \
    --lora_modules all \
    --lora_r 32 \
    --lora_alpha 64 \
    --lora_dropout 0.0 \
    --source_max_len 1024 \
    --target_max_len 1024 \
    --per_device_train_batch_size 2 \
    --per_device_eval_batch_size 2 \
    --gradient_accumulation_steps 8 \
    --gradient_checkpointing \
    --group_by_length \
    --learning_rate 2e-4 \
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
