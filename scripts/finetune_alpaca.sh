#!/usr/bin/env bash
# Pythia 12B tuned on Alpaca: the published starting point.
# As published it computes in fp32, which runs everywhere; on a GPU that has bfloat16 (Ampere or newer) add --bf16:
# faster, and less memory.
# --do_mmlu_eval reads the MMLU prompt files in data/mmlu/; where they are not, add --do_mmlu_eval False.
#   bash scripts/finetune_alpaca.sh   # flags behind it win
# GPU memory: 14.0 GiB for micro-batches of 4 x (384 + 128) tokens; one GPU of 16 GB.
#   = quantized weights 5.4 + other weights 1.9 + LoRA 2.8 + activations 2.8 + CUDA 1.0
#   Computed, not measured: the top of scripts/memory_table.py says how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/recipe_defaults.sh

exec python qlora.py "${published[@]}" \
    --model_name_or_path EleutherAI/pythia-12b \
    --output_dir ./output/alpaca-pythia-12b \
    --dataset alpaca \
    --source_max_len 384 \
    --target_max_len 128 \
    --per_device_train_batch_size 4 \
    --per_device_eval_batch_size 4 \
    --gradient_accumulation_steps 4 \
    --max_steps 10000 \
    --save_steps 1000 \
    --eval_steps 1000 \
    --optim paged_adamw_32bit \
    "$@"
