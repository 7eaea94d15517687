"""Bytes → text in UTF-8, and what to say of bytes that are none.

Gzipped files are unpacked as they are read:

    with open_text(Path("my.csv.gz")) as text: …
    check_start("my.csv", Path("my.csv"), may_be_web_page=False)  # DataError: my.csv is UTF-16 text, …
"""

import codecs
import gzip
import io
import shlex
from pathlib import Path
from typing import BinaryIO

from common.errors import DataError

WEB_PAGE = "a web page; download the data itself"
# Files that are not the text that their name promises begin with these bytes; beside them, what such a file is and what
# to do with it.
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


def is_packed(file: Path) -> bool:
    """Return whether a file is gzipped, by its name."""
    return file.suffix.lower() == ".gz"


def open_bytes(file: Path) -> BinaryIO:
    """Open a file, unpacked where its name says that it is gzipped."""
    return gzip.open(file, "rb") if is_packed(file) else file.open("rb")


def open_text(file: Path, newline: str | None = "") -> io.TextIOWrapper:
    """Open as UTF-8. Excel marks UTF-8 with a byte order mark, which would become part of the first name.

    By default line breaks stay what they are, as they may stand in a quoted field of a CSV.
    """
    return io.TextIOWrapper(open_bytes(file), encoding="utf-8-sig", newline=newline)


def check_start(path: str, file: Path, may_be_web_page: bool) -> None:
    """Refuse what is no text in UTF-8 by its first bytes, where these tell what it is.

    Args:
        path: what messages call the file.
    """
    with open_bytes(file) as content:
        start = content.read(64).removeprefix(codecs.BOM_UTF8).lstrip().lower()
    description = next((text for mark, text in SIGNATURES.items() if start.startswith(mark.lower())), None)
    if description == WEB_PAGE and may_be_web_page:
        return  # a .txt file may hold a web page that is to be learned
    if description is None and b"\0" in start:
        description = "not text, or UTF-16 without its mark, and UTF-8 is needed"
    if description is not None:
        advice = f"\ntry: {_recode('UTF-16', path, file)}" if "UTF-16" in description else ""
        raise DataError(f"{path} is {description}{advice}")


def refuse_bytes(path: str, file: Path) -> None:
    """Refuse a file with bytes that are not UTF-8: name the line and the offset of the first one."""
    offset, is_ascii = 0, True
    with open_bytes(file) as content:
        for number, line in enumerate(content, 1):
            try:
                is_ascii &= line.decode().isascii()
            except UnicodeDecodeError as error:
                if is_ascii and line[: error.start].isascii():
                    advice = f"if it is in the encoding of Windows, try: {_recode('WINDOWS-1252', path, file)}"
                else:
                    leave_out = _recode("UTF-8", path, file)
                    advice = f"text before it is UTF-8, so this is damage; to leave such bytes out: {leave_out}"
                where = f"{path}, line {number}: byte {line[error.start]:#04x} at offset {offset + error.start}"
                raise DataError(f"{where} is not UTF-8, which is needed\n{advice}") from error
            offset += len(line)


def _recode(encoding: str, path: str, file: Path) -> str:
    """Return the command that writes a file again in UTF-8."""
    old, new = shlex.quote(path), shlex.quote(f"utf8-{file.name.removesuffix('.gz')}")
    convert = f"iconv {'-c ' if encoding == 'UTF-8' else ''}-f {encoding} -t UTF-8"
    return f"gunzip -c {old} | {convert} > {new}" if is_packed(file) else f"{convert} {old} > {new}"
