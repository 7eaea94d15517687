"""The script that one writes from the libraries' documentation: QLoRA with `Seq2SeqTrainer`, to be measured against.

    python -m scripts.plain_trainer --model DIR --dataset rows.jsonl --output_dir OUT --rows 64 --batch 4 …
    python -m scripts.plain_trainer … --what predict --adapter DIR --new_tokens 64

Rows are padded to the longest of their batch, every layer is recomputed in the backward pass, and the library computes
the loss of all positions; answers are generated from prompts that are padded on the left. Writes what it measured to
OUT/train_results.json and its like, and answers to OUT/predictions.jsonl, as qlora.py does.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.formats.detection import detect_format
from data.sources.files import open_file

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Seq2SeqTrainer, Trainer


def parser() -> argparse.ArgumentParser:
    """Return the flags of the work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "dataset", "output_dir"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("rows", "batch", "accumulation", "source_max_len", "target_max_len", "lora_r"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--learning_rate", type=float, required=True)
    parser.add_argument("--what", choices=("train", "eval", "predict"), default="train")
    parser.add_argument("--adapter", help="what to evaluate or predict with")
    parser.add_argument("--new_tokens", type=int, default=64)
    parser.add_argument(
        "--float32",
        action="store_true",
        help="evaluate in float32 as training does; bitsandbytes rounds to bfloat16 on CPUs with AVX512-BF16",
    )
    return parser


def main() -> None:
    """Train one epoch, evaluate, or answer."""
    asked = parser().parse_args()
    from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training
    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments, set_seed

    set_seed(42)
    model, tokenizer, lora = load(asked)
    model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
    trainer = Seq2SeqTrainer(
        model=PeftModel.from_pretrained(model, asked.adapter) if asked.adapter else get_peft_model(model, lora),
        args=Seq2SeqTrainingArguments(
            **settings(asked),
            per_device_eval_batch_size=asked.batch,
            prediction_loss_only=asked.what == "eval",
            predict_with_generate=asked.what == "predict",
            gradient_checkpointing=True,
            gradient_checkpointing_kwargs={"use_reentrant": False},
        ),
        train_dataset=encoded_rows(asked, tokenizer),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )
    if asked.what == "predict":
        answer(asked, trainer, tokenizer)
        return
    if asked.what == "eval":
        write(asked, "eval", trainer.evaluate(trainer.train_dataset))
        return
    train(asked, trainer)


def settings(asked: argparse.Namespace) -> dict[str, Any]:
    """Return what every trainer of the benchmark is told."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "output_dir": asked.output_dir,
        "num_train_epochs": 1,
        "per_device_train_batch_size": asked.batch,
        "gradient_accumulation_steps": asked.accumulation,
        "learning_rate": asked.learning_rate,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.3,
        "optim": "paged_adamw_32bit" if cuda else "adamw_torch_fused",
        "bf16": cuda,
        "use_cpu": not cuda,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def train(asked: argparse.Namespace, trainer: "Trainer") -> None:
    """Train, and write what was measured."""
    metrics = trainer.train().metrics
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    write(asked, "train", metrics | {"train_loss_first": losses[0], "train_loss_last": losses[-1]})


def load(asked: argparse.Namespace) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase", "LoraConfig"]:
    """Return the model in 4 bits, its tokenizer, and LoRA on all of its linear layers."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

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
    layers = {name: layer for name, layer in model.named_modules() if "Linear4bit" in type(layer).__name__}
    for layer in layers.values():
        if asked.float32:
            layer.support_avx512bf16_for_cpu = False
    names = sorted({name.rpartition(".")[2] for name in layers})
    return model, tokenizer, LoraConfig(r=asked.lora_r, lora_alpha=16, target_modules=names, task_type="CAUSAL_LM")


def write(asked: argparse.Namespace, name: str, metrics: dict[str, float]) -> None:
    """Write what was measured."""
    Path(asked.output_dir).mkdir(parents=True, exist_ok=True)
    Path(asked.output_dir, f"{name}_results.json").write_text(json.dumps(metrics), encoding="utf-8")


def answer(asked: argparse.Namespace, trainer: "Seq2SeqTrainer", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Write a greedy answer to each row."""
    tokenizer.padding_side = "left"
    sources = [
        {"input_ids": [id for id, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100]}
        for row in trainer.train_dataset
    ]
    trainer.data_collator = lambda rows: tokenizer.pad(rows, return_tensors="pt")
    output = trainer.predict(
        sources, metric_key_prefix="predict", max_new_tokens=asked.new_tokens, do_sample=False, num_beams=1
    )
    longest = [
        max(len(row["input_ids"]) for row in sources[at : at + asked.batch])
        for at in range(0, len(sources), asked.batch)
    ]
    lines = []
    for number, ids in enumerate(output.predictions):
        new = [id for id in ids[longest[number // asked.batch] :].tolist() if id >= 0]
        lines.append(json.dumps({"prediction": tokenizer.decode(new, skip_special_tokens=True)}) + "\n")
    write(asked, "predict", output.metrics)
    Path(asked.output_dir, "predictions.jsonl").write_text("".join(lines), encoding="utf-8")


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
