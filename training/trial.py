"""What only torch can tell of the flags: optimizer, learning rates and compiler, tried on a toy before the model loads.

    try_out(training, settings)               # ArgumentsError: --optim sgd --optim_args nesterov=true cannot be used …
    try_schedule(training, settings, steps=1000)

They are made by the functions of the library that make them for training, of the same arguments.
"""

import contextlib
import copy
import math
from collections.abc import Iterator

import torch
from accelerate.utils import TorchDynamoPlugin
from torch import nn
from transformers import Seq2SeqTrainingArguments, Trainer, get_scheduler

from arguments.declare import ArgumentsError, require
from arguments.settings import FOLLOWING_SCHEDULES, as_written
from arguments.training import TrainingArguments
from common.errors import RequestError

# What libraries raise where a setting is wrong; they agree on nothing better.
ERRORS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
WIDTH = 64  # of the toy's matrix: 4096 numbers, which is where 8-bit optimizers begin to quantize their state
SAMPLED_STEPS = 1000  # learning rates looked at, evenly spread, besides the last and the one after the warmup
ROUNDING = 1e-9  # share by which a computed rate may be above the peak


def planned_steps(settings: Seq2SeqTrainingArguments, rows: int, step_batching: bool) -> int:
    """Return the optimizer steps of a run over `rows` training rows, as the library counts them.

    Args:
        step_batching: whether training takes the rows of a step at once.
    """
    if settings.max_steps > 0:
        return settings.max_steps
    together = settings.per_device_train_batch_size * settings.world_size
    if step_batching:
        together *= settings.gradient_accumulation_steps
    batches = rows // together if settings.dataloader_drop_last else math.ceil(rows / together)
    in_an_epoch = batches if step_batching else math.ceil(batches / settings.gradient_accumulation_steps)
    return math.ceil(settings.num_train_epochs * max(in_an_epoch, 1))


def try_out(training: TrainingArguments, settings: Seq2SeqTrainingArguments) -> None:
    """Make optimizer and compiled code as training will make them, and use them a few times.

    Raises:
        ArgumentsError: one of them cannot be made or used; names the flags.
    """
    with refusing(training, "optim", "optim_args"):
        try_optimizer(settings)
    if settings.torch_compile:
        with refusing(training, "torch_compile", "torch_compile_backend", "torch_compile_mode"):
            try_compiling(settings)


@contextlib.contextmanager
def refusing(training: TrainingArguments, *names: str) -> Iterator[None]:
    """Turn an error into a refusal of the flags `names`, as far as they were set."""
    try:
        yield
    except RequestError:
        raise
    except ERRORS as error:
        flags = " ".join(training.flags_set(names)) or f"--{names[0]} {vars(training)[names[0]]}"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ArgumentsError(f"{flags} cannot be used here: {reason}") from error


def try_optimizer(settings: Seq2SeqTrainingArguments) -> None:
    """Take two steps of the optimizer on one matrix, on the device of the run."""
    toy = nn.Linear(WIDTH, WIDTH, bias=False, device=settings.device)
    settings = copy.copy(settings)
    if settings.optim_target_modules is not None:
        settings.optim_target_modules, toy = "all-linear", nn.Sequential(toy)
    kind, options = Trainer.get_optimizer_cls_and_kwargs(settings, toy)
    groups = options.pop("params", [{"params": list(toy.parameters()), "weight_decay": settings.weight_decay}])
    optimizer = kind(groups, **options)
    if hasattr(optimizer, "train"):  # schedule-free ones tell training from evaluation
        optimizer.train()
    for _ in range(2):
        for weight in toy.parameters():
            weight.grad = torch.ones_like(weight)
        optimizer.step()


def try_compiling(settings: Seq2SeqTrainingArguments) -> None:
    """Compile one addition, which takes a compiler of the backend, as accelerate will compile the model."""
    options = TorchDynamoPlugin(backend=settings.torch_compile_backend, mode=settings.torch_compile_mode).to_kwargs()
    add = torch.compile(lambda x: x + 1, **options)
    add(torch.zeros(WIDTH, device=settings.device))


def try_schedule(training: TrainingArguments, settings: Seq2SeqTrainingArguments, steps: int) -> None:
    """Look at the learning rates of a run of so many steps, before the first of them.

    Raises:
        ArgumentsError: there is no such schedule, or a rate of it is no number, below 0 or above --learning_rate.
    """
    warmup, options = settings.get_warmup_steps(steps), training.lr_scheduler_kwargs or {}
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=training.learning_rate)
    with refusing(training, "lr_scheduler_type", "lr_scheduler_kwargs"):
        schedule = get_scheduler(training.lr_scheduler_type, optimizer, warmup, steps, options)
    flag = f"--lr_scheduler_type {training.lr_scheduler_type}"
    if training.lr_scheduler_type in FOLLOWING_SCHEDULES:
        [lowest] = schedule.min_lrs
        require(
            lowest < training.learning_rate,
            f"{flag} lowers the learning rate to {lowest:g} at least; --learning_rate is {training.learning_rate:g}: "
            """give a smaller one with --lr_scheduler_kwargs '{"min_lr": …}'.""",
        )
        return
    asked = warmup + options.get("num_stable_steps", 0) + options.get("num_decay_steps", 0)
    require(
        asked <= steps or "num_decay_steps" not in options,
        f"{flag} with {warmup:,} steps of warmup and --lr_scheduler_kwargs {as_written(options)}: these are {asked:,} "
        f"steps, and the run has {steps:,}.",
    )
    check_rates(f"{flag}, {warmup:,} steps of warmup", schedule, warmup, steps)


def check_rates(flag: str, schedule: torch.optim.lr_scheduler.LambdaLR, warmup: int, steps: int) -> None:
    """Refuse a schedule that makes of the peak another learning rate than from 0 to itself."""
    [share], [peak] = schedule.lr_lambdas, schedule.base_lrs
    for step in sorted({*range(0, steps, math.ceil(steps / SAMPLED_STEPS)), min(warmup, steps), steps}):
        where = f"{flag}: the learning rate at step {step:,} of {steps:,}"
        try:
            rate = peak * share(step)
        except ERRORS as error:
            raise ArgumentsError(f"{where} cannot be computed: {error}.") from error
        possible = isinstance(rate, float) and 0 <= rate <= peak * (1 + ROUNDING)
        require(possible, f"{where} is {rate:g}; it must be from 0 to --learning_rate {peak:g}.")
