"""Local files → records, one after the other, each with the place it stands at.

    source = open_file("my.jsonl.gz")
    for place, record in source.records():  # (line, object); DataError with file, line and column of what is wrong
        ...

Files are read as they are walked through, so that memory holds one record (of Parquet: one batch) whatever their size.
"""

import codecs
import csv
import gzip
import hashlib
import io
import itertools
import json
import os
import shlex
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from common.errors import DataError
from data.sources.json_records import read_json

FILE_TYPES = ".json, .jsonl, .csv, .tsv, .txt (each also with .gz), .parquet"
UNITS = {".parquet": "row"}
BLOCK = 1 << 20  # bytes
Records = Iterator[tuple[int, Any]]
# What to do with files of other types.
OTHER_TYPES = {
    ".xlsx": "save the sheet as CSV UTF-8",
    ".xls": "save the sheet as CSV UTF-8",
    ".ndjson": "it is the same as .jsonl: rename it",
    ".jsonlines": "it is the same as .jsonl: rename it",
    **dict.fromkeys((".zip", ".tar", ".tgz", ".bz2", ".xz", ".zst", ".7z"), "unpack it and give a file that was in it"),
}
WEB_PAGE = "a web page; download the data itself"
# How files start that are not the text that their name says: what they are, and what to do.
SIGNATURES = {
    b"\xff\xfe": "UTF-16 text, and UTF-8 is needed",
    b"\xfe\xff": "UTF-16 text, and UTF-8 is needed",
    b"PK\x03\x04": "a zip archive or an Excel sheet; unpack it, or save the sheet as CSV UTF-8",
    b"\x1f\x8b": "a gzip file; give it a name that ends in .gz",
    b"\x28\xb5\x2f\xfd": "a zstd file; unpack it",
    b"PAR1": "a Parquet file; give it a name that ends in .parquet",
    b"version https://git-lfs": "a pointer that Git LFS left in the place of the data; fetch them: git lfs pull",
    b"<!doctype html": WEB_PAGE,
    b"<html": WEB_PAGE,
}

# What may stand between the names of a header instead, and what to do then.
SEPARATORS = {
    ",": "give the file a name that ends in .csv",
    "\t": "give the file a name that ends in .tsv",
    ";": "save it with commas between the fields",
    "|": "save it with commas between the fields",
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
    return Source(path, partial(_walk, path, file, READERS[suffix]), UNITS.get(suffix, "line"), digest)


def check_file(path: str) -> tuple[Path, str]:
    """Return the file and the suffix that says how it is read, ".gz" aside; what is in it is not looked at.

    Raises:
        DataError: a directory, an unknown type, an empty file, or one that may not be read.
    """
    file = Path(os.path.expanduser(path))
    packed, suffix = _is_packed(file), _suffix(file)
    with _explained(path, file):
        status = file.stat()
        if stat.S_ISDIR(status.st_mode):
            files = ", ".join(sorted(child.name for child in file.iterdir() if child.is_file())[:5]) or "no file"
            raise DataError(f"{path} is a directory (it holds {files}); give the paths of files in it")
        if suffix not in READERS or (packed and suffix == ".parquet"):
            name = suffix + ".gz" * packed
            found = f"unknown file type {name!r}" if name else "its name does not end in a file type"
            advice = OTHER_TYPES.get(file.suffix.lower())
            raise DataError(f"{path}: {found}{advice and f'; {advice}' or ''}\nfile types: {FILE_TYPES}")
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path} is not a plain file; data is read more than once: write it to a file first")
        if not status.st_size:
            raise DataError(f"{path}: the file is empty (0 bytes); at least one row is needed")
        file.open("rb").close()
    return file, suffix


def _is_packed(file: Path) -> bool:
    return file.suffix.lower() == ".gz"


def _suffix(file: Path) -> str:
    return (Path(file.stem) if _is_packed(file) else file).suffix.lower()


def _walk(path: str, file: Path, read: Callable[[str, Path], Records]) -> Records:
    with _explained(path, file):
        if read is not _read_parquet:
            _check_start(path, file)
        yield from read(path, file)


@contextmanager
def _explained(path: str, file: Path):
    """Turn what goes wrong while a file is read into a DataError that says where."""
    try:
        yield
    except UnicodeDecodeError as error:
        _refuse_bytes(path, file, error)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        if "Not a gzipped file" in str(error):
            raise DataError(
                f"{path} is not a gzip file, though its name ends in .gz; rename it, or download it again"
            ) from error
        raise DataError(f"{path}: not a whole gzip file ({error}); copy or download it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def _open_bytes(file: Path):
    return gzip.open(file, "rb") if _is_packed(file) else file.open("rb")


def _open_text(file: Path, newline: str | None = "") -> io.TextIOWrapper:
    """Open as UTF-8. Excel marks UTF-8 with a byte order mark, which would become part of the first name.

    By default line breaks stay what they are, as they may stand in a quoted field of a CSV.
    """
    return io.TextIOWrapper(_open_bytes(file), encoding="utf-8-sig", newline=newline)


def _check_start(path: str, file: Path) -> None:
    """Refuse what is no text in UTF-8 by its first bytes, where these tell what it is."""
    with _open_bytes(file) as content:
        start = content.read(64).removeprefix(codecs.BOM_UTF8).lstrip().lower()
    found = next((found for mark, found in SIGNATURES.items() if start.startswith(mark.lower())), None)
    if found == WEB_PAGE and READERS[_suffix(file)] is _read_text:
        return  # which may well be what is to be learned
    if found is None and b"\0" in start:
        found = "not text, or UTF-16 without its mark, and UTF-8 is needed"
    if found is not None:
        advice = f"\ntry: {_recode('UTF-16', path, file)}" if "UTF-16" in found else ""
        raise DataError(f"{path} is {found}{advice}")


def _refuse_bytes(path: str, file: Path, error: UnicodeDecodeError) -> NoReturn:
    """Name line and offset of the first byte that is not UTF-8: the decoder counts from its last block."""
    decoder, line, read, is_ascii = codecs.getincrementaldecoder("utf-8")(), 1, 0, True
    with _open_bytes(file) as content:
        while True:
            held, block = len(decoder.getstate()[0]), content.read1(BLOCK)
            try:
                is_ascii &= decoder.decode(block, final=not block).isascii()
            except UnicodeDecodeError as found:
                error, read = found, read - held + found.start
                break
            line, read = line + block.count(b"\n"), read + len(block)
    good, bad = error.object[: error.start], error.object[error.start]
    line += good.count(b"\n")
    if is_ascii and good.isascii():
        advice = f"if it is in the encoding of Windows, try: {_recode('WINDOWS-1252', path, file)}"
    else:
        advice = f"text before it is UTF-8, so this is damage; to leave such bytes out: {_recode('UTF-8', path, file)}"
    raise DataError(
        f"{path}, line {line}: byte {bad:#04x} at offset {read} is not UTF-8, which is needed\n{advice}"
    ) from error


def _recode(encoding: str, path: str, file: Path) -> str:
    """Return the command that writes a file again in UTF-8."""
    new = shlex.quote(f"utf8-{file.name.removesuffix('.gz')}")
    convert = f"iconv {'-c ' if encoding == 'UTF-8' else ''}-f {encoding} -t UTF-8"
    if _is_packed(file):
        return f"gunzip -c {shlex.quote(path)} | {convert} > {new}"
    return f"{convert} {shlex.quote(path)} > {new}"


def _read_json(path: str, file: Path) -> Records:
    with _open_text(file) as text:
        yield from read_json(path, text, by_line=".jsonl" in file.name.lower())


def _read_delimited(delimiter: str, path: str, file: Path) -> Records:
    csv.field_size_limit(2**31 - 1)  # the default refuses a field over 128 KiB
    header, line = None, 1
    with _open_text(file) as text:
        # strict: otherwise a quote that is never closed swallows the rest of the file without a word.
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            for fields in reader:
                start, line = line, reader.line_num + 1
                if fields and header is None:
                    header = _header(path, start, delimiter, fields)
                elif fields and len(fields) != len(header):
                    _refuse_ragged(path, start, delimiter, header, fields)
                elif fields:
                    yield start, dict(zip(header, fields, strict=True))
        except csv.Error as error:
            what = "a double quote opens in this row and none closes it" if "end of data" in str(error) else error
            raise DataError(
                f'{path}, line {line}: {what}\ninside a quoted field, a quote is written twice ("")'
            ) from error


def _header(path: str, line: int, delimiter: str, fields: list[str]) -> list[str]:
    others = [other for other in SEPARATORS if other != delimiter and other in fields[0]]
    if len(fields) == 1 and others:
        raise DataError(
            f"{path}, line {line}: one column, {fields[0]!r}; {others[0]!r} seems to stand between its fields, where "
            f"{delimiter!r} is needed in this type of file\n{SEPARATORS[others[0]]}"
        )
    # pandas writes its index as a first column without a name.
    header = [name or f"column_{number}" for number, name in enumerate(fields, 1)]
    _refuse_twice(f"{path}, line {line}", header)
    return header


def _refuse_twice(where: str, names: list[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{where}: {names.count(twice)} columns are named {twice!r}; each needs a name of its own")


def _refuse_ragged(path: str, line: int, delimiter: str, header: list[str], fields: list[str]) -> NoReturn:
    count = f"{len(fields)} field{'s' * (len(fields) > 1)} where the header has {len(header)} ({', '.join(header)})"
    if len(fields) < len(header):
        found = f"there is none for {header[len(fields)]!r}"
    else:
        found = f"{fields[len(header)][:40]!r} has no column"
    raise DataError(
        f"{path}, line {line}: {count}: {found}\na field with a {delimiter!r} or a line break in it needs double quotes"
    )


def _read_text(path: str, file: Path) -> Records:
    """Read paragraphs: lines up to a blank one. All line breaks become line feeds."""
    paragraph, start = [], 1
    with _open_text(file, newline=None) as text:
        for number, line in enumerate(itertools.chain(text, [""]), 1):  # the end of the file ends a paragraph
            if line.strip():
                start = start if paragraph else number
                paragraph.append(line)
            elif paragraph:
                yield start, {"text": "".join(paragraph).strip("\n")}
                paragraph = []


def _read_parquet(path: str, file: Path) -> Records:
    import pyarrow
    import pyarrow.parquet

    place = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as parquet:
            _refuse_twice(path, parquet.schema_arrow.names)
            decode = _json_decoder(pyarrow.struct(parquet.schema_arrow))
            for batch in parquet.iter_batches(batch_size=1000):
                for record in batch.to_pylist(maps_as_pydicts="strict"):
                    place += 1
                    yield place, decode(record) if decode else record
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:  # a map may hold a key twice
        after = f" after row {place:,}" if place else ""
        raise DataError(f"{path}: not a readable Parquet file{after}: {str(error).splitlines()[0]}") from error


def _json_decoder(arrow_type: Any) -> Callable[[Any], Any] | None:
    """Return what parses the JSON texts in values of an Arrow type, or None where it has none.

    `datasets` writes fields so in which objects differ: https://arrow.apache.org/docs/format/CanonicalExtensions.html
    """
    import pyarrow

    if isinstance(arrow_type, pyarrow.JsonType):
        return lambda value: None if value is None else json.loads(value)
    if pyarrow.types.is_struct(arrow_type):
        decoders = {field.name: decode for field in arrow_type if (decode := _json_decoder(field.type))}
        return partial(_decode_fields, decoders) if decoders else None
    if pyarrow.types.is_list(arrow_type) or pyarrow.types.is_large_list(arrow_type):
        decode = _json_decoder(arrow_type.value_type)
        return decode and (lambda value: None if value is None else [decode(one) for one in value])
    return None


def _decode_fields(decoders: Mapping[str, Callable], value: dict | None) -> dict | None:
    return value and value | {name: decode(value[name]) for name, decode in decoders.items()}


READERS: dict[str, Callable[[str, Path], Records]] = {
    ".json": _read_json,
    ".jsonl": _read_json,
    ".csv": partial(_read_delimited, ","),
    ".tsv": partial(_read_delimited, "\t"),
    ".txt": _read_text,
    ".parquet": _read_parquet,
}
