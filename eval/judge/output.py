"""The output directory of a judge: ratings files that grow by one line a reply, what they were made from, and a lock.

    with Ratings(directory, origin, note) as ratings:
        ratings.read(comparisons)  # of earlier runs
        ratings.append(comparison, reply)  # on the disk when it returns
        ratings.tidy(questions, players)

judge.json says what the ratings were made from, so that ratings of other inputs never stand among them.
"""

import contextlib
import hashlib
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from common.errors import DataError
from common.files import read_json, write_json, write_whole
from common.lock import locked
from eval.judge.client import Reply, StoppedError
from eval.judge.inputs import Comparison, Player, Question, safe_name
from eval.judge.prompts import Judgement, read_reply, template
from eval.verdicts import FAILED, FIRST, SECOND, TIE

MANIFEST = "judge.json"
SCORES = (FAILED, FIRST, SECOND, TIE)
LONGEST_NAME = 240  # bytes; file systems take 255, and a whole file is first written beside its place
Key = tuple[str, str, str]


def origin_of(
    questions: list[Question], players: list[Player], kind: str, judge: str, sampling: dict[str, Any]
) -> dict[str, Any]:
    """Return what ratings are made from, texts by their hash: the content of judge.json."""
    return {
        "judge": judge,
        "prompt": kind,
        "prompt_text": digest(template(kind)),
        **sampling,
        "questions": digest([[question.key, question.text, question.category] for question in questions]),
        "answers": {player.name: digest(player.answers) for player in players},
    }


def digest(value: Any) -> str:
    """Return a short hash of a value that JSON holds."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


class Ratings:
    """All ratings of a directory: read when it is opened, then appended to, from any thread.

    Use as a context manager; after it nothing is written. `records` holds the last record of each comparison.

    Args:
        origin: what they are made from, as `origin_of` gives it.
        note: is told what was put right.
        dry: read only: nothing is made, locked or repaired.
    """

    def __init__(self, directory: str, origin: dict[str, Any], note: Callable[[str], None], dry: bool = False):
        self.directory, self.origin, self.note, self.dry = Path(directory), origin, note, dry
        self.records: dict[Key, dict[str, Any]] = {}
        self.files: dict[Path, int] = {}  # open for appending
        self.write_lock, self.is_open, self.lock = threading.Lock(), False, contextlib.ExitStack()

    def __enter__(self) -> "Ratings":
        if not self.dry:
            self.lock.enter_context(locked(self.directory, "--output"))
            self.is_open = True
        return self

    def __exit__(self, *error: object) -> None:
        with self.write_lock, self.lock:
            self._close_files()

    def _close_files(self) -> None:
        self.is_open = False
        for file in self.files.values():
            os.close(file)
        self.files = {}

    # What the ratings were made from

    def _check_origin(self) -> None:
        path = self.directory / MANIFEST
        ratings = [file for file in sorted(self.directory.glob("*.jsonl")) if file.stat().st_size]
        old = _read_manifest(path) if ratings else {"answers": {}}  # what no rating was made from may change
        if old is None:
            raise DataError(
                f"--output {self.directory} holds {ratings[0].name} but no {MANIFEST}, so what it was made from is not "
                "known; give another directory"
            )
        if ratings:
            self._refuse_other_origin(old)
        # Players may join later: their pairs are further files.
        new = self.origin | {"answers": old["answers"] | self.origin["answers"]}
        if new != old and not self.dry:
            write_json(path, new)

    def _refuse_other_origin(self, old: dict[str, Any]) -> None:
        changed = []
        for name in sorted((old.keys() | self.origin.keys()) - {"answers"}):
            before, now = old.get(name), self.origin.get(name)
            # Replies that ended by themselves would be the same with room for more.
            is_wider = name == "max_tokens" and isinstance(before, int) and before < now
            if before != now and not is_wider:
                is_hash = name in ("questions", "prompt_text")
                changed.append(f"{name} (other text)" if is_hash else f"{name} (was {before!r}, is {now!r})")
        for player, answers in self.origin["answers"].items():
            if old["answers"].get(player, answers) != answers:
                changed.append(f"the answers of {player} (other text)")
        if changed:
            raise DataError(
                f"--output {self.directory} holds ratings that were made from something else: {'; '.join(changed)}\n"
                "give another directory, or go on there with what it was made from"
            )

    # Ratings

    def path(self, first: str, second: str) -> Path:
        """Return the file of the ratings of two players, shown in this order."""
        parts = (first, "vs", second, self.origin["judge"], self.origin["prompt"])
        return self.directory / ("-".join(map(safe_name, parts)) + ".jsonl")

    def read(self, comparisons: Iterable[Comparison]) -> None:
        """Take in what earlier runs wrote of these comparisons, and cut off a last line that a kill left unfinished.

        Raises:
            DataError: the directory was made from something else, a line is not a rating of these comparisons, or two
                pairs have no files of their own.
        """
        keys = {comparison.key for comparison in comparisons}
        pairs = sorted({key[1:] for key in keys})
        self._check_names(pairs)
        self._check_origin()
        for first, second in pairs:
            path = self.path(first, second)
            if path.is_file():
                for number, line in enumerate(self._whole_lines(path), 1):
                    record = _read_record(path, number, line)
                    key = (str(record["question_id"]), record["model_1"], record["model_2"])
                    if key not in keys:
                        raise DataError(
                            f"{path}, line {number}: a rating of question {key[0]} for {key[1]} and {key[2]}, which is "
                            "none of this run's; give another --output"
                        )
                    self.records[key] = record

    def _check_names(self, pairs: list[tuple[str, str]]) -> None:
        taken: dict[str, str] = {}
        for first, second in pairs:
            name, pair = self.path(first, second).name, f"{first} and {second}"
            if len(name.encode()) > LONGEST_NAME:
                raise DataError(f"{name} is too long for the name of a file; give shorter names with --names A,B")
            if name in taken:
                raise DataError(
                    f"two pairs would share {name}: {taken[name]}, {pair}; give names without -vs- with --names A,B"
                )
            taken[name] = pair

    def _whole_lines(self, path: Path) -> list[bytes]:
        content = path.read_bytes()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            self.note(f"{path}: the last line was cut off in the middle; dropped, its comparison is asked again")
            if not self.dry:
                os.truncate(path, end)
        return content[:end].split(b"\n")[:-1]  # not splitlines: a reply may hold other line breaks

    def is_done(self, comparison: Comparison, retry_failures: bool) -> bool:
        """Return whether a comparison needs no request."""
        record = self.records.get(comparison.key)
        return record is not None and not (retry_failures and record["score"] == FAILED)

    def append(self, comparison: Comparison, reply: Reply) -> None:
        """Write a reply with what it says; it is on the disk when this returns.

        Raises:
            StoppedError: the run is over.
            OSError: it could not be written; what was there before is whole.
        """
        record = make_record(comparison, reply, self.origin)
        with self.write_lock:
            if not self.is_open:
                raise StoppedError
            path = self.path(comparison.first.name, comparison.second.name)
            if path not in self.files:
                self.files[path] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            _append_durably(self.files[path], _line(record))
            self.records[comparison.key] = record

    def tidy(self, questions: list[Question], players: Iterable[Player]) -> None:
        """Bring the lines into the order of the questions, one for each comparison: the order of replies is chance.

        Nothing is appended any more after it.
        """
        with self.write_lock:
            self._close_files()
        for first, second in itertools.permutations([player.name for player in players], 2):
            keys = [(question.key, first, second) for question in questions]
            content = b"".join(_line(self.records[key]) for key in keys if key in self.records)
            path = self.path(first, second)
            if content and path.read_bytes() != content:
                write_whole(path, content)


def make_record(comparison: Comparison, reply: Reply, origin: dict[str, Any]) -> dict[str, Any]:
    """Return a line of a ratings file. A reply that was cut off is a failure: its last number may be cut off too."""
    cut_off = reply.finish_reason == "length"
    judgement = Judgement(FAILED) if cut_off else read_reply(origin["prompt"], reply.text)
    return {
        "question_id": comparison.question.id,
        "category": comparison.question.category,
        "model_1": comparison.first.name,
        "model_2": comparison.second.name,
        "judge": origin["judge"],
        "prompt": origin["prompt"],
        "score": judgement.score,
        **({"scores": list(judgement.scores)} if judgement.scores else {}),
        "reply": reply.text,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
    }


def _line(record: dict[str, Any]) -> bytes:
    # Half a character in a reply (\ud83d alone) has no UTF-8; its escape is what JSON says too.
    return json.dumps(record, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"


def _append_durably(file: int, line: bytes) -> None:
    end = os.fstat(file).st_size
    try:
        written = 0
        while written < len(line):
            written += os.write(file, line[written:])
        os.fsync(file)
    except OSError:
        os.ftruncate(file, end)  # a full disk may have taken a part of it
        raise


def _read_manifest(path: Path) -> dict[str, Any] | None:
    try:
        manifest = read_json(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); give another --output") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("answers"), dict):
        raise DataError(f"{path}: it does not say what the ratings were made from; give another --output")
    return manifest


def _read_record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number}: not valid JSON ({error}); remove this line to ask again") from error
    names = ("question_id", "model_1", "model_2", "score")
    missing = [name for name in names if not isinstance(record, dict) or name not in record]
    if missing or record["score"] not in SCORES:
        raise DataError(
            f"{path}, line {number}: not a rating ({', '.join(missing) or 'score'}); remove it to ask again"
        )
    return record
