#!/usr/bin/env bash
# Guanaco 7B: huggyllama/llama-7b tuned on OpenAssistant conversations.
# The published settings (https://arxiv.org/abs/2305.14314).
# --do_mmlu_eval reads the MMLU prompt files in data/mmlu/; where they are not, add --do_mmlu_eval False.
#   bash scripts/finetune_guanaco_7b.sh   # flags behind it win
# GPU memory: 7.4 GiB for micro-batches of 1 x (16 + 512) tokens; one GPU of 12 GB (8 GB paged).
#   = quantized weights 3.1 + other weights 0.5 + LoRA 2.4 + activations 0.4 + CUDA 1.0
#   Computed, not measured: the top of scripts/memory_table.py says how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/recipe_defaults.sh

exec python qlora.py "${guanaco[@]}" \
    --model_name_or_path huggyllama/llama-7b \
    --output_dir ./output/guanaco-7b \
    --save_steps 500 \
    --dataloader_num_workers 3 \
    --learning_rate 0.0002 \
    --lora_dropout 0.1 \
    "$@"
