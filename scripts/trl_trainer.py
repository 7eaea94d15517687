"""The same work by TRL's `SFTTrainer`, to be measured against; `python -m scripts.benchmark --install_peers` brings it.

    python -m scripts.trl_trainer --model DIR --dataset rows.jsonl --output_dir OUT --rows 64 --batch 4 …
    python -m scripts.trl_trainer … --padding_free --fp32_adapters

As it comes, TRL holds the adapters of a 4-bit model in bfloat16, which processors without units for it multiply slowly;
--fp32_adapters holds them as qlora.py does. https://huggingface.co/docs/trl/sft_trainer
"""

from scripts.plain_trainer import encoded_rows, load, parser, write


def main() -> None:
    """Train one epoch."""
    flags = parser()
    for name in ("padding_free", "packing", "fp32_adapters"):
        flags.add_argument(f"--{name}", action="store_true")
    asked = flags.parse_args()
    import torch
    from datasets import Dataset
    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer

    set_seed(42)
    model, tokenizer, lora = load(asked)
    cuda = torch.cuda.is_available()
    rows = [
        {"input_ids": row["input_ids"], "completion_mask": [int(label != -100) for label in row["labels"]]}
        for row in encoded_rows(asked, tokenizer)
    ]
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
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
            max_length=None
            if asked.padding_free
            else asked.source_max_len + asked.target_max_len,  # rows are cut already
            completion_only_loss=True,
            padding_free=asked.padding_free,
            packing=asked.packing,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora,
    )
    if asked.fp32_adapters:
        for weight in trainer.model.parameters():
            if weight.requires_grad:
                weight.data = weight.data.float()
    metrics = trainer.train().metrics
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    metrics |= {"train_loss_first": losses[0], "train_loss_last": losses[-1]}
    write(asked, "train", metrics)


if __name__ == "__main__":
    main()
