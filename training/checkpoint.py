"""What a checkpoint is: how it is written, verified, found again and gone on from.

A checkpoint directory holds an adapter in PEFT's layout (or a whole model), optimizer, scheduler, random states and
trainer state, and last of all `manifest.json` with the size and SHA-256 of every other file. A run that is killed
while it saves leaves a directory without a manifest, or one that disagrees with it, and is never gone on from.
"""

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import rotate_checkpoints

from training.arguments import FailedRunError, RequestError
from training.files import read_json, write_json

MANIFEST = "manifest.json"
COMPLETED = "completed"
OLD_ADAPTER_FOLDER = "adapter_model"  # where the published QLoRA script put the adapter of a checkpoint
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
# Flags that decide which weights train, and those that decide what they are trained on.
ADAPTER_FLAGS = {"lora_r": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout"}
RECORDED_FLAGS = (
    "model_name_or_path", "full_finetune", "bits", "quant_type", "double_quant", "lora_r", "lora_alpha", "lora_dropout",
    "lora_modules", "dataset", "dataset_format", "eval_dataset", "eval_dataset_size", "max_train_samples",
    "max_eval_samples", "source_max_len", "target_max_len", "train_on_source", "do_eval", "do_predict", "seed",
    "data_seed", "train_sampling_strategy", "per_device_train_batch_size", "gradient_accumulation_steps", "max_steps",
    "num_train_epochs", "optim", "learning_rate", "lr_scheduler_type", "weight_decay", "max_grad_norm", "bf16", "fp16",
)  # fmt: skip


class CheckpointError(RequestError):
    """A checkpoint that cannot be gone on from as asked."""


class SavingError(FailedRunError):
    """What was saved, or was about to be, cannot be trusted."""


# ---- Finding -------------------------------------------------------------------------------------------------------


def get_last_checkpoint(checkpoint_dir: str | os.PathLike) -> tuple[str | None, bool]:
    """Find what to go on from in an output directory.

    Returns:
        (path, completed): the output directory itself, which holds the tuned weights, and True after a completed
        run; else the newest checkpoint that is whole, or None, and False. Damaged checkpoints are named on the way.
    """
    directory = Path(checkpoint_dir)
    if (directory / COMPLETED).is_file():
        return str(directory), True
    for checkpoint in checkpoints_in(directory):
        damage = find_damage(checkpoint)
        if damage is None:
            return str(checkpoint), False
        print(f"note: {checkpoint} is not whole ({damage}); looking for an older one.")
    return None, False


def check_resumable(checkpoint: str) -> str:
    """The directory named by --resume_from_checkpoint, if it can be gone on from.

    A checkpoint that another tool on transformers' trainer wrote has no manifest; asked for by name, it is taken.

    Raises:
        CheckpointError: it is damaged, or not a checkpoint.
    """
    directory = Path(checkpoint)
    damage = find_damage(directory) if (directory / MANIFEST).is_file() else None
    if damage is None and not (directory / "trainer_state.json").is_file():
        damage = "no trainer_state.json: not a checkpoint"
    if damage is not None:
        raise CheckpointError(f"--resume_from_checkpoint {checkpoint}: {damage}.")
    return str(directory)


def checkpoints_in(directory: Path) -> list[Path]:
    """`checkpoint-N` directories, newest (largest N) first."""
    numbered = [(path.name.removeprefix("checkpoint-"), path) for path in directory.glob("checkpoint-*")]
    found = [(int(number), path) for number, path in numbered if number.isdigit() and path.is_dir()]
    return [path for _, path in sorted(found, reverse=True)]


def find_damage(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be trusted, or None. Older layouts have no manifest and are taken as they are."""
    if not (checkpoint / MANIFEST).is_file():
        if is_old_layout(checkpoint) and (checkpoint / "trainer_state.json").is_file():
            return None
        return f"no {MANIFEST}: saving was interrupted"
    try:
        files = read_json(checkpoint / MANIFEST)["files"]
    except (json.JSONDecodeError, KeyError, UnicodeDecodeError):
        return f"{MANIFEST} cannot be read"
    for name, expected in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size:,} bytes instead of {expected['bytes']:,}"
        if sha256(path) != expected["sha256"]:
            return f"{name} has changed since it was written"
    return None


def is_old_layout(checkpoint: Path) -> bool:
    folder = checkpoint / OLD_ADAPTER_FOLDER
    return not has_adapter(checkpoint) and (folder / "adapter_config.json").is_file() and has_adapter(folder)


def has_adapter(directory: Path) -> bool:
    return any((directory / name).is_file() for name in ADAPTER_FILES)


def adapter_directory(checkpoint: str | os.PathLike) -> Path:
    """The directory in a checkpoint that PEFT loads.

    Raises:
        CheckpointError: there is no adapter in it.
    """
    root = Path(checkpoint)
    if has_adapter(root):
        return root
    if is_old_layout(root):
        return root / OLD_ADAPTER_FOLDER
    full = (root / "config.json").is_file()
    raise CheckpointError(
        f"{root} holds no adapter: " + ("it was made with --full_finetune; add that flag." if full else
        "choose another --output_dir, or remove it to start anew.")
    )  # fmt: skip


def check_same_adapter(args: Any, directory: Path, targets: list[str]) -> None:
    """Refuse to go on training an adapter whose shape differs from what the command asks for.

    Raises:
        CheckpointError: naming the flag, the checkpoint's value and the command's.
    """
    if not args.do_train:
        return
    saved = read_json(directory / "adapter_config.json")
    wrong = [
        f"--{flag} {getattr(args, flag)} (saved: {saved[key]})"
        for flag, key in ADAPTER_FLAGS.items()
        if getattr(args, flag) != saved[key]
    ]
    if isinstance(saved["target_modules"], list) and set(saved["target_modules"]) != set(targets):
        wrong.append(f"--lora_modules {args.lora_modules} (saved: {','.join(sorted(saved['target_modules']))})")
    if wrong:
        raise CheckpointError(
            f"{directory} was made with another adapter than this command asks for: {'; '.join(wrong)}. "
            "Give the saved values to go on, or another --output_dir to start anew."
        )


def changed_flags(args: Any, checkpoint: str | os.PathLike) -> list[str]:
    """`--flag now (was then)` for each recorded flag in which the command differs from the one that saved."""
    for name in (MANIFEST, COMPLETED):
        path = Path(checkpoint) / name
        if path.is_file() and path.stat().st_size:
            then = read_json(path).get("flags", {})
            now = recorded_flags(args)
            return [
                f"--{flag} {now[flag]} (was {then[flag]})" for flag in now if flag in then and now[flag] != then[flag]
            ]
    return []


def recorded_flags(args: Any) -> dict[str, Any]:
    values = {name: getattr(args, name) for name in RECORDED_FLAGS if hasattr(args, name)}
    return {name: getattr(value, "value", value) for name, value in values.items()}


# ---- Writing -------------------------------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(checkpoint: Path, step: int, flags: dict[str, Any]) -> None:
    """Seal a checkpoint: what is in it, of which size and content, made by which command."""
    paths = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != MANIFEST)
    files = {
        str(path.relative_to(checkpoint)): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in paths
    }
    write_json(checkpoint / MANIFEST, {"global_step": step, "flags": flags, "files": files})


class SavePeftModelCallback(TrainerCallback):
    """Seals each checkpoint once all of it is on disk, and only then deletes those beyond `--save_total_limit`.

    The trainer has already written the adapter in PEFT's layout. An adapter with a weight that is not finite is left
    unsealed, so that a run never goes on from it.

    Args:
        args: every flag of the command line, recorded in the manifest.
    """

    def __init__(self, args: Any):
        self.flags = recorded_flags(args)
        self.save_total_limit = args.save_total_limit

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any):
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # every process writes its own random state
        if not state.is_world_process_zero:
            return control
        bad = next((n for n, p in model.named_parameters() if p.requires_grad and not p.isfinite().all()), None)
        if bad is not None:
            raise SavingError(f"at step {state.global_step} the weight {bad} is no longer finite: training diverged.")
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        write_manifest(checkpoint, state.global_step, self.flags)
        rotate_checkpoints(
            output_dir=args.output_dir,
            save_total_limit=self.save_total_limit,
            best_model_checkpoint=state.best_model_checkpoint,
            use_mtime=True,  # a damaged checkpoint of a larger number must not outlive the sound ones
        )
        return control


class StopOnSignalCallback(TrainerCallback):
    """Turns SIGINT and SIGTERM into "finish this step, save, stop"; a second signal stops at once.

    Use as a context manager around training; `signum` is the signal that stopped it, or None.
    """

    def __init__(self):
        self.signum: int | None = None
        self.previous: dict[int, Any] = {}

    def __enter__(self):
        for signum in (signal.SIGINT, signal.SIGTERM):
            self.previous[signum] = signal.signal(signum, self.receive)
        return self

    def __exit__(self, *error: object):
        for signum, handler in self.previous.items():
            signal.signal(signum, handler)

    def receive(self, signum: int, frame: Any) -> None:
        if self.signum is not None:
            raise KeyboardInterrupt
        self.signum = signum
        print(f"\n{signal.Signals(signum).name}: saving after this step, then stopping (again to stop at once).")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any):
        if self.signum is not None:
            control.should_save = True
            control.should_training_stop = True
        return control


# ---- Finishing -----------------------------------------------------------------------------------------------------


def save_final(trainer: Any, args: Any) -> None:
    """Write the tuned weights and tokenizer to the output directory, read them back, and mark the run completed.

    Raises:
        SavingError: what was read back differs from the weights in memory.
    """
    output_dir = Path(args.output_dir)
    trainer.save_model(str(output_dir))
    trainer.save_state()
    if trainer.is_world_process_zero():
        if not args.full_finetune:
            check_reads_back(trainer.accelerator.unwrap_model(trainer.model), output_dir)
        mark = {"global_step": trainer.state.global_step, "flags": recorded_flags(args)}
        write_json(output_dir / COMPLETED, mark)


def check_reads_back(model: Any, directory: Path) -> None:
    """Compare the adapter on disk with the one in memory, weight by weight.

    Raises:
        SavingError: there is no LoRA weight, or one is missing or differs.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    memory = get_peft_model_state_dict(model, save_embedding_layers=model.embeddings_resized)
    if not any("lora_" in name for name in memory):
        raise SavingError("the adapter holds no LoRA weight: nothing was trained.")
    with safe_open(directory / "adapter_model.safetensors", framework="pt") as file:
        stored = set(file.keys())
        for name, weight in memory.items():
            if name not in stored or not torch.equal(file.get_tensor(name), weight.detach().cpu()):
                state = "differs from" if name in stored else "is missing from"
                raise SavingError(f"{name} {state} {directory}/adapter_model.safetensors after saving; disk full?")
