"""A checkpoint's seal: `manifest.json`, with the size and SHA-256 of every other file, and the flags that made them.

    write_manifest(Path("output/mine/checkpoint-250"), 250, flags)
    find_damage(Path("output/mine/checkpoint-250"))      # None, or why it cannot be trusted

The manifest is written last. A run that is killed while it saves leaves a directory without one, or one that disagrees
with it, and is never gone on from.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from common.files import read_json, write_json
from common.outputs import ADAPTER_CONFIG, COMPLETED, MANIFEST, TRAINER_STATE

OLD_ADAPTER_FOLDER = "adapter_model"  # where the published QLoRA script put the adapter of a checkpoint
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(checkpoint: Path, step: int, flags: dict[str, Any]) -> None:
    """Seal a checkpoint: what is in it, of which size and content, made by which flags."""
    paths = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != MANIFEST)
    files = {
        str(path.relative_to(checkpoint)): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in paths
    }
    write_json(checkpoint / MANIFEST, {"global_step": step, "flags": flags, "files": files})


def saved_flags(checkpoint: str | os.PathLike) -> dict[str, Any]:
    """Return the flags that a checkpoint or a completed run was made with; none for those of other tools."""
    for name in (MANIFEST, COMPLETED):
        path = Path(checkpoint) / name
        if path.is_file() and path.stat().st_size:
            return read_json(path).get("flags", {})
    return {}


def find_damage(checkpoint: Path) -> str | None:
    """Return why a checkpoint cannot be trusted, or None. Older layouts have no manifest and are taken as they are."""
    if not (checkpoint / MANIFEST).is_file():
        if is_old_layout(checkpoint) and (checkpoint / TRAINER_STATE).is_file():
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


def has_adapter(directory: Path) -> bool:
    """Return whether a directory holds the weights of an adapter."""
    return any((directory / name).is_file() for name in ADAPTER_FILES)


def is_old_layout(checkpoint: Path) -> bool:
    """Return whether a checkpoint has its adapter where the published QLoRA script put it."""
    folder = checkpoint / OLD_ADAPTER_FOLDER
    return not has_adapter(checkpoint) and (folder / ADAPTER_CONFIG).is_file() and has_adapter(folder)
