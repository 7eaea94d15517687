"""The same work by TRL's `SFTTrainer`, to be measured against; `python -m scripts.benchmark --install_peers` brings it.

    python -m scripts.trl_trainer --model DIR --dataset rows.jsonl --output_dir OUT --rows 64 --batch 4 …
    python -m scripts.trl_trainer … --padding_free --fp32_adapters

As it comes, TRL holds the adapters of a 4-bit model in bfloat16, which processors without units for it multiply slowly;
--fp32_adapters holds them as qlora.py does. https://huggingface.co/docs/trl/sft_trainer
"""

from scripts.plain_trainer import encoded_rows, load, parser, settings, train


def main() -> None:
    """Train one epoch."""
    flags = parser()
    for name in ("padding_free", "packing", "fp32_adapters"):
        flags.add_argument(f"--{name}", action="store_true")
    asked = flags.parse_args()
    from datasets import Dataset
    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer

    set_seed(42)
    model, tokenizer, lora = load(asked)
    rows = [
        {"input_ids": row["input_ids"], "completion_mask": [int(label != -100) for label in row["labels"]]}
        for row in encoded_rows(asked, tokenizer)
    ]
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            **settings(asked),
            # Rows are cut already, which TRL cannot do without padding.
            max_length=None if asked.padding_free else asked.source_max_len + asked.target_max_len,
            completion_only_loss=True,
            padding_free=asked.padding_free,
            packing=asked.packing,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora,
    )
    if asked.fp32_adapters:
        for weight in trainer.model.parameters():
            if weight.requires_grad:
                weight.data = weight.data.float()
    train(asked, trainer)


if __name__ == "__main__":
    main()
