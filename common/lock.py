"""One run at a time in a directory.

    with locked(Path("ratings"), flag="--output"):
        ...

The lock is the operating system's: a run that is killed leaves none behind.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from common.errors import RequestError
from common.outputs import LOCK


@contextlib.contextmanager
def locked(directory: Path, flag: str) -> Iterator[None]:
    """Hold a directory, which is made where there is none, for this process alone.

    Args:
        flag: the one that names the directory, for the message.

    Raises:
        RequestError: another run holds the directory, or it cannot be written.
    """
    from filelock import FileLock, Timeout

    path = directory / LOCK
    lock = FileLock(path, blocking=False)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise RequestError(
            f"{flag} {directory}: another run ({path.read_text().strip()}) is writing there; wait for it, or give "
            "another directory"
        ) from error
    except OSError as error:
        raise RequestError(f"{flag} {directory} cannot be written: {error.strerror}") from error
    with lock:
        path.write_text(f"process {os.getpid()}\n")
        yield
