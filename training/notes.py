"""What a run says before it begins: where it starts, what this machine does otherwise, which flags have no effect.

    print_notes(plan, flags)
    print_data_changes(plan, with_data(flags, "chat", digest, template_digest))

Nothing is decided here; `training.plan` does that.
"""

from collections.abc import Iterator
from typing import Any

from arguments.data import DataArguments
from arguments.generation import GenerationArguments
from arguments.training import TrainingArguments
from training.checkpoint.same_run import changed_data, changed_flags, were_held_out
from training.model.device import machine_notes, on_cpu
from training.plan import Plan


def print_notes(plan: Plan, flags: dict[str, Any]) -> None:
    """Print all that is known before the data is read.

    Args:
        flags: what a checkpoint of this command records; see `training.checkpoint.same_run.recorded_flags`.

    Raises:
        CheckpointError: a flag differs from those of the checkpoint, and the change would be without effect.
    """
    for note in [*(f"note: {note}" for note in machine_notes(plan.training)), *plan.notes]:
        print(note)
    for unused, needed in unused_flags(plan.data, plan.training, plan.generation):
        print(f"note: {', '.join(unused)}: no effect without {needed}.")
    if plan.checkpoint is not None:
        print_changes(plan.training, plan.checkpoint, flags)


def unused_flags(
    data: DataArguments, training: TrainingArguments, generation: GenerationArguments
) -> Iterator[tuple[list[str], str]]:
    """Yield flags that were given and have no effect, and what they have no effect without."""
    if data.eval_dataset is not None and not (training.do_eval or training.do_predict):
        yield [f"--eval_dataset {data.eval_dataset}"], "--do_eval or --do_predict"
    if training.predict_with_generate and not training.do_eval:
        yield ["--predict_with_generate"], "--do_eval or --eval_strategy"
    groups = [(names, needed) for names, needed, works in training.idle(on_cpu(training)) if not works]
    unused = [(training.flags_set(names), needed) for names, needed in groups]
    unused.append((training.unused_mmlu_flags(), "--do_mmlu_eval"))
    if training.do_predict or training.predict_with_generate:
        unused.append((generation.unused(), "--do_sample or --num_beams above 1"))
    yield from ((flags, needed) for flags, needed in unused if flags)


def print_data_changes(plan: Plan, flags: dict[str, Any]) -> None:
    """Print whether rows or chat template have changed since the checkpoint was saved; `flags` hold their digests."""
    warning = plan.checkpoint and changed_data(flags, plan.checkpoint, plan.training.do_train)
    if warning:
        print(warning)


def print_changes(training: TrainingArguments, checkpoint: str, flags: dict[str, Any]) -> None:
    """Print in which flags a command differs from the one that saved a checkpoint, and what that means."""
    changes = changed_flags(flags, checkpoint, training.do_train)
    if changes:
        print(f"note: other flags than {checkpoint} was made with: {'; '.join(changes)}")
    if (training.do_eval or training.do_predict) and not were_held_out(flags, checkpoint):
        print(
            "WARNING: rows that are evaluated now were trained on: the training did not hold the same rows out. Give "
            "rows that it has not seen with --eval_dataset FILE."
        )
