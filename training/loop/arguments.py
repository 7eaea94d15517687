"""Our flags → transformers' own arguments, which the trainer is built on and may change as it likes.

    settings = library_arguments(training)      # a Seq2SeqTrainingArguments

This is the only place where the library's arguments are made.
"""

from transformers import Seq2SeqTrainingArguments

from arguments.declare import ArgumentsError
from arguments.library_flags import LEFT_OUT, LibraryArguments
from arguments.training import TrainingArguments
from training.model.device import on_cpu, optimizer_here, uses_cuda


class OneDevice(Seq2SeqTrainingArguments):
    """`Seq2SeqTrainingArguments` of one process with one device: where there are more GPUs, never DataParallel."""

    @property
    def n_gpu(self) -> int:
        """The number of GPUs of this process, 1 at most; transformers spreads a batch over all that it sees.

        https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/training_args.py
        """
        return min(super().n_gpu, 1)


def library_arguments(training: TrainingArguments) -> Seq2SeqTrainingArguments:
    """Return the arguments of transformers' trainer for these flags on this machine.

    --hub_token is left out, as the trainer saves its arguments and pushes them: see `training.hub.hide_token`.

    Raises:
        ArgumentsError: the library refuses a value.
    """
    values = {name: value for name, value in training.resolved().items() if name in library_fields()}
    cuda = uses_cuda(training)
    values |= {
        "optim": optimizer_here(values["optim"], cuda),
        "use_cpu": on_cpu(training),
        "tf32": training.tf32 if cuda else None,
        "push_to_hub": training.push_to_hub and training.do_train,
        "hub_token": None,
        "save_total_limit": None,  # `SavePeftModelCallback` deletes older checkpoints once the new one is sealed
    }
    try:
        return OneDevice(**values)
    except (ValueError, TypeError, ImportError, OverflowError) as error:
        raise ArgumentsError(str(error)) from error


def library_fields() -> set[str]:
    """Return the names of the flags that are transformers' own."""
    return LibraryArguments.__dataclass_fields__.keys() - set(LEFT_OUT)
