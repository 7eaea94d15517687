"""What a training run says while it goes on, and when it ends because its loss is no number any more."""

import math
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback

from training.arguments import FailedRunError


class LogLineCallback(ProgressCallback):
    """The library's progress bars, with one short line for each log entry."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any):
        if not state.is_world_process_zero or self.training_bar is None or not logs:
            return
        hidden = ("epoch", "total_flos", "runtime", "per_second", "supervised_tokens")
        shown = [f"{name} {value:.4g}" for name, value in logs.items() if not name.endswith(hidden)]
        self.training_bar.write(f"step {state.global_step}/{state.max_steps}  {'  '.join(shown)}")


class DivergedError(FailedRunError):
    """The loss is no longer a finite number."""


class WatchLossCallback(TrainerCallback):
    """Logs the last step too, and ends a run whose loss is not finite: every later step would be wasted."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any):
        control.should_log |= state.global_step >= state.max_steps
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any):
        bad = {name: value for name, value in (logs or {}).items() if name in ("loss", "eval_loss")}
        bad = {name: value for name, value in bad.items() if not math.isfinite(value)}
        for name, value in bad.items():
            raise DivergedError(
                f"the {name} is {value} at step {state.global_step}: training diverged. Lower --learning_rate "
                f"({args.learning_rate:g}), or use --bf16 instead of --fp16. Earlier checkpoints are kept."
            )
