"""Small files that are whole or not there."""

import json
import os
from pathlib import Path
from typing import Any


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    write_whole(path, f"{json.dumps(value, indent=2)}\n".encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is either the old one or the whole new one, whenever the process is killed."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
