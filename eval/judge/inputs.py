"""Questions and answers from files, and which of them are to be compared.

    questions = read_questions("question.jsonl")
    players = read_players(["a.jsonl", "b.jsonl"], questions, names=None)
    comparisons, missing = plan(questions, players)

Whatever cannot be matched without doubt is a `DataError` that says where it stands.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import DataError
from common.text import first_of
from data.formats.fields import kind
from data.sources.files import open_file

DEFAULT_CATEGORY = "generic"


@dataclass(frozen=True)
class Question:
    id: int | str
    text: str
    category: str

    @property
    def key(self) -> str:
        """Equal for 7 and "7", which different tools write for the same question."""
        return str(self.id)


@dataclass(frozen=True)
class Player:
    """Who answered, and {key of the question: answer}."""

    name: str
    answers: dict[str, str]


@dataclass(frozen=True)
class Comparison:
    """One request: the answers of two players to a question, in this order."""

    question: Question
    first: Player
    second: Player

    @property
    def key(self) -> tuple[str, str, str]:
        return self.question.key, self.first.name, self.second.name


def read_questions(path: str) -> list[Question]:
    """Read `question_id`, `text` and, where there is one, `category` of every line.

    Raises:
        DataError: a field is missing or of another type, or two lines have one id.
    """
    questions, lines = [], {}
    for line, record in open_file(path).records():
        where = f"{path}, line {line}"
        question = Question(
            _id(where, record),
            _text(where, record, "text", "the question"),
            _text(where, record, "category", "its category") if record.get("category") else DEFAULT_CATEGORY,
        )
        if not question.text.strip():
            raise DataError(f"{where}: text is empty; the question itself is needed")
        _refuse_second(where, lines, question.key, line)
        questions.append(question)
    if not questions:
        raise DataError(f"{path}: no question in it; an object with question_id and text on each line is needed")
    return questions


def read_players(paths: list[str], questions: list[Question], names: list[str] | None) -> list[Player]:
    """Read one player's answers from each file.

    Args:
        names: of the players, in the order of the files; None takes `model_id`, else the name of the file.

    Raises:
        DataError: a file is malformed or ambiguous, or two players have one name.
    """
    if len(paths) < 2:
        raise DataError(f"--answers: {len(paths)} file given; a comparison needs two or more")
    if names is not None and len(names) != len(paths):
        raise DataError(f"--names has {len(names)} names ({', '.join(names)}) and --answers {len(paths)} files")
    players = [
        read_player(path, questions, name) for path, name in zip(paths, names or itertools.repeat(None), strict=False)
    ]
    taken: dict[str, str] = {}
    for player, path in zip(players, paths, strict=True):
        file_name = safe_name(player.name).lower()  # some file systems do not tell A from a
        if file_name in taken:
            raise DataError(
                f"{taken[file_name]} and {path} would both be {player.name!r} (as part of a file's name); tell them "
                "apart with --names A,B"
            )
        taken[file_name] = path
    return players


def read_player(path: str, questions: list[Question], name: str | None) -> Player:
    """Read answers: `text` (FastChat) or `prediction` (predictions.jsonl), by `question_id` or else in order.

    Raises:
        DataError: no answer in a line, an id twice, only some lines with an id, or, without ids, lines that are not
            those of the questions.
    """
    rows = list(open_file(path).records())
    if not rows:
        raise DataError(f"{path}: no answer in it")
    field = "prediction" if any("prediction" in row for _, row in rows) else "text"
    answers = {}
    for line, row in rows:
        _text(f"{path}, line {line}", row, field, "the answer")
    lines: dict[str, int] = {}
    for (line, row), key in zip(rows, _keys(path, rows, questions), strict=True):
        _refuse_second(f"{path}, line {line}", lines, key, line)
        answers[key] = row[field]
    return Player(name or _name(path, rows), answers)


def plan(questions: list[Question], players: list[Player]) -> tuple[list[Comparison], dict[str, list[str]]]:
    """Return every pair on every question in both orders, and {player: ids of questions without its answer}."""
    comparisons = []
    for question in questions:
        for pair in itertools.combinations(players, 2):
            if all(question.key in player.answers for player in pair):
                comparisons += [Comparison(question, *pair), Comparison(question, *reversed(pair))]
    missing = {player.name: [q.key for q in questions if q.key not in player.answers] for player in players}
    return comparisons, {name: keys for name, keys in missing.items() if keys}


def safe_name(name: str) -> str:
    """Return a name as part of a file's name: letters and digits stay, and . _ - but for a dot at the start."""
    safe = "".join(character if character.isalnum() or character in "._-" else "_" for character in name)
    return f"_{safe[1:]}" if safe.startswith(".") else safe


def _keys(path: str, rows: list[tuple[int, Any]], questions: list[Question]) -> Iterator[str]:
    """Yield the key of the question that each row answers."""
    without = [line for line, row in rows if "question_id" not in row]
    if not without:
        for line, row in rows:
            yield str(_id(f"{path}, line {line}", row))
        return
    if len(without) < len(rows):
        raise DataError(
            f"{path}: {len(without):,} of {len(rows):,} lines have no question_id (line "
            f"{first_of(map(str, without))}); give it to all of them, or to none to go by their order"
        )
    if len(rows) != len(questions):
        raise DataError(
            f"{path}: no question_id, and {len(rows):,} lines for {len(questions):,} questions, so it is not known "
            "which answers which; put question_id into the lines"
        )
    for (line, row), question in zip(rows, questions, strict=True):
        prompt = row.get("input")
        if isinstance(prompt, str) and prompt and _words(question.text) not in _words(prompt):
            raise DataError(
                f"{path}, line {line}: no question_id, and its input does not hold the question of that place "
                f"({question.key}: {question.text[:60]!r}); put question_id into the lines"
            )
        yield question.key


def _words(text: str) -> str:
    return " ".join(text.split())


def _name(path: str, rows: list[tuple[int, Any]]) -> str:
    names = {str(row["model_id"]) for _, row in rows if row.get("model_id")}
    if len(names) > 1:
        raise DataError(
            f"{path}: answers of {len(names)} models ({first_of(sorted(names))}); give each its own file, or one name "
            "to all with --names"
        )
    return names.pop() if names else Path(path.removesuffix(".gz")).stem


def _id(where: str, record: dict[str, Any]) -> int | str:
    if "question_id" not in record:
        raise DataError(f"{where}: question_id is missing (it has {', '.join(record) or 'no field'})")
    value = record["question_id"]
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise DataError(f"{where}: question_id is {value!r}; a whole number or a text is needed")
    return value


def _text(where: str, record: dict[str, Any], field: str, what: str) -> str:
    value = record.get(field)
    if not isinstance(value, str):
        state = f"holds {kind(value)}" if field in record else "is missing"
        raise DataError(
            f"{where}: {field} {state}; {what}, a text, is needed (it has {', '.join(record) or 'no field'})"
        )
    return value


def _refuse_second(where: str, lines: dict[str, int], key: str, line: int) -> None:
    if lines.setdefault(key, line) != line:
        raise DataError(f"{where}: question_id {key} stands on line {lines[key]} already; each needs one line")
