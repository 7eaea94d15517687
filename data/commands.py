"""What commands of data/ and eval/ share: one message for what went wrong, and files that are whole or not there."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from data.fields import DataError


def exit_status(program: str, work: Callable[[], None]) -> int:
    """Do the work of a command; gives 0, or after one message 2 (wrong request), 1 (it failed) or 130 (interrupted)."""
    try:
        work()
    except DataError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{program}: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: interrupted; no file is half written", file=sys.stderr)
        return 130
    return 0


def check_writable(directory: Path) -> None:
    """Make a directory and try to write there; raises OSError. os.access says yes to root where nobody can write."""
    directory.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=directory).close()


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
