"""Files of answers that are to be scored, by this tool or another → `Answer` values.

    answers = read_answers("output/mine/predictions.jsonl", Columns(by="fact"))

A file may be .json, .jsonl, .csv, .tsv or .parquet.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from common.errors import DataError
from common.text import first_of
from data.formats.fields import SkipRow, text
from data.sources.files import open_file

FIELDS_SHOWN = 12  # that a message names
# pandas makes floats of numbers and of truth values where one of their column is null, and CSV makes texts of all.
STOPPED = dict.fromkeys(("true", "1", "1.0"), True) | dict.fromkeys(("false", "0", "0.0"), False)


@dataclass(frozen=True)
class Columns:
    """The names of the fields of a row that hold its answer, what is right, and the group that it belongs to.

    Without a name for what is right, it is `output` in the rows that have it.
    """

    prediction: str = "prediction"
    reference: str | None = None
    by: str | None = None


@dataclass(frozen=True)
class Answer:
    """One row of a file of answers; what it does not say is None, and so is a reference of white space alone."""

    prediction: str
    reference: str | None
    input: str | None
    tokens: int | None
    stopped: bool | None
    group: str | None


def read_answers(path: str, columns: Columns) -> list[Answer]:
    """Read the answers of a file.

    Raises:
        DataError: the file cannot be read, or a row has no answer or a field of a wrong kind; says where.
    """
    source = open_file(path)
    answers, fields = [], set()
    for place, row in source.records():
        try:
            answers.append(answer_of(row, columns))
        except SkipRow as skip:
            raise DataError(f"{path}, {source.unit} {place}: {skip}") from None
        fields |= row.keys()
    if not answers:
        raise DataError(f"{path}: no row in it; at least one answer is needed")
    for flag, name in (("--reference", columns.reference), ("--by", columns.by)):
        if name is not None and name not in fields:
            raise DataError(
                f"{flag} {name}: no row of {path} has this field; there are: {first_of(sorted(fields), FIELDS_SHOWN)}"
            )
    return answers


def answer_of(row: dict[str, Any], columns: Columns) -> Answer:
    """Return the answer of one row. Raises SkipRow where a field is missing, or of a wrong kind."""
    try:
        prediction = text(row, columns.prediction)
        field = columns.reference or "output"
        reference = None if row.get(field) is None else text(row, field)
    except SkipRow as skip:
        fields = first_of(row, FIELDS_SHOWN)
        raise SkipRow(
            f"{skip}\nfields there: {fields}; --prediction FIELD names the answer, --reference FIELD what is right"
        ) from None
    return Answer(
        prediction=prediction,
        reference=reference if reference and reference.strip() else None,
        input=label(row.get("input")),
        tokens=parsed(row, "prediction_tokens", whole_number, "a whole number"),
        stopped=parsed(row, "prediction_stopped", STOPPED.get, "true or false"),
        group=label(row.get(columns.by)) if columns.by else None,
    )


def is_missing(value: Any) -> bool:
    """Return whether a value is null, a NaN of pandas, or an empty cell of CSV."""
    return value is None or value != value or value == ""


def label(value: Any) -> str | None:
    """Return the value of a field as text; one that pandas made a float is the whole number that it was."""
    if is_missing(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_json = isinstance(value, bool | list | dict)
    return json.dumps(value, ensure_ascii=False, default=str) if is_json else str(value)


def parsed(row: dict[str, Any], name: str, parse: Callable[[str], Any], allowed: str) -> Any:
    """Return what `parse` makes of a field, None of a missing one. Raises SkipRow where it makes None of a text."""
    value = row.get(name)
    if is_missing(value):
        return None
    result = parse(str(value).lower())
    if result is None:
        raise SkipRow(f"column {name!r} holds {repr(value)[:40]}; {allowed} is allowed, or nothing")
    return result


def whole_number(digits: str) -> int | None:
    """Return the number that a text such as 12 or 12.0 holds, None of any other."""
    match = re.fullmatch(r"([0-9]{1,18})(\.0+)?", digits)
    return match and int(match[1])


def unlike_rows(files: dict[str, list[Answer]]) -> str | None:
    """Return how the rows of files differ from those of the first, as far as they tell; None where they do not.

    Rows may stand in another order. References, and the field `input`, are compared where both files have any.
    """
    if len(set(map(len, files.values()))) > 1:
        return ", ".join(f"{path} {len(answers):,}" for path, answers in files.items()) + " answers"
    first, *others = files
    for other in others:
        for name in ("reference", "input"):
            here, there = (Counter(getattr(answer, name) for answer in files[path]) for path in (first, other))
            if here.keys() != {None} != there.keys() and here != there:
                return f"{(here - there).total():,} of {here.total():,} {name}s in {first} not in {other}"
    return None
