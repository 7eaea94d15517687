#!/usr/bin/env bash
# Qwen3 32B tuned on the cleaned Alpaca data, one pass. It was published in its chat form only.
# Your own data: add --dataset my.jsonl (formats: data/README.md).
#   bash scripts/finetune_qwen3_32b.sh   # flags behind it win
# GPU memory: 24.2 GiB for micro-batches of 1 x (1024 + 1024) tokens; one GPU of 32 GB.
#   = quantized weights 15.0 + other weights 2.9 + LoRA 2.0 + activations 3.3 + CUDA 1.0
#   Computed, not measured: the top of scripts/memory_table.py says how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/recipe_defaults.sh

exec python qlora.py "${large[@]}" \
    --model_name_or_path Qwen/Qwen3-32B \
    --output_dir ./output/qwen3-32b \
    "$@"
