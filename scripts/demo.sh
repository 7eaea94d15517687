#!/usr/bin/env bash
# Tunes a small base model in 4-bit NF4 and shows what it learned, on a CPU in under four minutes.
#   bash scripts/demo.sh            flags behind it go to the run, e.g. --bf16 on a GPU
# The base model has read plain sentences about every country, but never a question. It is tuned on questions about
# most countries and asked about the others: those answers can only come from what it had read.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh

out=output/demo
rm -rf "$out"

echo "== 1/2 Tuning it in 4-bit NF4, then asking both the base and the tuned model about countries it was not tuned on"
python qlora.py \
  --model_name_or_path data/demo/base \
  --dataset data/demo/train.jsonl --eval_dataset data/demo/eval.jsonl \
  --source_max_len 128 --target_max_len 32 \
  --bits 4 --quant_type nf4 --double_quant \
  --lora_r 64 --lora_alpha 16 --learning_rate 1e-3 --max_steps 150 --logging_steps 10 \
  --per_device_train_batch_size 16 --gradient_accumulation_steps 1 \
  --do_eval --do_predict --compare_base --max_new_tokens 32 --per_device_eval_batch_size 32 \
  --output_dir "$out" "$@"

echo "== 2/2 Base against tuned"
python -m scripts.demo_report "$out"
