"""A trainer for the rows of a run, and training with it: to the end, or until a signal.

    trainer = build_trainer(model, tokenizer, settings, generation, train=rows, evaluated=None, collator=collator, …)
    metrics, signum = train_model(trainer, checkpoint=None)

A signal ends the step in hand and saves.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftModel
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Seq2SeqTrainingArguments,
    TrainerState,
)

from arguments.generation import GenerationArguments
from common.errors import FailedRunError
from common.outputs import TRAINER_STATE
from training.loop.callbacks import StopOnSignalCallback, WatchLossCallback
from training.loop.evaluation import EvaluationMetrics
from training.loop.steps import Batch
from training.loop.trainer import QLoRATrainer


def generation_config(
    generation: GenerationArguments,
    model: PeftModel | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    marks: Iterable[str],
) -> GenerationConfig:
    """Return how answers are written; `marks` are texts that end them where the template has no token that does."""
    return GenerationConfig(
        **generation.options(),
        eos_token_id=model.generation_config.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        stop_strings=list(marks) or None,
    )


def build_trainer(
    model: PeftModel | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: Seq2SeqTrainingArguments,
    generation: GenerationConfig,
    *,
    train: Dataset | None,
    evaluated: Dataset | None,
    collator: Callable[[Sequence], Batch],
    step_collator: Callable[[Sequence], list[Batch]] | None,
    trial: Sequence[Batch],
    largest: tuple[int, int] | None,
    metrics: EvaluationMetrics,
) -> QLoRATrainer:
    """Return the trainer of a run.

    Args:
        settings: of the library; left as they are.
        train, evaluated: tokenized rows, or None.
        collator: makes the batches; with prompts in them where evaluation generates.
        step_collator: makes the micro-batches of a step, which the library then counts as one batch; or None.
        trial: micro-batches by it of a few rows that stand behind one another, and so must not see one another.
        largest: tokens of the largest micro-batch and how many of them are supervised, by which it is chosen how many
            layers to recompute; None where flags say it.
        metrics: what evaluations measure.
    """
    settings = copy.copy(settings)
    if settings.ddp_find_unused_parameters is None and not any("expert" in name for name, _ in model.named_modules()):
        settings.ddp_find_unused_parameters = False  # without experts, every weight takes part in each step
    if step_collator is not None:
        settings.per_device_train_batch_size *= settings.gradient_accumulation_steps
        settings.gradient_accumulation_steps = 1
    return QLoRATrainer(
        model=model,
        args=settings,
        train_dataset=train,
        eval_dataset=evaluated,
        data_collator=collator,
        processing_class=tokenizer,
        compute_metrics=metrics,
        generation=generation,
        step_collator=step_collator,
        trial=trial,
        largest=largest,
    )


def train_model(trainer: QLoRATrainer, checkpoint: str | None) -> tuple[dict[str, Any], int | None]:
    """Train to the end, going on from `checkpoint` where there is one.

    Returns:
        (metrics, signal): the training metrics, and the signal that stopped the run early, or None.

    Raises:
        DivergedError: the loss became infinite or not a number.
        FailedRunError: there was nothing to train on.
    """
    stop = StopOnSignalCallback()
    trainer.add_callback(stop)
    trainer.add_callback(WatchLossCallback)
    metrics: dict[str, Any] = {}
    if checkpoint is not None:
        trainer.state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE))
    batches = trainer.get_train_dataloader()
    if not len(batches):
        raise FailedRunError(
            "not one step was trained: the training rows do not fill a batch. Lower --per_device_train_batch_size or "
            "--gradient_accumulation_steps, or leave --dataloader_drop_last out."
        )
    *_, total = trainer.set_initial_training_values(trainer.args, batches)
    # The library would train one step more from a checkpoint of the last step.
    if checkpoint is None or trainer.state.global_step < total:
        trainer.settle_recomputation()
        with stop:
            metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
    return {**metrics, **learning_curve(trainer.state)}, stop.signum


def learning_curve(state: TrainerState) -> dict[str, Any]:
    """Return first and last logged loss, and the evaluation loss before training, from the trainer's history."""
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    before = [entry["eval_loss"] for entry in state.log_history if entry["step"] == 0 and "eval_loss" in entry]
    curve = {"train_steps": state.global_step}
    if losses:
        curve |= {"train_loss_first": losses[0], "train_loss_last": losses[-1]}
    if before:
        curve["eval_loss_before"] = before[0]
    return curve
