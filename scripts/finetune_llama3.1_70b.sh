#!/usr/bin/env bash
# Llama 3.1 70B tuned on the cleaned Alpaca data, one pass. A gated model: run `hf auth login` first.
# Your own data: add --dataset my.jsonl (formats: data/README.md).
#   bash scripts/finetune_llama3.1_70b.sh   # flags behind it win
# GPU memory: 45.1 GiB for micro-batches of 1 x (1024 + 1024) tokens; one GPU of 80 GB (48 GB paged).
#   = quantized weights 32.9 + other weights 3.9 + LoRA 3.1 + activations 4.2 + CUDA 1.0
#   Computed, not measured: the top of scripts/memory_table.py says how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/recipe_defaults.sh

exec python qlora.py "${large[@]}" \
    --model_name_or_path meta-llama/Llama-3.1-70B \
    --use_auth_token \
    --output_dir ./output/llama-3.1-70b \
    "$@"
