"""An out-of-memory error, wherever it comes, turned into advice.

    with explaining_memory(training):
        trainer.train()

The advice names flags in the order in which they cost least.
"""

import contextlib
from collections.abc import Iterator

import torch

from arguments.training import TrainingArguments
from common.errors import FailedRunError


@contextlib.contextmanager
def explaining_memory(training: TrainingArguments) -> Iterator[None]:
    """Raise FailedRunError with what to try where the GPU has too little memory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise FailedRunError(
            f"the GPU has too little memory: {str(error).splitlines()[0]}\n"
            f"Try, in this order: {smaller_batches(training)}shorter --source_max_len and --target_max_len, "
            "--gradient_checkpointing, --bits 4, a larger --max_memory_MB."
        ) from error


def smaller_batches(training: TrainingArguments) -> str:
    """Return how to make micro-batches smaller, with a comma behind it, where they can be."""
    if training.packing or training.max_tokens_per_batch is not None:
        now = training.max_tokens_per_batch or "source_max_len + target_max_len"
        return f"a smaller --max_tokens_per_batch (now {now}), "
    rows = training.per_device_train_batch_size
    if rows > 1:
        return f"--per_device_train_batch_size 1 (now {rows}) with more --gradient_accumulation_steps, "
    return ""
