"""Reading the fields of a record: what is wrong with one is a `SkipRow` whose reason is the same for each of its kind.

    text({"output": "3"}, "output")  # "3"
    text({"output": 3}, "output")    # SkipRow: column 'output' holds a number, not a text

The reasons are counted and shown with the lines they come from, so they name the field and the type found, never the
value. A field that is null is a field that is not there: Parquet gives every object the fields of all others, as null.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
    bytes: "bytes",
    list: "a list",
    dict: "an object",
}


class SkipRow(Exception):
    """What makes a record, or one example of it, impossible to train on; its text is the reason."""


def text(record: Any, name: str, of: str = "") -> str:
    """Return the text in field `name`.

    Args:
        of: what `record` is where it is not the row itself, such as "an instance"; the reason names it.

    Raises:
        SkipRow: it is missing or null, of another type, or no tokenizer can read it.
    """
    value = _typed_field(record, name, of, str)
    try:
        value.encode()
    except UnicodeEncodeError:
        # JSON can spell half of a surrogate pair (\ud83d); no tokenizer and no file takes it.
        raise SkipRow(f"{_label(name, of)} holds half of a character (\\ud800 to \\udfff alone)") from None
    return value


def texts(record: Any, name: str, of: str = "") -> list[str]:
    """Return the text in field `name`, or the texts of the list there. Raises SkipRow as `text`, and where it is []."""
    if not isinstance(field(record, name, of), list):
        return [text(record, name, of)]
    return [text({name: value}, name, of) for value in items(record, name, of)]


def items(record: Any, name: str, of: str = "") -> list:
    """Return the list in field `name`, of whatever it holds. Raises SkipRow where there is none, or an empty one."""
    value = _typed_field(record, name, of, list)
    if not value:
        raise SkipRow(f"{_label(name, of)} holds an empty list")
    return value


def optional_items(record: Mapping, name: str) -> list:
    """Return the list in column `name`, or the one that a JSON text there spells; [] where there is nothing.

    Raises:
        SkipRow: it is another thing, or no tokenizer can read it.
    """
    value = record.get(name)
    if is_empty(value):
        return []
    if isinstance(value, str):
        value = parsed(value, f"column {name!r}")
    _typed_field({name: value}, name, "", list)
    text({name: json.dumps(value, ensure_ascii=False, default=str)}, name)  # refuses half a character in it
    return value


def parsed(value: str, label: str) -> Any:
    """Return what a JSON text spells; `label` names it in the reason of the SkipRow that is raised where it is none."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise SkipRow(f"{label} holds a text that is not JSON") from None


def field(record: Any, name: str, of: str = "") -> Any:
    """Return what field `name` holds. Raises SkipRow where it is missing or null, or `record` has no fields."""
    if not isinstance(record, Mapping):
        raise SkipRow(f"{of or 'the row'} is {kind(record)}, not an object")
    if record.get(name) is None:
        raise SkipRow(f"{_label(name, of)} is missing or null")
    return record[name]


def _typed_field(record: Any, name: str, of: str, expected: type) -> Any:
    """Return what field `name` holds, a value of this type. Raises SkipRow where there is none."""
    value = field(record, name, of)
    if not isinstance(value, expected):
        raise SkipRow(f"{_label(name, of)} holds {kind(value)}, not {KINDS[expected]}")
    return value


def truth(value: Any) -> bool | None:
    """Return what stands for true or false: these, 1 and 0, or either as a text, as CSV has them; None for the rest."""
    return {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}.get(str(value).lower())


def is_empty(value: Any) -> bool:
    """Return whether a field holds nothing: null, [], {}, the JSON text of one of these, or white space."""
    return value is None or value in ([], {}) or (isinstance(value, str) and value.strip() in ("", "null", "[]", "{}"))


def without_nulls(value: Any) -> Any:
    """Return a copy without the fields that are null in any object of it; the items of a list stay as they are.

    >>> without_nulls({"a": None, "b": [None, {"c": None, "d": 0}]})
    {'b': [None, {'d': 0}]}

    Raises:
        SkipRow: lists and objects are nested deeper than Python goes.
    """
    try:
        return _without_nulls(value)
    except RecursionError:
        raise SkipRow("lists and objects in one another are nested too deep") from None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def kind(value: Any) -> str:
    """Return what JSON calls the type of `value`, with its article."""
    if value is None:
        return "null"
    if value != value:  # NaN, which pandas writes for a text that is missing
        return "NaN"
    return KINDS.get(type(value), f"a {type(value).__name__}")


def _label(name: str, of: str) -> str:
    return f"{name!r} of {of}" if of else f"column {name!r}"


def spread(parts: Iterable, rows_of: Callable[[Any], list[dict | SkipRow]]) -> list[dict | SkipRow]:
    """Return the rows of all parts of a record; of a part that cannot be trained on, its SkipRow instead."""
    rows: list[dict | SkipRow] = []
    for part in parts:
        try:
            rows += rows_of(part)
        except SkipRow as skip:
            rows.append(skip.with_traceback(None))  # a traceback would keep the record in memory
    return rows


def pairs(prompt: str, answers: list[str], asked: str | None = None) -> list[dict]:
    """Return one row for each answer to `prompt`; `asked` is what it asks, without the words around that."""
    beside = {} if asked is None else {"asked": asked}
    return [{"input": prompt, "output": answer, **beside} for answer in answers]
