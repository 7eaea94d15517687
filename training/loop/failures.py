"""Errors of libraries turned into messages for the user."""

import contextlib
from typing import Any

import torch

from common.errors import FailedRunError


@contextlib.contextmanager
def explaining_memory(args: Any):
    """Turn an out-of-memory error, wherever it comes, into advice.

    Raises:
        FailedRunError: the GPU has too little memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise FailedRunError(out_of_memory(args, error)) from error


def out_of_memory(args: Any, error: Exception) -> str:
    if args.packing or args.max_tokens_per_batch is not None:
        now = args.max_tokens_per_batch or "source_max_len + target_max_len"
        less = f"a smaller --max_tokens_per_batch (now {now}), "
    elif args.per_device_train_batch_size > 1:
        less = f"--per_device_train_batch_size 1 (now {args.per_device_train_batch_size}) with more "
        less += "--gradient_accumulation_steps, "
    else:
        less = ""
    return (
        f"the GPU has too little memory: {str(error).splitlines()[0]}\n"
        f"Try, in this order: {less}shorter --source_max_len and --target_max_len, --gradient_checkpointing, "
        "--bits 4, a larger --max_memory_MB."
    )
