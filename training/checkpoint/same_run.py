"""Whether a command goes on with the run that a checkpoint is of: what flags, rows and adapter it was made with.

    flags = recorded_flags(model, data, training, optimizer="adamw_torch_fused", processes=1)
    changed_flags(flags, "output/mine/checkpoint-250", trains=True)     # ["--max_steps 500 (was 250)"]

What is recorded, and what is refused, follows from what each flag affects: see `arguments.declare`.
"""

import os
from pathlib import Path
from typing import Any

from arguments.data import DataArguments
from arguments.declare import affects
from arguments.model import ModelArguments
from arguments.training import TrainingArguments
from common.errors import CheckpointError
from common.files import read_json
from common.outputs import ADAPTER_CONFIG
from training.checkpoint.manifest import saved_flags

HELD_OUT = "rows held out of training"  # recorded beside the flags, which say it in several ways
PROCESSES = "number of processes"  # which decides, too, how many rows a step has
DATA_DIGEST, TEMPLATE_DIGEST = "data_digest", "template_digest"
# What still decides what finished weights answer.
LASTING = ("base", "text")
ADAPTER_SETTINGS = {"lora_r": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout"}  # flag → PEFT's name


def recorded_flags(
    model: ModelArguments, data: DataArguments, training: TrainingArguments, optimizer: str, processes: int
) -> dict[str, Any]:
    """Return what a checkpoint records: each flag that decides something, with the value that applied.

    Args:
        optimizer: the one that this machine runs in the place of --optim.
        processes: how many train together.
    """
    values = vars(model) | vars(data) | training.resolved() | {"optim": optimizer}
    decides = affects(model, data, training)
    flags = {name: values[name] for name, what in decides.items() if what != "best" or training.goes_by_evaluations}
    evaluates = training.do_eval or training.do_predict
    return flags | {PROCESSES: processes, HELD_OUT: evaluates and data.eval_dataset is None}


def with_data(
    flags: dict[str, Any], prompt_format: str | None, digest: str | None, template_digest: str | None
) -> dict[str, Any]:
    """Return what is recorded, with what is known of the data once it is loaded; see `data.loading.DataModule`."""
    return flags | {"prompt_format": prompt_format, DATA_DIGEST: digest, TEMPLATE_DIGEST: template_digest}


def changed_flags(flags: dict[str, Any], checkpoint: str | os.PathLike, trains: bool) -> list[str]:
    """Return `--flag now (was then)` for each recorded flag in which a command differs from the one that saved.

    Args:
        flags: those of the command, as `recorded_flags` gives them.
        trains: whether it trains on; else only what decides the answers of finished weights counts.

    Raises:
        CheckpointError: the difference would be without effect, or mix two base models.
    """
    then, decides = saved_flags(checkpoint), affects(ModelArguments, DataArguments, TrainingArguments)
    differing = [name for name in flags if name in then and flags[name] != then[name]]
    if then.get("prompt_format") is None and "prompt_format" in differing:
        differing.remove("prompt_format")  # there was no question to lay out
    if not trains:  # `were_held_out` tells what other rows mean for an evaluation
        differing = [name for name in differing if decides.get(name) in LASTING]
    texts = {name: f"{'--' if name in decides else ''}{name} {flags[name]} (was {then[name]})" for name in differing}
    base = "model_name_or_path"
    if base in texts and Path(flags[base]).name != Path(then[base]).name:
        raise CheckpointError(
            f"{checkpoint} was tuned from another base model: {texts[base]}. Give that one, or another --output_dir."
        )
    decided = [text for name, text in texts.items() if decides.get(name) == "optimizer"]
    if decided and trains:
        raise CheckpointError(
            f"{checkpoint} holds the state of its optimizer and schedule, which decide: {'; '.join(decided)} would "
            "have no effect. Give the values it was made with to go on, or another --output_dir to start anew."
        )
    return list(texts.values())


def check_same_adapter(training: TrainingArguments, directory: Path, targets: list[str]) -> None:
    """Refuse to go on training an adapter whose shape differs from what the command asks for.

    Args:
        directory: holds the adapter.
        targets: names of the layers that the command puts LoRA on.

    Raises:
        CheckpointError: naming the flag, the checkpoint's value and the command's.
    """
    saved, asked = read_json(directory / ADAPTER_CONFIG), vars(training)
    wrong = [
        f"--{flag} {asked[flag]} (saved: {saved[name]})"
        for flag, name in ADAPTER_SETTINGS.items()
        if asked[flag] != saved[name]
    ]
    if isinstance(saved["target_modules"], list) and set(saved["target_modules"]) != set(targets):
        wrong.append(f"--lora_modules {training.lora_modules} (saved: {','.join(sorted(saved['target_modules']))})")
    if wrong:
        raise CheckpointError(
            f"{directory} was made with another adapter than this command asks for: {'; '.join(wrong)}. "
            "Give the saved values to go on, or another --output_dir to start anew."
        )


def changed_data(flags: dict[str, Any], checkpoint: str | os.PathLike, trains: bool) -> str | None:
    """Return a warning where rows or chat template are no longer those that `checkpoint` was trained on.

    Args:
        flags: what this command records, digests included.
    """
    then = saved_flags(checkpoint)
    if then.get("dataset") != flags["dataset"]:
        return None  # which is said as a changed flag
    things = ((f"the rows of --dataset {flags['dataset']}", DATA_DIGEST), ("the chat template", TEMPLATE_DIGEST))
    changed = [
        thing for thing, name in things if None not in (then.get(name), flags.get(name)) and then[name] != flags[name]
    ]
    after = (
        "training goes on at the same place in the new order of rows, so some may come twice and some never"
        if trains
        else "held-out rows may have been trained on"
    )
    return f"WARNING: changed since {checkpoint} was made: {' and '.join(changed)}; {after}." if changed else None


def were_held_out(flags: dict[str, Any], checkpoint: str | os.PathLike) -> bool:
    """Return whether the rows that a command evaluates were kept out of the training of `checkpoint`, if known."""
    then = saved_flags(checkpoint)
    if not then:
        return True
    if flags["eval_dataset"] is not None:
        return flags["eval_dataset"] != then.get("dataset")
    split = [name for name, what in affects(DataArguments, TrainingArguments).items() if what == "split"]
    return bool(then.get(HELD_OUT)) and all(flags[name] == then.get(name) for name in split)


def saved_prompt_format(asked: str | None, checkpoint: str | os.PathLike | None) -> str | None:
    """Return how questions are laid out: as asked, else as `checkpoint` was trained; None where neither says."""
    if asked is not None or checkpoint is None:
        return asked
    flags = saved_flags(checkpoint)
    return flags.get("prompt_format", "alpaca") if flags else None
