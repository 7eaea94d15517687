"""Files that are whole or not there, and directories that can be written.

    write_json(Path("output/mine/metrics.json"), {"eval_loss": 0.5})
    metrics = read_json(Path("output/mine/metrics.json"))

A file is written beside its place, flushed to the disk, and renamed.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def read_json(path: Path) -> Any:
    """Return what a JSON file holds. Raises ValueError where it is no JSON in UTF-8."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all; letters of every alphabet stay as they are."""
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file that is either the old one or the whole new one, even where the power fails.

    Half a character in a text (\\ud83d alone) has no UTF-8; its escape is written, which is what JSON says too.
    """
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def check_writable(directory: Path) -> None:
    """Make a directory and try to write there; raises OSError. os.access says yes to root where nobody can write."""
    directory.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=directory).close()
