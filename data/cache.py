"""Where prepared rows are kept, and under which names: keys of all that they depend on.

    cache = cache_directory(cache_dir=None)
    place = cache / f"rows-{key_of(source.digest, code_digest())}"

A key holds a digest of all the code that prepares rows, so that no change of it meets rows that the old code made.
"""

import hashlib
from pathlib import Path
from typing import Any

from common.errors import DataError
from common.files import check_writable

ROOT = Path(__file__).parents[1]
PACKAGES = ("data", "common")  # all that this room may import and that could change a row


def cache_directory(cache_dir: str | None) -> Path:
    """Return the folder of formatted and tokenized rows: in --cache_dir, else in that of `datasets`.

    Raises:
        DataError: it cannot be written.
    """
    import datasets

    directory = Path(cache_dir or datasets.config.HF_DATASETS_CACHE).expanduser() / "qlora"
    try:
        check_writable(directory)
    except OSError as error:
        raise cannot_write(directory, error) from error
    return directory


def cannot_write(directory: Path, error: Exception) -> DataError:
    """Return the error about a cache that takes no file."""
    reason = getattr(error, "strerror", None) or error  # Arrow's own errors have no `strerror`
    return DataError(
        f"{directory} cannot be written ({reason}); prepared rows are kept there\n"
        "give another place with --cache_dir DIR or the variable HF_DATASETS_CACHE"
    )


def key_of(*parts: Any) -> str:
    """Return a key of values by what they print."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def code_digest() -> str:
    """Return a digest of the source of this room and of the ground floor, names of the files included."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return key_of([(str(file.relative_to(ROOT)), file.read_bytes()) for file in files])
