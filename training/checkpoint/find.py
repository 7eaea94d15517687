"""What to go on from: the last whole checkpoint, a completed run, or what --resume_from_checkpoint names.

    checkpoint, completed = get_last_checkpoint("output/mine")

A checkpoint that its manifest does not vouch for is named and passed over.
"""

import os
from pathlib import Path

from common.errors import CheckpointError
from common.outputs import CHECKPOINT, COMPLETED, CONFIG, MANIFEST, TRAINER_STATE
from training.checkpoint.manifest import OLD_ADAPTER_FOLDER, find_damage, has_adapter, is_old_layout


def get_last_checkpoint(checkpoint_dir: str | os.PathLike) -> tuple[str | None, bool]:
    """Find what to go on from in an output directory.

    Returns:
        (path, completed): the output directory itself, which holds the tuned weights, and True after a completed
        run; else the newest checkpoint that is whole, or None, and False. Damaged checkpoints are named on the way.
    """
    directory = Path(checkpoint_dir)
    completed = (directory / COMPLETED).is_file()
    if completed and (has_adapter(directory) or (directory / CONFIG).is_file()):
        return str(directory), True
    for checkpoint in checkpoints_in(directory):
        damage = find_damage(checkpoint)
        if damage is None:
            return str(checkpoint), completed  # the published script left its final adapter in the last checkpoint
        print(f"note: {checkpoint} is not whole ({damage}); looking for an older one.")
    return None, False


def checkpoints_in(directory: Path) -> list[Path]:
    """Return the `checkpoint-N` directories, newest (largest N) first."""
    numbers = [(path.name.removeprefix(CHECKPOINT), path) for path in directory.glob(f"{CHECKPOINT}*")]
    checkpoints = [(int(number), path) for number, path in numbers if number.isdigit() and path.is_dir()]
    return [path for _, path in sorted(checkpoints, reverse=True)]


def check_resumable(checkpoint: str) -> str:
    """Return the directory named by --resume_from_checkpoint, if it can be gone on from.

    A checkpoint that another tool on transformers' trainer wrote has no manifest; asked for by name, it is taken.

    Raises:
        CheckpointError: it is damaged, or not a checkpoint.
    """
    directory = Path(checkpoint)
    damage = find_damage(directory) if (directory / MANIFEST).is_file() else None
    if damage is None and not (directory / TRAINER_STATE).is_file():
        damage = f"no {TRAINER_STATE}: not a checkpoint"
    if damage is not None:
        raise CheckpointError(f"--resume_from_checkpoint {checkpoint}: {damage}.")
    return str(directory)


def check_optimizer_state(checkpoint: str) -> None:
    """Refuse to train on from weights alone: a fresh optimizer would not be the same run.

    Raises:
        CheckpointError: optimizer or schedule are missing.
    """
    for name in ("optimizer.pt", "scheduler.pt"):
        if not (Path(checkpoint) / name).is_file():
            raise CheckpointError(
                f"{checkpoint} has no {name} (--save_only_model, or a finished output directory), so training cannot "
                "go on from where it was. Choose another --output_dir to start anew."
            )


def adapter_directory(checkpoint: str | os.PathLike) -> Path:
    """Return the directory in a checkpoint that PEFT loads.

    Raises:
        CheckpointError: there is no adapter in it.
    """
    root = Path(checkpoint)
    if has_adapter(root):
        return root
    if is_old_layout(root):
        return root / OLD_ADAPTER_FOLDER
    whole_model = (root / CONFIG).is_file()
    advice = (
        "it was made with --full_finetune; add that flag."
        if whole_model
        else "choose another --output_dir, or remove it to start anew."
    )
    raise CheckpointError(f"{root} holds no adapter: {advice}")


def check_whole_model(checkpoint: str) -> None:
    """Refuse --full_finetune where a checkpoint holds an adapter. Raises CheckpointError."""
    if not (Path(checkpoint) / CONFIG).is_file():
        raise CheckpointError(
            f"--full_finetune with {checkpoint}, which holds an adapter: leave --full_finetune out to go on from it, "
            "or give another --output_dir to start anew."
        )
