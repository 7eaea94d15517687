"""Files of pairwise judgements → games: who met whom over which question, and what a judge said.

    games, files = read_games(["ratings/base-vs-tuned-gpt-4-reviewer-threeclass.jsonl"])

A line is a JSON object, or a row of .csv or .tsv. `score` is 1 (the first wins), 2 (the second wins) or 3 (a tie);
lines with anything else are counted and left out. Players are `model_1` and `model_2`, or what the file's name says:
FIRST-vs-SECOND-…. A question is `question_id` or `message_id`. Human annotations of the QLoRA release (`system_a`,
`system_b`, `prompt`, `answer`) are read as they are.
Layout and names: https://github.com/artidoro/qlora/blob/main/eval/EVAL_README.md
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common.errors import DataError
from data.formats.fields import kind
from data.sources.files import check_file, open_file
from eval.verdicts import FAILED, FIRST, SECOND, TIE

HUMAN = {"system_a", "system_b", "prompt", "answer"}
ANSWERS = {"system_a": FIRST, "system_b": SECOND, "tie": TIE}
# As texts; a judge whose reply is unclear gives -1, and pandas makes floats of a column where one is missing.
CSV_SCORES = {f"{score}{end}": score for score in (FIRST, SECOND, TIE, FAILED) for end in ("", ".0")}
NO_JUDGE = "judge"  # what a judge is called that neither line nor file name tells
# Judges whose names can be told from the end of a player's name, as in SECOND-gpt-4-reviewer-threeclass.
JUDGE = r"(?:gpt-?\d[\d.]*o?|chatgpt|claude(?:-\d[\d.]*)?|bard)(?:-(?:turbo|mini|preview|\d+))*"


@dataclass(frozen=True)
class Game:
    """One verdict: `verdict` is FIRST, SECOND or TIE, in the order the two answers were shown."""

    question: str
    first: str
    second: str
    verdict: int
    judge: str
    category: str | None = None


@dataclass
class FileCount:
    """What became of a file's lines; `ignored` counts them by the reason."""

    path: str
    lines: int = 0
    used: int = 0
    ignored: Counter = field(default_factory=Counter)
    without_question: int = 0


@dataclass(frozen=True)
class _Names:
    """What a file's name says; `rest` follows the judge's place, and other files may end in it too."""

    first: str
    second: str
    rest: str

    @property
    def judge(self) -> str:
        return re.sub(r"(^|[-_])(reviewer([-_].*)?|threeclass)$", "", self.rest) or NO_JUDGE


def read_games(paths: Sequence[str], players: Iterable[str] = ()) -> tuple[list[Game], list[FileCount]]:
    """Read every file; players in fields win over those in file names.

    Args:
        players: names to look for in file names, where these leave open where a name ends.

    Raises:
        DataError: a file is given twice, a line is not a JSON object, or names no two players and the file's name
            does not either.
    """
    twice = [path for path, times in Counter(Path(path).resolve() for path in paths).items() if times > 1]
    if twice:
        raise DataError(f"{twice[0]} is given more than once: its games would count more than once")
    files, drafts = [], {}
    for path in paths:
        count, drafts[path] = _read_file(path)
        files.append(count)
    in_fields = {name for games in drafts.values() for game in games for name in (game.first, game.second) if name}
    names = _names_of_files(paths, in_fields, set(players))
    games = []
    for path in paths:
        if names[path] is None and any(not game.first for game in drafts[path]):
            raise DataError(_unnamed(path))
        games += [_with_names(game, names[path]) for game in drafts[path]]
    return games, files


def _with_names(game: Game, names: _Names | None) -> Game:
    changes = {}
    if not game.first:
        changes = {"first": names.first, "second": names.second}
    if not game.judge:
        changes["judge"] = names.judge if names else NO_JUDGE
    return replace(game, **changes)


# ---- Lines -----------------------------------------------------------------------------------------------------------


def _read_file(path: str) -> tuple[FileCount, list[Game]]:
    """Give the count of a file's lines and its games, with "" for the names that no field gives."""
    count, games = FileCount(path), []
    source, is_csv = open_file(path), check_file(path)[1] in (".csv", ".tsv")
    for place, record in source.records():
        if record.keys() >= HUMAN:
            record = _from_human(record)
        elif is_csv:
            record = _from_csv(record)
        where = f"{path}, {source.unit} {place}"
        count.lines += 1
        score = record.get("score")
        if isinstance(score, bool) or score not in (FIRST, SECOND, TIE):
            count.ignored[_reason(record)] += 1
            continue
        question = record.get("question_id", record.get("message_id"))
        count.without_question += question is None
        count.used += 1
        games.append(
            Game(
                question=where if question is None else str(question),
                **dict(zip(("first", "second"), _players(where, record), strict=True)),
                verdict=int(score),
                judge=_text(where, record, "judge"),
                category=_text(where, record, "category") or None,
            )
        )
    return count, games


def _from_human(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "question_id": record["prompt"],
        "model_1": record["system_a"],
        "model_2": record["system_b"],
        "score": ANSWERS.get(str(record["answer"]), record["answer"]),
        "judge": record.get("judge", "human"),
        "category": record.get("category"),
    }


def _from_csv(record: dict[str, str]) -> dict[str, Any]:
    """Put numbers for the scores, and leave out what is empty: CSV has neither a number nor a null."""
    filled: dict[str, Any] = {name: value for name, value in record.items() if value}
    if "score" in filled:
        filled["score"] = CSV_SCORES.get(filled["score"], filled["score"])
    return filled


def _reason(record: dict[str, Any]) -> str:
    if "score" not in record:
        return "no score"
    score = record["score"]
    is_plain = isinstance(score, int | float) and not isinstance(score, bool)
    return f"score {json.dumps(score)}" if is_plain else f"score holds {kind(score)}"


def _text(where: str, record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: {name!r} holds {kind(value)}; a text is needed")
    return value


def _players(where: str, record: dict[str, Any]) -> tuple[str, str]:
    first, second = _text(where, record, "model_1"), _text(where, record, "model_2")
    if bool(first) != bool(second):
        has, lacks = ("model_1", "model_2") if first else ("model_2", "model_1")
        raise DataError(f"{where}: there is {has!r} but no {lacks!r}; a game needs both, or neither and a file name")
    if first and first == second:
        raise DataError(f"{where}: 'model_1' and 'model_2' are both {first!r}; a game needs two players")
    return first, second


# ---- File names ------------------------------------------------------------------------------------------------------


def _stem(path: str) -> str:
    return re.sub(r"\.(jsonl|json|csv|tsv|parquet)(\.gz)?$", "", Path(path).name, flags=re.IGNORECASE)


def _names_of_files(paths: Sequence[str], players: set[str], given: set[str]) -> dict[str, _Names | None]:
    """Return for each path what its name says, None where that is nothing or not certain.

    What one name makes certain helps with the next, until nothing more is learned.
    """
    parts = {path: re.split(r"([-_])vs[-_]", _stem(path)) for path in paths}
    parts = {path: three for path, three in parts.items() if len(three) == 3 and three[0] and three[2]}
    players = players | given | {first for first, _, _ in parts.values()}
    names: dict[str, _Names | None] = dict.fromkeys(paths)
    rests: set[str] = set()
    while True:
        certain = {}
        for path, (first, separator, second) in parts.items():
            readings = _readings(second, separator, players, rests)
            chosen = [name for name in readings if name in given] or readings
            if names[path] is None and len(chosen) == 1 and chosen[0] != first:
                certain[path] = _Names(first, chosen[0], second[len(chosen[0]) + 1 :])
        if not certain:
            return names
        names |= certain
        players |= {name.second for name in certain.values()}
        rests |= {name.rest for name in certain.values() if name.rest}


def _readings(text: str, separator: str, players: set[str], rests: set[str]) -> list[str]:
    """Return the players that `text`, which begins with one, may begin with: one where it is certain."""
    begins = (name for name in players if f"{text}{separator}".startswith(name + separator))
    longest = max(begins, key=len, default="")
    match = re.fullmatch(rf"(?:(.+?)[-_]{JUDGE}[-_]reviewer|([^-_]+)[-_](?:reviewer|threeclass))([-_].*)?", text)
    by_judge = (match.group(1) or match.group(2)) if match else ""
    if longest or by_judge:
        return sorted({longest, by_judge} - {""})
    by_rest = {text.removesuffix(separator + rest) for rest in rests} - {text}
    if by_rest:
        return sorted(by_rest)
    return [text] if separator not in text else []


def _unnamed(path: str) -> str:
    advice = "give each line model_1 and model_2, or the names that occur: --players NAME,NAME"
    stem = _stem(path)
    if not re.search(r"[-_]vs[-_]", stem):
        return f"{path}: its lines have no model_1 and model_2, and its name is not FIRST-vs-SECOND-…\n{advice}"
    return f"{path}: its name does not tell where the players' names end in {stem!r}\n{advice}"
