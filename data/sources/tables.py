"""Tables → records: CSV and TSV with a header, and Parquet; memory holds one record, of Parquet one batch.

A record is a dict of the header's names, with the line or row that it stands in:

    for line, record in read_delimited(",", "my.csv", Path("my.csv")): …
    for row, record in read_parquet("my.parquet", Path("my.parquet")): …
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from common.errors import DataError
from common.text import counted
from data.sources.encodings import open_text

if TYPE_CHECKING:
    import pyarrow

Records = Iterator[tuple[int, Any]]
# A header may have one of these separators in the place of the right one; beside it, what to do then.
SEPARATORS = {
    ",": "give the file a name that ends in .csv",
    "\t": "give the file a name that ends in .tsv",
    ";": "save it with commas between the fields",
    "|": "save it with commas between the fields",
}


def read_delimited(delimiter: str, path: str, file: Path) -> Records:
    """Give (line, record) of each row of a CSV or TSV file; `path` is what messages call it. Raises DataError."""
    csv.field_size_limit(2**31 - 1)  # the default refuses a field over 128 KiB
    header, line = None, 1
    with open_text(file) as text:
        # Without `strict`, a quote that is never closed swallows the rest of the file without a word.
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
            is_unclosed = "end of data" in str(error)
            problem = "a double quote opens in this row and none closes it" if is_unclosed else error
            raise DataError(
                f'{path}, line {line}: {problem}\ninside a quoted field, a quote is written twice ("")'
            ) from error


def _header(path: str, line: int, delimiter: str, fields: list[str]) -> list[str]:
    """Return the names of the columns, each its own. Raises DataError where another separator or a name is wrong."""
    others = [other for other in SEPARATORS if other != delimiter and other in fields[0]]
    if len(fields) == 1 and others:
        raise DataError(
            f"{path}, line {line}: one column, {fields[0]!r}; {others[0]!r} seems to stand between its fields, where "
            f"{delimiter!r} is needed in this type of file\n{SEPARATORS[others[0]]}"
        )
    # pandas writes its index as a first column without a name.
    header = [name or f"column_{number}" for number, name in enumerate(fields, 1)]
    _refuse_repeated(f"{path}, line {line}", header)
    return header


def _refuse_repeated(where: str, names: list[str]) -> None:
    if (name := repeated(names)) is not None:
        raise DataError(f"{where}: {names.count(name)} columns are named {name!r}; each needs a name of its own")


def repeated(names: list[str]) -> str | None:
    """Return the first name that stands in a list more than once, or None."""
    return next((name for name in names if names.count(name) > 1), None)


def _refuse_ragged(path: str, line: int, delimiter: str, header: list[str], fields: list[str]) -> NoReturn:
    count = f"{counted(len(fields), 'field')} where the header has {len(header)} ({', '.join(header)})"
    is_short = len(fields) < len(header)
    which = f"there is none for {header[len(fields)]!r}" if is_short else f"{fields[len(header)][:40]!r} has no column"
    raise DataError(
        f"{path}, line {line}: {count}: {which}\na field with a {delimiter!r} or a line break in it needs double quotes"
    )


def read_parquet(path: str, file: Path) -> Records:
    """Give (row, record) of a Parquet file. Raises DataError."""
    import pyarrow
    import pyarrow.parquet

    place = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as parquet:
            _refuse_repeated(path, parquet.schema_arrow.names)
            schema = pyarrow.struct(parquet.schema_arrow)
            has_json = "arrow.json" in str(schema)
            for batch in parquet.iter_batches(batch_size=1000):
                for record in batch.to_pylist(maps_as_pydicts="strict"):
                    place += 1
                    yield place, _decoded(record, schema) if has_json else record
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:  # a map with a key twice is a KeyError
        after = f" after row {place:,}" if place else ""
        raise DataError(f"{path}: not a readable Parquet file{after}: {str(error).splitlines()[0]}") from error


def _decoded(value: Any, arrow_type: "pyarrow.DataType") -> Any:
    """Return a value of an Arrow type with the JSON texts in it parsed.

    `datasets` writes fields so in which objects differ: https://arrow.apache.org/docs/format/CanonicalExtensions.html
    """
    import pyarrow

    if value is None:
        return None
    if isinstance(arrow_type, pyarrow.JsonType):
        return json.loads(value)
    if pyarrow.types.is_struct(arrow_type):
        return {field.name: _decoded(value[field.name], field.type) for field in arrow_type}
    if pyarrow.types.is_list(arrow_type) or pyarrow.types.is_large_list(arrow_type):
        return [_decoded(item, arrow_type.value_type) for item in value]
    return value
