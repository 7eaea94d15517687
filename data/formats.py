"""How records of each data format become `input` (the prompt) and `output` (what is learned): one row of FORMATS each.

A formatter is a pure function of one record. What it cannot format it refuses with `DataError`, naming the column and
what was found there; `format_table`, which knows the file and the line, puts them in front. A record that is sound but
cannot be trained on raises `SkipRow` with the reason: it is dropped, counted and named by its line.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# The prompts of Stanford Alpaca as the published QLoRA runs had them, with the space after "Response:".
# https://github.com/tatsu-lab/stanford_alpaca#data-release
ALPACA_PROMPT_DICT = {
    "prompt_input": (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response: "
    ),
    "prompt_no_input": (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Response: "
    ),
}


class DataError(ValueError):
    """Data that the user has to correct: what was found and where, what is allowed, what to try next."""


class SkipRow(Exception):
    """A record that cannot be trained on; its text is the reason, worded to follow "dropped for"."""


def extract_alpaca_dataset(example: Mapping) -> dict[str, str]:
    """Return {"input": prompt} for a record with `instruction` and, where there is one, `input`."""
    # A null input is how some exports write an absent one.
    has_input = example.get("input", "") not in ("", None)
    prompt = ALPACA_PROMPT_DICT["prompt_input" if has_input else "prompt_no_input"]
    return {"input": prompt.format(**example)}


def extract_unnatural_instructions_data(
    examples: Mapping[str, list], extract_reformulations: bool = False
) -> dict[str, list[str]]:
    """Flatten a batch of Unnatural Instructions records (https://arxiv.org/abs/2212.09689).

    Args:
        examples: columns of the batch; `instances` is a list (records) of lists of dicts that hold
            `instruction_with_input` and `output`; `reformulations` the same, or None where a record has none.
        extract_reformulations: append the paraphrases, those of all records after all instances.

    Returns:
        {"input": [...], "output": [...]}, as many as there are instances (and reformulations) in the batch.
    """
    groups = list(examples["instances"])
    if extract_reformulations:
        groups += [group for group in examples["reformulations"] if group is not None]
    instances = [instance for group in groups for instance in group]
    return {
        "input": [instance["instruction_with_input"] for instance in instances],
        "output": [instance["output"] for instance in instances],
    }


def _text(record: Mapping, column: str) -> str:
    """Return the string in `column`, or refuse the record with a DataError that names column, value and type."""
    if column not in record:
        raise DataError(f"column {column!r} is missing; columns found: {', '.join(map(repr, record)) or 'none'}")
    value = record[column]
    if not isinstance(value, str):
        shown = "null" if value is None else f"{repr(value)[:40]} ({type(value).__name__})"
        raise DataError(f"column {column!r} holds {shown}; a string is needed")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        # JSON can spell half of a surrogate pair (\ud83d); no tokenizer and no file takes it.
        raise DataError(
            f"column {column!r} holds {value[error.start]!a} at character {error.start}; that is half of a character"
        ) from None
    return value


def _alpaca(record: Mapping) -> dict:
    _text(record, "instruction")
    if record.get("input") is not None:
        _text(record, "input")
    return extract_alpaca_dataset(record) | {"output": _text(record, "output")}


def _columns(source: str, target: str) -> Callable[[Mapping], dict]:
    """Return a formatter that takes prompt and answer from two columns as they are."""
    return lambda record: {"input": _text(record, source), "output": _text(record, target)}


def _answer_only(column: str) -> Callable[[Mapping], dict]:
    """Return a formatter that learns a whole column, with no prompt before it."""
    return lambda record: {"input": "", "output": _text(record, column)}


def _chip2(record: Mapping) -> dict:
    turns = _text(record, "text").split("\n<bot>: ")
    if len(turns) != 2:
        # The published script reads the first answer only; what comes after it would be lost without a word.
        raise SkipRow(f"{len(turns) - 1} answers that start with '\\n<bot>: ', where chip2 has one")
    return {"input": turns[0].replace("<human>: ", ""), "output": turns[1]}


def _unnatural_instructions(record: Mapping) -> list[dict]:
    instances = record.get("instances")
    if not isinstance(instances, list) or not all(isinstance(instance, Mapping) for instance in instances):
        raise DataError("column 'instances' is not a list of objects")
    for number, instance in enumerate(instances, 1):
        try:
            _text(instance, "instruction_with_input"), _text(instance, "output")
        except DataError as error:
            raise DataError(f"instance {number}: {error}") from None
    if not instances:
        raise SkipRow("an empty list of instances")
    flat = extract_unnatural_instructions_data({"instances": [instances]})
    return [{"input": source, "output": target} for source, target in zip(flat["input"], flat["output"], strict=True)]


def _has_instances(record: Mapping) -> bool:
    instances = record["instances"]
    first = instances[0] if isinstance(instances, list) and instances else None
    return isinstance(first, Mapping) and "instruction_with_input" in first


def _is_chip2(record: Mapping) -> bool:
    return isinstance(record["text"], str) and record["text"].startswith("<human>:")


@dataclass(frozen=True)
class Format:
    """One data format.

    Attributes:
        name: what `--dataset_format` calls it.
        columns: columns that every record has; detection asks for all of them.
        convert: record → {"input", "output"}, or a list of these where one record holds several examples.
        looks_right: asked about a record that has the columns, where these alone do not tell formats apart.
        consumed: columns that `convert` spreads over several examples and that are not repeated beside each.
    """

    name: str
    columns: tuple[str, ...]
    convert: Callable[[Mapping], dict | list[dict]]
    looks_right: Callable[[Mapping], bool] = lambda record: True
    consumed: tuple[str, ...] = ()


# In the order of detection: the first whose columns are there wins, so what asks for more stands first.
FORMATS = {
    row.name: row
    for row in (
        Format("alpaca", ("instruction", "output"), _alpaca),
        Format("input-output", ("input", "output"), _columns("input", "output")),
        Format("self-instruct", ("prompt", "completion"), _columns("prompt", "completion")),
        Format("hh-rlhf", ("chosen",), _answer_only("chosen"), lambda record: isinstance(record["chosen"], str)),
        Format(
            "unnatural-instructions",
            ("instances",),
            _unnatural_instructions,
            _has_instances,
            consumed=("instances", "reformulations"),
        ),
        Format("chip2", ("text",), _chip2, _is_chip2),
        Format("oasst1", ("text",), _answer_only("text")),
    )
}


@dataclass(frozen=True)
class NamedDataset:
    """What `--dataset NAME` stands for: its format and where it is (keyword arguments of `datasets.load_dataset`)."""

    format: str
    source: dict[str, Any]


NAMED_DATASETS = {
    "alpaca": NamedDataset("alpaca", {"path": "tatsu-lab/alpaca"}),
    "alpaca-clean": NamedDataset("alpaca", {"path": "yahma/alpaca-cleaned"}),
    "chip2": NamedDataset("chip2", {"path": "laion/OIG", "data_files": "unified_chip2.jsonl"}),
    # Its main branch is a loading script, which datasets 4 and later refuse to run; the hub keeps a Parquet copy on a
    # branch of its own, one folder for each configuration. https://github.com/huggingface/datasets/issues/8012
    "self-instruct": NamedDataset(
        "self-instruct",
        {
            "path": "yizhongw/self_instruct",
            "revision": "refs/convert/parquet",
            "data_files": {"train": "self_instruct/**/*.parquet"},
        },
    ),
    "hh-rlhf": NamedDataset("hh-rlhf", {"path": "Anthropic/hh-rlhf"}),
    "longform": NamedDataset("input-output", {"path": "akoksal/LongForm"}),
    "oasst1": NamedDataset("oasst1", {"path": "timdettmers/openassistant-guanaco"}),
    "unnatural-instructions": NamedDataset("unnatural-instructions", {"path": "mrm8488/unnatural-instructions-core"}),
}
REFUSED_DATASETS = {"vicuna": "its training data was never released"}


def detect_format(first: Mapping) -> Format:
    """Return the first format whose columns are all in `first`, the first record, and that it looks like.

    The first record decides: one further down that has other columns is then an error that names its line.

    Raises:
        DataError: nothing fits; names the columns found and what each format needs.
    """
    for row in FORMATS.values():
        if all(column in first for column in row.columns) and row.looks_right(first):
            return row
    needs = "\n".join(f"  {row.name}: {', '.join(row.columns)}" for row in FORMATS.values())
    raise DataError(
        f"no format fits its columns: {', '.join(map(repr, first)) or 'none'}\n"
        f"formats and the columns that each needs:\n{needs}\n"
        "rename the columns, or try --dataset_format with the name of the format that is meant"
    )


def find_format(name: str) -> Format:
    """Return the format called `name`, or that of the data set of this name (published scripts say alpaca-clean).

    Raises:
        DataError: there is no such format; gives the nearest name and the list.
    """
    if name in FORMATS:
        return FORMATS[name]
    if name in NAMED_DATASETS:
        return FORMATS[NAMED_DATASETS[name].format]
    near = difflib.get_close_matches(name, FORMATS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise DataError(f"--dataset_format {name}: unknown{hint}\nformats: {', '.join(FORMATS)}")


@dataclass
class Table:
    """Records as read. `places[i]` is the line (or row, as `unit` says, counted from 1) where record i starts."""

    source: str
    records: list[dict]
    places: Sequence[int]
    unit: str = "line"
    format: str | None = None  # where it is known without looking at the columns

    def at(self, index: int) -> str:
        return f"{self.source}, {self.unit} {self.places[index]}"


@dataclass
class Examples:
    """Rows to train on, each with `input`, `output` and the record's other fields, and what became of the rest."""

    source: str
    format: str
    unit: str
    records: int
    rows: list[dict] = field(default_factory=list)
    dropped: dict[str, list[int]] = field(default_factory=dict)  # reason → places

    def drop(self, reason: str, place: int) -> None:
        self.dropped.setdefault(reason, []).append(place)

    def report(self) -> str:
        """Return the lines that say how many rows were read, dropped (why, where) and kept; the numbers add up."""
        dropped = sum(map(len, self.dropped.values()))
        made = len(self.rows) + dropped
        read = f"{made:,} rows read" if made == self.records else f"{made:,} rows from {self.records:,} records read"
        lines = [f"{self.source} ({self.format}): {read}, {dropped:,} dropped, {len(self.rows):,} kept"]
        for reason, places in self.dropped.items():
            first = ", ".join(map(str, places[:5]))
            more = f" and {len(places) - 5:,} more" if len(places) > 5 else ""
            unit = self.unit if len(places) == 1 else f"{self.unit}s"
            lines.append(f"{self.source}: {len(places):,} dropped for {reason}: {unit} {first}{more}")
        return "\n".join(lines)


def format_table(table: Table, row: Format | None = None) -> Examples:
    """Format every record by `row` (detected where None), drop what cannot be trained on, keep account of both.

    Raises:
        DataError: no format fits, a record does not fit the format (names line, column and value), or no row is left.
    """
    row = row or _detect(table)
    examples = Examples(table.source, row.name, table.unit, len(table.records))
    for index, record in enumerate(table.records):
        try:
            made = row.convert(record)
        except DataError as error:
            raise DataError(f"{table.at(index)}: {error}\nformat {row.name} needs: {', '.join(row.columns)}") from error
        except SkipRow as skip:
            examples.drop(str(skip), table.places[index])
            continue
        others = {name: value for name, value in record.items() if name not in row.consumed}
        for example in made if isinstance(made, list) else [made]:
            if example["output"].strip():
                examples.rows.append(others | example)
            else:
                examples.drop("an empty output", table.places[index])
    if not examples.rows:
        raise DataError(f"no rows are left to train or evaluate on\n{examples.report()}")
    return examples


def _detect(table: Table) -> Format:
    try:
        return detect_format(table.records[0])
    except DataError as error:
        raise DataError(f"{table.at(0)}: {error}") from error
