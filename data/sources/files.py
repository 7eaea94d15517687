"""Local files → records, one after the other, each with the place it stands at.

    source = open_file("my.jsonl.gz")
    for place, record in source.records():  # (line, object); DataError with file, line and column of what is wrong
        ...

Files are read as they are walked through, so that memory holds one record (of Parquet: one batch) whatever their size;
a JSON file that is one list is read whole.
"""

import gzip
import hashlib
import itertools
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common.errors import DataError
from data.sources.encodings import check_start, is_packed, open_text, refuse_bytes
from data.sources.json_records import read_json
from data.sources.tables import Records, read_delimited, read_parquet

FILE_TYPES = ".json, .jsonl, .csv, .tsv, .txt (each also with .gz), .parquet"
# Advice for files of types that are not read.
OTHER_TYPES = {
    ".xlsx": "save the sheet as CSV UTF-8",
    ".xls": "save the sheet as CSV UTF-8",
    ".ndjson": "it is the same as .jsonl: rename it",
    ".jsonlines": "it is the same as .jsonl: rename it",
    **dict.fromkeys((".zip", ".tar", ".tgz", ".bz2", ".xz", ".zst", ".7z"), "unpack it and give a file that was in it"),
}


@dataclass(frozen=True)
class Source:
    """Records that can be walked through again and again.

    Attributes:
        name: what messages call it: the path as it was given, or the name of a data set.
        records: starts a walk; gives (place, record) pairs.
        unit: what a place counts, from 1: "line" or "row".
        digest: changes whenever the content does.
        format: name of the format, where it is known without looking at the columns.
    """

    name: str
    records: Callable[[], Records]
    unit: str
    digest: str
    format: str | None = None


def open_file(path: str) -> Source:
    """Return the records of a file; nothing is parsed yet.

    Raises:
        DataError: as `check_file`.
    """
    file, suffix = check_file(path)
    with _explained(path, file), file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    unit = "row" if suffix == ".parquet" else "line"
    return Source(path, partial(_walk, path, file, READERS[suffix]), unit, digest)


def check_file(path: str) -> tuple[Path, str]:
    """Return the file and the suffix that says how it is read, ".gz" aside; what is in it is not looked at.

    Raises:
        DataError: a directory, an unknown type, an empty file, or one that may not be read.
    """
    file = Path(os.path.expanduser(path))
    packed = is_packed(file)
    suffix = (Path(file.stem) if packed else file).suffix.lower()
    with _explained(path, file):
        status = file.stat()
        if stat.S_ISDIR(status.st_mode):
            files = ", ".join(sorted(child.name for child in file.iterdir() if child.is_file())[:5]) or "no file"
            raise DataError(f"{path} is a directory (it holds {files}); give the paths of files in it")
        if suffix not in READERS or (packed and suffix == ".parquet"):
            name = suffix + ".gz" * packed
            problem = f"unknown file type {name!r}" if name else "its name does not end in a file type"
            advice = f"; {OTHER_TYPES[file.suffix.lower()]}" if file.suffix.lower() in OTHER_TYPES else ""
            raise DataError(f"{path}: {problem}{advice}\nfile types: {FILE_TYPES}")
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path} is not a plain file; data is read more than once: write it to a file first")
        if not status.st_size:
            raise DataError(f"{path}: the file is empty (0 bytes); at least one row is needed")
        file.open("rb").close()
    return file, suffix


def _walk(path: str, file: Path, read: Callable[[str, Path], Records]) -> Records:
    with _explained(path, file):
        if read is not read_parquet:
            check_start(path, file, may_be_web_page=read is _read_text)
        yield from read(path, file)


@contextmanager
def _explained(path: str, file: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is read into a DataError that says where."""
    try:
        yield
    except UnicodeDecodeError:
        refuse_bytes(path, file)
        raise  # the file was changed meanwhile, so that the byte is not there any more
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        problem = f": not a whole gzip file ({error}); copy or download it again"
        if "Not a gzipped file" in str(error):
            problem = " is not a gzip file, though its name ends in .gz; rename it, or download it again"
        raise DataError(f"{path}{problem}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def _read_json(path: str, file: Path) -> Records:
    with open_text(file) as text:
        yield from read_json(path, text, by_line=".jsonl" in file.name.lower())


def _read_text(path: str, file: Path) -> Records:
    """Read paragraphs: lines up to a blank one. All line breaks become line feeds."""
    paragraph, start = [], 1
    with open_text(file, newline=None) as text:
        for number, line in enumerate(itertools.chain(text, [""]), 1):  # the end of the file ends a paragraph
            if line.strip():
                start = start if paragraph else number
                paragraph.append(line)
            elif paragraph:
                yield start, {"text": "".join(paragraph).strip("\n")}
                paragraph = []


READERS: dict[str, Callable[[str, Path], Records]] = {
    ".json": _read_json,
    ".jsonl": _read_json,
    ".csv": partial(read_delimited, ","),
    ".tsv": partial(read_delimited, "\t"),
    ".txt": _read_text,
    ".parquet": read_parquet,
}
