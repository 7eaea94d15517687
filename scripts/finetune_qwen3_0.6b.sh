#!/usr/bin/env bash
# Qwen3 0.6B (base) tuned on the cleaned Alpaca data, one pass.
# Your own data: add --dataset my.jsonl (formats: data/README.md).
#   bash scripts/finetune_qwen3_0.6b.sh   # flags behind it win
# GPU memory: 6.1 GiB for micro-batches of 2 x (1024 + 1024) tokens; one GPU of 8 GB.
#   = quantized weights 0.2 + other weights 0.3 + LoRA 0.3 + activations 4.3 + CUDA 1.0
#   Computed, not measured: the top of scripts/memory_table.py says how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/recipe_defaults.sh

exec python qlora.py "${small[@]}" \
    --model_name_or_path Qwen/Qwen3-0.6B-Base \
    --output_dir ./output/qwen3-0.6b \
    "$@"
