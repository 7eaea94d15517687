"""What a checkpoint is: how it is written, verified, found again and gone on from.

A checkpoint directory holds an adapter in PEFT's layout (or a whole model), optimizer, scheduler, random states and
trainer state, and last of all `manifest.json` with the size and SHA-256 of every other file. A run that is killed
while it saves leaves a directory without a manifest, or one that disagrees with it, and is never gone on from.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from common.errors import FailedRunError, RequestError
from common.files import read_json, write_json

MANIFEST = "manifest.json"
COMPLETED = "completed"
OLD_ADAPTER_FOLDER = "adapter_model"  # where the published QLoRA script put the adapter of a checkpoint
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
# Flags that decide which weights train, and those that decide what they are trained on.
ADAPTER_FLAGS = {"lora_r": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout"}
RECORDED_FLAGS = (
    "model_name_or_path", "full_finetune", "bits", "quant_type", "double_quant", "lora_r", "lora_alpha", "lora_dropout",
    "lora_modules", "dataset", "data_digest", "dataset_format", "eval_dataset", "eval_dataset_size",
    "max_train_samples", "source_max_len", "target_max_len", "train_on_source", "template_digest", "prompt_format",
    "seed", "data_seed", "train_sampling_strategy", "group_by_length", "max_tokens_per_batch", "packing",
    "per_device_train_batch_size", "gradient_accumulation_steps", "max_steps", "num_train_epochs",
    "optim", "learning_rate", "lr_scheduler_type", "weight_decay", "max_grad_norm", "bf16", "fp16",
    "adam_beta1", "adam_beta2", "adam_epsilon", "warmup_steps", "label_smoothing_factor", "neftune_noise_alpha",
)  # fmt: skip


HELD_OUT = "rows held out of training"  # recorded beside the flags, which say it in several ways
# Those that still change what finished weights answer, and on which rows.
USED_FLAGS = (
    "model_name_or_path", "bits", "quant_type", "double_quant", "bf16", "fp16", "source_max_len", "target_max_len",
    "train_on_source", "prompt_format",
)  # fmt: skip
# Held in the saved optimizer and schedule: a resumed run keeps theirs whatever the command says.
OPTIMIZER_FLAGS = (
    "optim", "learning_rate", "lr_scheduler_type", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
    "warmup_steps",
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
    completed = (directory / COMPLETED).is_file()
    if completed and (has_adapter(directory) or (directory / "config.json").is_file()):
        return str(directory), True
    for checkpoint in checkpoints_in(directory):
        damage = find_damage(checkpoint)
        if damage is None:
            return str(checkpoint), completed  # the published script left its final adapter in the last checkpoint
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


def check_optimizer(checkpoint: str) -> None:
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
        files = [(name, row["bytes"], row["sha256"]) for name, row in read_json(checkpoint / MANIFEST)["files"].items()]
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} cannot be read"
    for name, size, digest in files:
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes instead of {size:,}"
        if sha256(path) != digest:
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


def saved_flags(checkpoint: str | os.PathLike) -> dict[str, Any]:
    """The flags that a checkpoint or a completed run was made with; empty for those of other tools."""
    for name in (MANIFEST, COMPLETED):
        path = Path(checkpoint) / name
        if path.is_file() and path.stat().st_size:
            return read_json(path).get("flags", {})
    return {}


def saved_prompt_format(args: Any, checkpoint: str | os.PathLike | None) -> str | None:
    """How questions are laid out: as the command asks, else as `checkpoint` was trained; None where neither says."""
    if args.prompt_format is not None or checkpoint is None:
        return args.prompt_format
    flags = saved_flags(checkpoint)
    return flags.get("prompt_format", "alpaca") if flags else None


def changed_flags(args: Any, checkpoint: str | os.PathLike) -> list[str]:
    """`--flag now (was then)` for each recorded flag in which the command differs from the one that saved.

    Raises:
        CheckpointError: the difference would be without effect, or mix two base models.
    """
    then, now = saved_flags(checkpoint), recorded_flags(args)
    differing = [flag for flag in now if flag in then and now[flag] != then[flag]]
    if then.get("prompt_format") is None and "prompt_format" in differing:
        differing.remove("prompt_format")  # there was no question to lay out
    said = {flag: f"{'' if flag == HELD_OUT else '--'}{flag} {now[flag]} (was {then[flag]})" for flag in differing}
    if not args.do_train:  # `were_held_out` tells what other rows mean for an evaluation
        said = {flag: text for flag, text in said.items() if flag in USED_FLAGS}
    if "model_name_or_path" in said and Path(now["model_name_or_path"]).name != Path(then["model_name_or_path"]).name:
        raise CheckpointError(
            f"{checkpoint} was tuned from another base model: {said['model_name_or_path']}. "
            "Give that one, or another --output_dir."
        )
    kept = [said[flag] for flag in OPTIMIZER_FLAGS if flag in said]
    if kept and args.do_train:
        raise CheckpointError(
            f"{checkpoint} holds the state of its optimizer and schedule, which decide: {'; '.join(kept)} would have "
            "no effect. Give the values it was made with to go on, or another --output_dir to start anew."
        )
    return list(said.values())


def check_same_data(args: Any, checkpoint: str | os.PathLike) -> None:
    """Say where rows or chat template are no longer those that `checkpoint` was trained on."""
    then = saved_flags(checkpoint)
    if then.get("dataset") != args.dataset:
        return  # which is said as a changed flag
    changed = [
        what
        for what, flag in (
            (f"the rows of --dataset {args.dataset}", "data_digest"),
            ("the chat template", "template_digest"),
        )
        if None not in (then.get(flag), getattr(args, flag)) and then[flag] != getattr(args, flag)
    ]
    if changed:
        after = (
            "training goes on at the same place in the new order of rows, so some may come twice and some never"
            if args.do_train
            else "held-out rows may have been trained on"
        )
        print(f"WARNING: changed since {checkpoint} was made: {' and '.join(changed)}; {after}.")


def were_held_out(args: Any, checkpoint: str | os.PathLike) -> bool:
    """Whether the rows that this command evaluates were kept out of the training of `checkpoint`, as far as known."""
    then = saved_flags(checkpoint)
    if not then:
        return True
    if args.eval_dataset is not None:
        return args.eval_dataset != then.get("dataset")
    same = ("dataset", "dataset_format", "eval_dataset", "eval_dataset_size", "seed", "data_seed")
    now = recorded_flags(args)
    return bool(then.get(HELD_OUT)) and all(now[flag] == then.get(flag) for flag in same)


def recorded_flags(args: Any) -> dict[str, Any]:
    values = {name: getattr(args, name) for name in RECORDED_FLAGS if hasattr(args, name)}
    flags = {name: getattr(value, "value", value) for name, value in values.items()}
    return flags | {HELD_OUT: bool((args.do_eval or args.do_predict) and args.eval_dataset is None)}


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
        self.rotate(checkpoint, state.best_model_checkpoint)
        return control

    def rotate(self, newest: Path, best: str | None) -> None:
        """Delete the oldest sealed checkpoints beyond the limit; whatever else lies there is not ours to delete."""
        if self.save_total_limit is None:
            return
        kept = {newest} | ({Path(best)} if best else set())
        sealed = [path for path in checkpoints_in(newest.parent) if (path / MANIFEST).is_file() and path not in kept]
        for checkpoint in sealed[max(self.save_total_limit - len(kept), 0) :]:
            shutil.rmtree(checkpoint)


# ---- Finishing -----------------------------------------------------------------------------------------------------


def save_final(trainer: Any, args: Any) -> None:
    """Write the tuned weights and tokenizer to the output directory, read them back, and mark the run completed.

    Raises:
        SavingError: what was read back differs from the weights in memory.
    """
    output_dir = Path(args.output_dir)
    trainer.save_model(str(output_dir), _internal_call=True)  # else it would push, with a blank card
    trainer.save_state()
    if trainer.is_world_process_zero():
        check_reads_back(trainer.accelerator.unwrap_model(trainer.model), output_dir)
        mark = {"global_step": trainer.state.global_step, "flags": recorded_flags(args)}
        write_json(output_dir / COMPLETED, mark)


def check_reads_back(model: Any, directory: Path) -> None:
    """Compare the weights on disk with those in memory, one by one.

    Raises:
        SavingError: there is nothing to compare, or a weight is missing or differs.
    """
    from peft import get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    adapter = hasattr(model, "peft_config")
    if adapter:
        memory = get_peft_model_state_dict(model, save_embedding_layers=model.embeddings_resized)
    else:
        memory = model.state_dict()
    files = sorted(directory.glob("adapter_model*.safetensors" if adapter else "model*.safetensors"))
    compared = set()
    try:
        for path in files:
            with safe_open(path, framework="pt") as file:
                for name in set(file.keys()) & memory.keys():  # tied weights are stored once
                    if not torch.equal(file.get_tensor(name), memory[name].detach().cpu()):
                        raise SavingError(f"{name} differs from what {path} holds after saving; disk full?")
                    compared.add(name)
    except SafetensorError as error:
        raise SavingError(f"{path} cannot be read back after saving: {error}; disk full?") from error
    missing = sorted(memory.keys() - compared) if adapter else []
    if missing or not compared:
        raise SavingError(f"{missing[0] if missing else 'every weight'} is missing from {directory} after saving.")
    if adapter and not any("lora_" in name for name in compared):
        raise SavingError("the adapter holds no LoRA weight: nothing was trained.")
