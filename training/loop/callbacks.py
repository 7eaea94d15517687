"""What a training run says while it goes on, and what ends it early: a signal, or a loss that is not finite.

    trainer.add_callback(WatchLossCallback)
    with StopOnSignalCallback() as stop: ...      # `stop.signum` says what ended the run

Transformers calls them: https://huggingface.co/docs/transformers/main_classes/callback
"""

import math
import os
import signal
import time
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback

from common.errors import FailedRunError
from common.outputs import is_detail


class LogLineCallback(ProgressCallback):
    """The library's progress bars, with one short line for each log entry.

    Attributes:
        label: stands before the bar of an evaluation or prediction.
    """

    label = "eval"

    def on_prediction_step(self, *args: Any, **kwargs: Any):
        begins = self.prediction_bar is None
        super().on_prediction_step(*args, **kwargs)
        if begins and self.prediction_bar is not None:
            self.prediction_bar.set_description(self.label)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ):
        if not state.is_world_process_zero or self.training_bar is None or not logs:
            return
        names = [name for name in logs if not is_detail(name) and not name.endswith(("epoch", "supervised_tokens"))]
        numbers = "  ".join(f"{name} {logs[name]:.4g}" for name in names)
        self.training_bar.write(f"step {state.global_step}/{state.max_steps}  {numbers}")


class DivergedError(FailedRunError):
    """The loss is no longer a finite number."""


class WatchLossCallback(TrainerCallback):
    """Logs the last step too, and ends a run whose loss is not finite: every later step would be wasted."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        control.should_log |= state.global_step >= state.max_steps
        return control

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ):
        losses = {name: value for name, value in (logs or {}).items() if name in ("loss", "eval_loss")}
        name = next((name for name, value in losses.items() if not math.isfinite(value)), None)
        if name is not None:
            raise DivergedError(
                f"the {name} is {losses[name]} at step {state.global_step}: training diverged. Lower --learning_rate "
                f"({args.learning_rate:g}), or use --bf16 instead of --fp16. Earlier checkpoints are kept."
            )


class StopOnSignalCallback(TrainerCallback):
    """Turns SIGINT and SIGTERM into "finish this step, save, stop"; a second signal stops at once.

    Under a launcher the processes agree on it, so that none waits for one that has gone. Use as a context manager
    around training; `signum` is the signal that stopped it, or None.
    """

    GRACE = 1.0  # seconds in which a second signal counts as the first: launchers pass on what the terminal sent too

    def __init__(self):
        self.signum: int | None = None
        self.received = 0.0
        self.previous: dict[int, Any] = {}

    def __enter__(self):
        for signum in (signal.SIGINT, signal.SIGTERM):
            self.previous[signum] = signal.signal(signum, self.receive)
        return self

    def __exit__(self, *error: object):
        for signum, handler in self.previous.items():
            signal.signal(signum, handler)

    def receive(self, signum: int, frame: FrameType | None) -> None:
        """Take a signal: the first is noted, a second one interrupts."""
        if self.signum is None:
            self.signum, self.received = signum, time.monotonic()
            name = signal.Signals(signum).name
            message = f"\n{name}: stopping after this step and any evaluation, then saving (again to stop at once)\n"
            os.write(2, message.encode())  # print may be in the middle of a line of its own
        elif time.monotonic() - self.received > self.GRACE:
            raise KeyboardInterrupt

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if torch.distributed.is_initialized():
            asked = torch.tensor(self.signum or 0, device=args.device)
            torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
            self.signum = int(asked) or None
        if self.signum is not None:
            control.should_save = True
            control.should_training_stop = True
        return control
