#!/usr/bin/env bash
# Llama 3.1 8B tuned on the cleaned Alpaca data, one pass. A gated model: run `hf auth login` first.
# Your own data: add --dataset my.jsonl (formats: data/README.md).
#   bash scripts/finetune_llama3.1_8b.sh   # flags behind it win
# GPU memory: 12.0 GiB for micro-batches of 2 x (1024 + 1024) tokens; one GPU of 16 GB.
#   = quantized weights 3.4 + other weights 2.0 + LoRA 1.2 + activations 4.4 + CUDA 1.0
#   Computed, not measured: the top of scripts/memory_table.py says how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/recipe_defaults.sh

exec python qlora.py "${small[@]}" \
    --model_name_or_path meta-llama/Llama-3.1-8B \
    --use_auth_token \
    --output_dir ./output/llama-3.1-8b \
    "$@"
