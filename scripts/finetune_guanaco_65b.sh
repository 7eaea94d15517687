#!/usr/bin/env bash
# Guanaco 65B: huggyllama/llama-65b tuned on OpenAssistant conversations.
# The published settings (https://arxiv.org/abs/2305.14314).
# --do_mmlu_eval reads the MMLU prompt files in data/mmlu/; where they are not, add --do_mmlu_eval False.
#   bash scripts/finetune_guanaco_65b.sh   # flags behind it win
# GPU memory: 46.3 GiB for micro-batches of 1 x (16 + 512) tokens; one GPU of 80 GB (48 GB paged).
#   = quantized weights 31.1 + other weights 1.0 + LoRA 11.9 + activations 1.3 + CUDA 1.0
#   Computed, not measured: the top of scripts/memory_table.py says how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/recipe_defaults.sh

exec python qlora.py "${guanaco[@]}" \
    --model_name_or_path huggyllama/llama-65b \
    --output_dir ./output/guanaco-65b \
    --save_steps 200 \
    --dataloader_num_workers 3 \
    --learning_rate 0.0001 \
    --lora_dropout 0.05 \
    "$@"
