#!/usr/bin/env bash
# Qwen3 4B (base) tuned on the cleaned Alpaca data, one pass.
# Your own data: add --dataset my.jsonl (formats: data/README.md).
#   bash scripts/finetune_qwen3_4b.sh   # flags behind it win
# GPU memory: 9.2 GiB for micro-batches of 2 x (1024 + 1024) tokens; one GPU of 12 GB.
#   = quantized weights 1.7 + other weights 0.7 + LoRA 1.0 + activations 4.8 + CUDA 1.0
#   Computed, not measured: the top of scripts/memory_table.py says how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/recipe_defaults.sh

exec python qlora.py "${small[@]}" \
    --model_name_or_path Qwen/Qwen3-4B-Base \
    --output_dir ./output/qwen3-4b \
    "$@"
