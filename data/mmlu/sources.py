"""The questions of MMLU, from the official CSV files or the hub: split → subject → questions in their order.

    read_folder(Path("data"))["dev"]["anatomy"]      # or read_hub()

What is missing or malformed is a `DataError` that says where.
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.errors import DataError
from data.mmlu.prompts import LETTERS, Question

HUB_NAMES = {"dev": "dev", "val": "validation", "test": "test"}  # split of the CSV files → that of the hub
HUB_DATA_SET = "cais/mmlu"
ARCHIVE = "https://people.eecs.berkeley.edu/~hendrycks/data.tar"
EXAMPLES = 5  # dev questions of a subject that a five-shot prompt shows
COLUMNS = "question, four choices, letter"
Split = dict[str, list[Question]]


def read_folder(folder: Path) -> dict[str, Split]:
    """Read DIR/{dev,val,test}/SUBJECT_{dev,val,test}.csv, the layout of the official archive.

    Raises:
        DataError: a folder, a subject or an example is missing, or a file is not such a CSV; says the file and line.
    """
    splits = {}
    for name in HUB_NAMES:
        end = f"_{name}.csv"
        files = [path for path in sorted((folder / name).glob(f"*{end}")) if not path.name.startswith(".")]
        if not files:
            raise DataError(
                f"--csv {folder}: no {folder / name}/SUBJECT{end} there; needed is the folder with dev, val and test "
                f"of the official archive ({ARCHIVE}; there it is called data)"
            )
        subjects = {path.name.removesuffix(end): path for path in files}
        splits[name] = {subject: read_file(subjects[subject], subject) for subject in sorted(subjects)}
    check_splits(splits, str(folder))
    return splits


def read_file(path: Path, subject: str) -> list[Question]:
    """Read the questions of one CSV file: no header; question, four choices, letter.

    Raises:
        DataError: it is something else; says the line.
    """
    reader = csv.reader(io.StringIO(_text(path), newline=""))
    questions, line = [], 1
    try:
        for fields in reader:
            if fields:
                questions.append(_question(fields, subject, f"{path}, line {line}"))
            line = reader.line_num + 1  # a field may hold line breaks: a record starts after the end of the one before
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: {error}; is a double quote of this record not closed?") from error
    if not questions:
        raise DataError(f"{path}: no question in it; was it downloaded whole?")
    return questions


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{content[error.start]:02x}"
        raise DataError(f"{path}, line {line}: {byte} is not UTF-8; save it as UTF-8, or download it again") from error


def _question(fields: list[str], subject: str, where: str) -> Question:
    if fields[0].strip().lower() == "question":
        raise DataError(f"{where}: a header, {','.join(fields)}; the official files have none: delete this line")
    if len(fields) != 2 + len(LETTERS):
        raise DataError(f"{where}: {len(fields)} columns where 6 are needed: {COLUMNS}; is a double quote missing?")
    text, *choices, letter = fields
    if letter not in LETTERS:
        raise DataError(f"{where}: the answer is {letter!r}, not one of {', '.join(LETTERS)}; needed are {COLUMNS}")
    return Question(subject, text, tuple(choices), letter)


def read_hub() -> dict[str, Split]:
    """Read the hub's copy of the same questions, in the same order.

    Raises:
        DataError: it cannot be had, or has another shape.
    """
    import datasets

    try:
        loaded = datasets.load_dataset(HUB_DATA_SET, "all")
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"--hub: {HUB_DATA_SET} could not be loaded ({first_line(error)}); is there a network, and is "
            f"HF_HUB_OFFLINE unset? Without one, give --csv DIR, the unpacked {ARCHIVE}"
        ) from error
    missing = [name for name in HUB_NAMES.values() if name not in loaded]
    if missing:
        raise DataError(f"--hub: {HUB_DATA_SET} has no split {', '.join(missing)}; it has {', '.join(loaded)}")
    splits = {split: _by_subject(loaded[name], name) for split, name in HUB_NAMES.items()}
    check_splits(splits, HUB_DATA_SET)
    return splits


def _by_subject(rows: Iterable[dict[str, Any]], split: str) -> Split:
    questions: Split = {}
    for number, row in enumerate(rows, 1):
        try:
            choices, letter = tuple(row["choices"]), dict(enumerate(LETTERS))[row["answer"]]
            question = Question(row["subject"], row["question"], choices, letter)
        except (KeyError, TypeError) as error:
            needed = "question, subject, choices and answer (0 to 3)"
            raise DataError(f"{HUB_DATA_SET}, {split}, row {number}: no row of {needed}: {error!r}") from error
        if len(choices) != len(LETTERS):
            raise DataError(f"{HUB_DATA_SET}, {split}, row {number}: {len(choices)} choices where 4 are needed")
        questions.setdefault(question.subject, []).append(question)
    return dict(sorted(questions.items()))


def check_splits(splits: dict[str, Split], where: str) -> None:
    """Refuse subjects that a split lacks, and fewer than five examples of one.

    Raises:
        DataError: names them.
    """
    subjects = set().union(*splits.values())
    for name, split in splits.items():
        missing = sorted(subjects - set(split))
        if missing:
            raise DataError(
                f"{where}: {name} lacks {len(missing)} of {len(subjects)} subjects: {', '.join(missing)}; every one "
                "needs its questions in dev, val and test"
            )
    for subject, questions in splits["dev"].items():
        if len(questions) < EXAMPLES:
            raise DataError(f"{where}: dev has {len(questions)} questions of {subject} where {EXAMPLES} are needed")


def first_line(error: Exception) -> str:
    """Return the class and the first line of a library's error, which may go on for many."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
