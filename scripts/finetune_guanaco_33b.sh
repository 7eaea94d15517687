#!/usr/bin/env bash
# Guanaco 33B: huggyllama/llama-30b tuned on OpenAssistant conversations.
# The published settings (https://arxiv.org/abs/2305.14314).
# --do_mmlu_eval reads the MMLU prompt files in data/mmlu/; where they are not, add --do_mmlu_eval False.
#   bash scripts/finetune_guanaco_33b.sh   # flags behind it win
# GPU memory: 25.4 GiB for micro-batches of 1 x (16 + 512) tokens; one GPU of 32 GB (24 GB paged).
#   = quantized weights 15.4 + other weights 0.8 + LoRA 7.3 + activations 0.9 + CUDA 1.0
#   Computed, not measured: the top of scripts/memory_table.py says how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/recipe_defaults.sh

exec python qlora.py "${guanaco[@]}" \
    --model_name_or_path huggyllama/llama-30b \
    --output_dir ./output/guanaco-33b \
    --save_steps 200 \
    --dataloader_num_workers 3 \
    --learning_rate 0.0001 \
    --lora_dropout 0.05 \
    "$@"
