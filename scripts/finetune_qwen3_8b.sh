#!/usr/bin/env bash
# Qwen3 8B (base) tuned on the cleaned Alpaca data, one pass.
# Your own data: add --dataset my.jsonl (formats: data/README.md).
#   bash scripts/finetune_qwen3_8b.sh   # flags behind it win
# GPU memory: 13.1 GiB for micro-batches of 2 x (1024 + 1024) tokens; one GPU of 16 GB.
#   = quantized weights 3.3 + other weights 2.3 + LoRA 1.3 + activations 5.2 + CUDA 1.0
#   Computed, not measured: the top of scripts/memory_table.py says how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/recipe_defaults.sh

exec python qlora.py "${small[@]}" \
    --model_name_or_path Qwen/Qwen3-8B-Base \
    --output_dir ./output/qwen3-8b \
    "$@"
