"""JSON text → records, one after the other, each with the line it starts on; memory holds one of them.

Read are a list of objects, one object on each line, and a single object over many lines. In the place of an object, a
bare list of chat messages stands for {"messages": that list}.
"""

import io
import json
import re
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from common.errors import DataError

NEEDED = "a list of objects, or one object on each line, is needed"
BLOCK = 1 << 20  # characters read at once
Values = Iterator[tuple[int, Any]]


def read_json(path: str, text: io.TextIOBase, by_line: bool) -> Values:
    """Give (line, object) pairs; the text itself shows how it is laid out.

    Args:
        path: what messages call the text; text: can be read from its start again.
        by_line: whether the name says that each record has a line of its own (.jsonl).

    Raises:
        DataError: it is not JSON, or a record is not an object; says the line and, where it is known, the column.
    """
    for line, record in _values(path, text, by_line):
        if _is_conversation(record):
            record = {"messages": record}
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {line}: {_shown(record)} is not an object; {NEEDED}")
        yield line, record


def _values(path: str, text: io.TextIOBase, by_line: bool) -> Values:
    first = " "
    while first and not first.strip():
        first = text.readline(BLOCK)  # of a list on a single line, only its start
    text.seek(0)
    if first.lstrip().startswith("[") and not _starts_with_message(_JsonText(path, text)):
        text.seek(0)
        return _json_list(_JsonText(path, text))
    text.seek(0)
    is_spread = first.strip() == "{" if by_line else first.lstrip().startswith(("{", "[")) and not _parses(first)
    return _json_values(_JsonText(path, text)) if is_spread else _json_lines(path, text)


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_message, value))


def _is_message(value: Any) -> bool:
    has = value.keys() if isinstance(value, dict) else ()
    return ("role" in has or "from" in has) and any(
        name in has for name in ("content", "value", "tool_calls", "function_call")
    )


def _starts_with_message(text: "_JsonText") -> bool:
    text.take("[")
    return text.peek() == "{" and _is_message(text.value())


def _shown(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 40 else f"{shown[:40]}…"


# Parsing


def _object(pairs: list[tuple[str, Any]]) -> dict:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands {names.count(twice)} times in one object; each name needs its own")
    return made


DECODER = json.JSONDecoder(object_pairs_hook=_object)  # which by itself keeps the last of two values of one name


def _parses(line: str) -> bool:
    try:
        DECODER.decode(line)
    except (ValueError, RecursionError):
        return False
    return True


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


class _JsonText:
    """JSON text that is read a block at a time; `line` is that of the next character, from 1."""

    SPACE = re.compile(r"[ \t\r\n]*")
    # A parser that meets the end of a block says so by a text without end, or by an error this near the end: the
    # longest things that it takes whole are -Infinity and two \uXXXX escapes.
    NEAR = 16

    def __init__(self, path: str, text: io.TextIOBase):
        self.path, self.text = path, text
        self.buffer, self.at, self.line, self.line_start = "", 0, 1, 0

    def read_more(self) -> bool:
        """Drop what was parsed and read as much as is left again, so that parsing anew stays linear in the whole.

        At the end of the text nothing is changed.
        """
        block = self.text.read(max(BLOCK, len(self.buffer) - self.at))
        if block:
            self.buffer, self.line_start, self.at = self.buffer[self.at :] + block, self.line_start - self.at, 0
        return bool(block)

    def move_to(self, end: int) -> None:
        lines = self.buffer.count("\n", self.at, end)
        if lines:
            self.line, self.line_start = self.line + lines, self.buffer.rindex("\n", self.at, end) + 1
        self.at = end

    def peek(self) -> str:
        """Return the next character that is no white space, or "" at the end."""
        while True:
            self.move_to(self.SPACE.match(self.buffer, self.at).end())
            if self.at < len(self.buffer) or not self.read_more():
                return self.buffer[self.at : self.at + 1]

    def take(self, expected: str) -> None:
        if self.peek() != expected:
            self.refuse(f"Expecting {expected!r} delimiter" if expected else "Extra data")
        self.move_to(self.at + len(expected))

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self.buffer, self.at)
            except json.JSONDecodeError as error:
                may_go_on = error.msg.startswith("Unterminated") or error.pos + self.NEAR > len(self.buffer)
                if not (may_go_on and self.read_more()):
                    self.refuse(error.msg, error.pos)
                continue
            except (ValueError, RecursionError) as error:
                raise _not_taken(self.path, self.line, error) from error
            # A number may go on in the next block, as 1 does in 1.5e+3.
            if end + self.NEAR > len(self.buffer) and self.read_more():
                continue
            self.move_to(end)
            return value

    def refuse(self, what: str, at: int | None = None) -> NoReturn:
        self.move_to(self.at if at is None else at)
        raise _not_json(self.path, self.line, self.at - self.line_start + 1, what, self.buffer[self.at :])


def _json_values(text: _JsonText) -> Values:
    while text.peek():
        yield text.line, text.value()


def _json_list(text: _JsonText) -> Values:
    text.take("[")
    end = text.peek() == "]"
    while not end:
        text.peek()
        yield text.line, text.value()
        end = text.peek() == "]"
        if not end:
            text.take(",")
    text.take("]")
    text.take("")


# Refusing


def _not_taken(path: str, line: int, error: Exception) -> DataError:
    """Return the error for JSON that cannot be made a record of, though its grammar is right."""
    what = str(error)
    if isinstance(error, RecursionError):
        what = f"lists and objects in one another are nested too deep (Python reads {sys.getrecursionlimit():,} levels)"
    elif "integer string conversion" in what:
        what = f"a number has more than {sys.get_int_max_str_digits():,} digits; write it as a text, in double quotes"
    return DataError(f"{path}, line {line}: {what}")


def _not_json(path: str, line: int, column: int, what: str, rest: str) -> DataError:
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
