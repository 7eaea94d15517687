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
from contextlib import contextmanager
from typing import Any

from common.errors import DataError
from common.text import shortened
from data.sources.tables import Records, repeated

NEEDED = "a list of objects, or one object on each line, is needed"
SHOWN = 40  # characters of a value in a message
SPACE = re.compile(r"[ \t\r\n]*")
# A pattern matches the message of the parser, a line break and the text that it stopped at; beside it, what to do.
ADVICE = {
    "Unterminated string": "this text has no closing double quote; was the file cut off there?",
    "Invalid control character": r"inside a text, a line break is written \n and a tab \t",
    r"Invalid \\escape": r"inside a text, a backslash is written \\",
    r".*\n\Z": "was the file cut off here? copy or download it again",
    r"Expecting value.*\n]|Expecting property.*\n}": "the comma before it is one too many",
    r"Expecting value.*\n[,}]": "a value is missing before it",
    ".*\n['\u2018\u2019\u201c\u201d]": 'names and texts stand between double quotes, "like this"',
    ".*\n\ufeff": "a byte order mark belongs at the start of a file alone; this looks like files that were joined",
    r".*\n(//|/\*|#)": "JSON has no comments",
    r".*\n(True|False|None|nan|undefined)": "JSON writes true, false and null",
    "Expecting property": 'names stand between double quotes, "like this"',
    "Expecting ':'": "a colon stands between a name and its value",
    "Expecting ','": 'a comma is missing before it, or the text before it holds a quote that is not written \\"',
}


def read_json(path: str, text: io.TextIOBase, by_line: bool) -> Records:
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
            value = shortened(json.dumps(record, ensure_ascii=False), SHOWN)
            raise DataError(f"{path}, line {line}: {value} is not an object; {NEEDED}")
        yield line, record


def _is_line_record(first: str, by_line: bool) -> bool:
    """Return whether each record has a line of its own, by the first line that holds something."""
    if first.startswith("["):
        return _starts_with_message(first) and (by_line or _is_json(first))
    if first.startswith("{"):
        return first != "{" if by_line else _is_json(first)
    return True


def _is_json(text: str) -> bool:
    return _value_at(text, 0)[1] == len(text)


def _value_at(text: str, at: int) -> tuple[Any, int]:
    """Return the value that starts at a place, and where it ends; (None, at) where there is none."""
    try:
        return DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None, at


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_message, value))


def _is_message(value: Any) -> bool:
    names = value.keys() if isinstance(value, dict) else ()
    contents = ("content", "value", "tool_calls", "function_call")
    return ("role" in names or "from" in names) and any(name in names for name in contents)


def _starts_with_message(text: str) -> bool:
    """Return whether the first item of a list is a chat message."""
    return _is_message(_value_at(text, SPACE.match(text, text.index("[") + 1).end())[0])


# ---- Parsing -------------------------------------------------------------------------------------------------------


def _object(pairs: list[tuple[str, Any]]) -> dict:
    """Return an object of names and values. Raises ValueError where a name stands in it twice."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        name = repeated(names)
        raise ValueError(f"{name!r} stands {names.count(name)} times in one object; each name needs its own")
    return record


# By itself the decoder keeps the last of two values of one name, without a word.
DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _json_lines(path: str, text: io.TextIOBase) -> Records:
    for number, line in enumerate(text, 1):
        line = line.rstrip(" \t\r\n")  # so that an error at its end names this line
        if line:
            with _explained(path, number):
                record = DECODER.decode(line)
            yield number, record


def _json_whole(path: str, text: str) -> Records:
    """Give the items of the list that a text is, or the values that stand in it one after the other."""
    at, line, line_at = SPACE.match(text).end(), 1, 0  # `line` is the one that `line_at` stands in
    if is_list := text.startswith("[", at) and not _starts_with_message(text):
        with _explained(path, 1):
            _check_grammar(text)
        at += 1
    between = re.compile(r"[ \t\r\n,]*" if is_list else SPACE)
    while (at := between.match(text, at).end()) < len(text) and not (is_list and text[at] == "]"):
        line, line_at = line + text.count("\n", line_at, at), at
        with _explained(path, line, first_line=1):
            record, at = DECODER.raw_decode(text, at)
        yield line, record


def _check_grammar(text: str) -> None:
    """Raise what the parser raises of text that is no JSON; values that it cannot take are found one by one."""
    try:
        json.loads(text)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError):
        pass


@contextmanager
def _explained(path: str, line: int, first_line: int | None = None) -> Iterator[None]:
    """Turn what the parser raises into a DataError.

    Args:
        line: the line that the record starts on.
        first_line: the line that the parser's text starts on, where that is another one.
    """
    try:
        yield
    except json.JSONDecodeError as error:
        rest = error.doc[error.pos :][:SHOWN]
        text = repr(rest[:20].rstrip()) if rest.strip() else "the end"
        message = error.msg.removesuffix(" starting at").removesuffix(" at").removesuffix(":")
        where = f"{path}, line {(first_line or line) + error.lineno - 1}, column {error.colno}"
        advice = _advice(message, rest.lstrip())
        raise DataError(f"{where}: not valid JSON: {message}, found {text}; {advice}") from error
    except RecursionError as error:
        levels = f"nested too deep (Python reads {sys.getrecursionlimit():,} levels)"
        raise DataError(f"{path}, line {line}: lists and objects in one another are {levels}") from error
    except ValueError as error:
        message = str(error)
        if "integer string conversion" in message:
            digits = f"{sys.get_int_max_str_digits():,} digits"
            message = f"a number has more than {digits}; write it as a text, in double quotes"
        raise DataError(f"{path}, line {line}: {message}") from error


def _advice(message: str, rest: str) -> str:
    """Return what to do about the usual mistakes, and else what is needed."""
    mistake = f"{message}\n{rest}"
    return next((advice for pattern, advice in ADVICE.items() if re.match(pattern, mistake)), NEEDED)
