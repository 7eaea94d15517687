#!/usr/bin/env bash
# Guanaco 13B: huggyllama/llama-13b tuned on OpenAssistant conversations.
# The published settings (https://arxiv.org/abs/2305.14314).
# --do_mmlu_eval reads the MMLU prompt files in data/mmlu/; where they are not, add --do_mmlu_eval False.
#   bash scripts/finetune_guanaco_13b.sh   # flags behind it win
# GPU memory: 12.0 GiB for micro-batches of 1 x (16 + 512) tokens; one GPU of 16 GB (12 GB paged).
#   = quantized weights 6.1 + other weights 0.6 + LoRA 3.7 + activations 0.6 + CUDA 1.0
#   Computed, not measured: the top of scripts/memory_table.py says how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/recipe_defaults.sh

exec python qlora.py "${guanaco[@]}" \
    --model_name_or_path huggyllama/llama-13b \
    --output_dir ./output/guanaco-13b \
    --save_steps 500 \
    --dataloader_num_workers 3 \
    --learning_rate 0.0002 \
    --lora_dropout 0.05 \
    "$@"
