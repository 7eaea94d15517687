"""The script that one writes from the libraries' documentation: QLoRA with `Seq2SeqTrainer`, to be measured against.

    python -m scripts.plain_trainer --model DIR --dataset rows.jsonl --output_dir OUT --rows 64 --batch 4 …

Rows are padded to the longest of their batch, every layer is recomputed in the backward pass, and the library computes
the loss of all positions. Writes what it measured to OUT/train_results.json, as qlora.py does.
"""

import argparse
import json
from pathlib import Path

from data.formats.detection import detect_format
from data.sources.files import open_file


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "dataset", "output_dir"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("rows", "batch", "accumulation", "source_max_len", "target_max_len", "lora_r"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--learning_rate", type=float, required=True)
    return parser.parse_args()


def main() -> None:
    """Train one epoch."""
    asked = parse()
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        BitsAndBytesConfig,
        DataCollatorForSeq2Seq,
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
        set_seed,
    )

    set_seed(42)
    cuda = torch.cuda.is_available()
    dtype = torch.bfloat16 if cuda else torch.float32
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    tokenizer = AutoTokenizer.from_pretrained(asked.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(
        asked.model, quantization_config=quantization, dtype=dtype, device_map={"": 0 if cuda else "cpu"}
    )
    model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
    names = {name.rpartition(".")[2] for name, module in model.named_modules() if "Linear4bit" in type(module).__name__}
    lora = LoraConfig(r=asked.lora_r, lora_alpha=16, target_modules=sorted(names), task_type="CAUSAL_LM")
    trainer = Seq2SeqTrainer(
        model=get_peft_model(model, lora),
        args=Seq2SeqTrainingArguments(
            output_dir=asked.output_dir,
            num_train_epochs=1,
            per_device_train_batch_size=asked.batch,
            gradient_accumulation_steps=asked.accumulation,
            learning_rate=asked.learning_rate,
            lr_scheduler_type="constant",
            max_grad_norm=0.3,
            optim="paged_adamw_32bit" if cuda else "adamw_torch_fused",
            bf16=cuda,
            use_cpu=not cuda,
            gradient_checkpointing=True,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=encoded_rows(asked, tokenizer),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )
    metrics = trainer.train().metrics
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    metrics |= {"train_loss_first": losses[0], "train_loss_last": losses[-1]}
    Path(asked.output_dir, "train_results.json").write_text(json.dumps(metrics), encoding="utf-8")


def encoded_rows(asked: argparse.Namespace, tokenizer: object) -> list[dict[str, list[int]]]:
    """Return the ids and labels of the first rows, cut to the limits, the source not learned."""
    records = [record for _, record in zip(range(asked.rows), open_file(asked.dataset).records(), strict=False)]
    convert = detect_format(records[0][1]).convert
    rows = []
    for example in (convert(record) for _, record in records):
        start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
        source = [*start, *tokenizer(example["input"], add_special_tokens=False)["input_ids"]][: asked.source_max_len]
        target = tokenizer(example["output"], add_special_tokens=False)["input_ids"][: asked.target_max_len - 1]
        ids = [*source, *target, tokenizer.eos_token_id]
        labels = [-100] * len(source) + ids[len(source) :]
        rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels})
    return rows


if __name__ == "__main__":
    main()
