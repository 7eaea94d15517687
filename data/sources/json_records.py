"""JSON text → records, one after the other, each with the line it starts on.

    for line, record in read_json("my.jsonl", text, by_line=True): …

Read are one object on each line, a list of objects, and objects over many lines. In the place of an object, a bare list
of chat messages stands for {"messages": that list}. Of lines, memory holds one; a list is read whole and must fit.
"""

import io
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

from common.errors import DataError

NEEDED = "a list of objects, or one object on each line, is needed"
SPACE = re.compile(r"[ \t\r\n]*")
Values = Iterator[tuple[int, Any]]


def read_json(path: str, text: io.TextIOBase, by_line: bool) -> Values:
    """Give (line, object) pairs; the text itself shows how it is laid out.

    Args:
        path: what messages call the text.
        text: can be read from its start again.
        by_line: whether the name says that each record has a line of its own (.jsonl).

    Raises:
        DataError: it is not JSON, or a record is not an object; says the line and, where it is known, the column.
    """
    first = next((line for line in text if line.strip()), "")
    text.seek(0)
    values = _json_lines(path, text) if _is_line_record(first.strip(), by_line) else _json_whole(path, text.read())
    for line, record in values:
        if _is_conversation(record):
            record = {"messages": record}
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {line}: {_shown(record)} is not an object; {NEEDED}")
        yield line, record


def _is_line_record(first: str, by_line: bool) -> bool:
    """Return whether each record has a line of its own, by the first line that holds something."""
    if first.startswith("["):
        return _starts_with_message(first) and (by_line or _parsed(first) is not None)
    if first.startswith("{"):
        return first != "{" if by_line else _parsed(first) is not None
    return True


def _parsed(text: str) -> Any:
    try:
        return DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_message, value))


def _is_message(value: Any) -> bool:
    names = value.keys() if isinstance(value, dict) else ()
    contents = ("content", "value", "tool_calls", "function_call")
    return ("role" in names or "from" in names) and any(name in names for name in contents)


def _starts_with_message(text: str) -> bool:
    """Return whether the first item of a list is a chat message."""
    try:
        return _is_message(DECODER.raw_decode(text, SPACE.match(text, text.index("[") + 1).end())[0])
    except (ValueError, RecursionError):
        return False


def _shown(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 40 else f"{shown[:40]}…"


# ---- Parsing -------------------------------------------------------------------------------------------------------


def _object(pairs: list[tuple[str, Any]]) -> dict:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands {names.count(twice)} times in one object; each name needs its own")
    return record


DECODER = json.JSONDecoder(object_pairs_hook=_object)  # which by itself keeps the last of two values of one name


def _json_lines(path: str, text: io.TextIOBase) -> Values:
    for number, line in enumerate(text, 1):
        line = line.rstrip(" \t\r\n")  # so that what is missing at its end is missing on this line
        if line:
            try:
                yield number, DECODER.decode(line)
            except json.JSONDecodeError as error:
                raise _not_json(path, number, error.colno, error.msg, line[error.pos :]) from error
            except (ValueError, RecursionError) as error:
                raise _not_taken(path, number, error) from error


def _json_whole(path: str, text: str) -> Values:
    """Give the items of the list that a text is, or the values that stand in it one after the other."""
    at, line = SPACE.match(text).end(), 1 + text.count("\n", 0, SPACE.match(text).end())
    is_list = text.startswith("[", at) and not _starts_with_message(text)

    def moved(end: int) -> tuple[int, int]:
        end = SPACE.match(text, end).end()
        return end, line + text.count("\n", at, end)

    def expected(what: str) -> DataError:
        return _not_json(path, line, at - text.rfind("\n", 0, at), what, text[at : at + 40])

    if is_list:
        at, line = moved(at + 1)
    while at < len(text) and not (is_list and text[at] == "]"):
        try:
            value, end = DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise _not_json(path, error.lineno, error.colno, error.msg, text[error.pos :][:40]) from error
        except (ValueError, RecursionError) as error:
            raise _not_taken(path, line, error) from error
        yield line, value
        at, line = moved(end)
        if is_list and not text.startswith("]", at):
            if not text.startswith(",", at):
                raise expected("Expecting ',' delimiter")
            at, line = moved(at + 1)
            if text.startswith("]", at):
                raise expected("Expecting value")
    if is_list:
        if at == len(text):
            raise expected("Expecting ']' delimiter")
        at, line = moved(at + 1)
        if at < len(text):
            raise expected("Extra data")


def _not_taken(path: str, line: int, error: Exception) -> DataError:
    """Return the error for JSON that cannot be made a record of, though its grammar is right."""
    what = str(error)
    if isinstance(error, RecursionError):
        what = f"lists and objects in one another are nested too deep (Python reads {sys.getrecursionlimit():,} levels)"
    elif "integer string conversion" in what:
        what = f"a number has more than {sys.get_int_max_str_digits():,} digits; write it as a text, in double quotes"
    return DataError(f"{path}, line {line}: {what}")


def _not_json(path: str, line: int, column: int, what: str, rest: str) -> DataError:
    """Return the error for text that breaks the grammar of JSON, with what stands there and what to do."""
    found = repr(rest[:20].rstrip()) if rest.strip() else "the end"
    what = what.removesuffix(" starting at").removesuffix(" at").removesuffix(":")
    return DataError(
        f"{path}, line {line}, column {column}: not valid JSON: {what}, found {found}; {_advice(what, rest.lstrip())}"
    )


def _advice(what: str, rest: str) -> str:
    """Return what to do about the usual mistakes, and else what is needed."""
    if what.startswith("Unterminated string"):
        return "this text has no closing double quote; was the file cut off there?"
    if what.startswith("Invalid control character"):
        return r"inside a text, a line break is written \n and a tab \t"
    if what.startswith(r"Invalid \escape"):
        return r"inside a text, a backslash is written \\"
    if not rest:
        return "was the file cut off here? copy or download it again"
    if (what[:15], rest[0]) in (("Expecting value", "]"), ("Expecting prope", "}")):
        return "the comma before it is one too many"
    if what.startswith("Expecting value") and rest[0] in ",}":
        return "a value is missing before it"
    if rest[0] in "'\u2018\u2019\u201c\u201d":
        return 'names and texts stand between double quotes, "like this"'
    if rest[0] == "\ufeff":
        return "a byte order mark belongs at the start of a file alone; this looks like files that were joined"
    if rest.startswith(("//", "/*", "#")):
        return "JSON has no comments"
    if rest.startswith(("True", "False", "None", "nan", "undefined")):
        return "JSON writes true, false and null"
    if what.startswith("Expecting property"):
        return 'names stand between double quotes, "like this"'
    if what.startswith("Expecting ':'"):
        return "a colon stands between a name and its value"
    if what.startswith("Expecting ','"):
        return 'a comma is missing before it, or the text before it holds a quote that is not written \\"'
    return NEEDED
