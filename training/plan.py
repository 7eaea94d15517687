"""What a command will do, decided once, before anything of it is done.

    plan = make_plan(parse(argv))
    plan.checkpoint, plan.training.do_train

Nothing changes a plan or its flags afterwards.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from arguments.data import DataArguments
from arguments.generation import GenerationArguments
from arguments.model import ModelArguments
from arguments.parser import Arguments
from arguments.training import TrainingArguments
from common.errors import CheckpointError, RequestError
from common.files import check_writable
from training.checkpoint.find import check_optimizer_state, check_resumable, get_last_checkpoint
from training.checkpoint.same_run import saved_prompt_format


@dataclass(frozen=True)
class Plan:
    """What a command will do.

    Attributes:
        model, data, training, generation: the flags as they are carried out: a completed run is trained no further, and
            questions are laid out as the checkpoint was trained.
        checkpoint: whose weights are used: a checkpoint, a finished output directory, or None for the base model.
        has_work: whether anything is left to do.
        notes: what to say of it, a line each.
    """

    model: ModelArguments
    data: DataArguments
    training: TrainingArguments
    generation: GenerationArguments
    checkpoint: str | None
    has_work: bool = True
    notes: tuple[str, ...] = ()

    @property
    def tuned(self) -> bool:
        """Whether the run ends with tuned weights."""
        return self.training.do_train or self.checkpoint is not None

    @property
    def pushes(self) -> bool:
        """Whether the output directory is pushed to the hub."""
        return self.training.push_to_hub and self.training.do_train


def make_plan(arguments: Arguments) -> Plan:
    """Decide what a command will do, by its flags and by what its output directory holds.

    Raises:
        CheckpointError: what it should go on from cannot be gone on from.
        RequestError: there is nothing to compare a base model with.
    """
    training, output_dir = arguments.training, arguments.training.output_dir
    completed = False
    if training.resume_from_checkpoint is not None:
        checkpoint = check_resumable(training.resume_from_checkpoint)
        notes = []
    else:
        checkpoint, completed = get_last_checkpoint(output_dir)
        notes = start_notes(training, checkpoint, completed)
    has_work = not completed or training.do_eval or training.do_predict or training.do_mmlu_eval
    if completed and training.do_train and has_work:
        training = replace(training, do_train=False, eval_on_start=None)
    if training.compare_base and not training.do_train and checkpoint is None:
        raise RequestError(
            f"--compare_base: {output_dir} holds no tuned weights to compare the base with. Give the --output_dir of a "
            "run that was trained, or leave --do_train False out."
        )
    if training.do_train and checkpoint is not None:
        training = replace(training, eval_on_start=False)  # the run did that when it started
    if training.push_to_hub and not training.do_train:
        notes.append(f"note: --push_to_hub: nothing is pushed without training; see `hf upload NAME {output_dir}`.")
    if has_work and training.do_train and checkpoint is not None:
        check_optimizer_state(checkpoint)
    prompt_format = saved_prompt_format(arguments.data.prompt_format, checkpoint)
    data = replace(arguments.data, prompt_format=prompt_format)
    return Plan(arguments.model, data, training, arguments.generation, checkpoint, has_work, tuple(notes))


def start_notes(training: TrainingArguments, checkpoint: str | None, completed: bool) -> list[str]:
    """Return what is said of where a command starts."""
    if completed and training.do_train:
        return [
            f"{training.output_dir} holds a completed run: it is not trained further, and what follows uses its tuned "
            "weights. To train anew, give another --output_dir or remove this one."
        ]
    if checkpoint is not None and not completed:
        return [f"{'going on from' if training.do_train else 'using'} {checkpoint}"]
    if checkpoint is None and not training.do_train:
        return [f"note: {training.output_dir} holds no tuned weights: this is the base model as it is."]
    return []


def prepare_output(output_dir: str) -> None:
    """Make the output directory, and refuse one that cannot be written. Raises CheckpointError."""
    try:
        check_writable(Path(output_dir))
    except OSError as error:
        raise CheckpointError(f"--output_dir {output_dir} cannot be written: {error.strerror}.") from error
