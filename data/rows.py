"""Records → formatted rows on disk, with an account of every one that was dropped.

    rows, account = format_source(open_file("my.jsonl"), None, cache_directory(None))

The rows lie in an Arrow file that is mapped into memory, not read into it. Its name is a key of the file's content and
of the code that formats it: the same file is formatted once, and a changed file or formatter never meets old rows.
"""

import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import DataError
from common.text import counted, first_of
from data.cache import cannot_write, code_digest, key_of
from data.formats.detection import as_question, detect_format
from data.formats.fields import SkipRow, without_nulls
from data.formats.layout import has_prompt, lay_out
from data.formats.registry import Format
from data.sources.files import Source

if TYPE_CHECKING:
    from datasets import Dataset

BATCH = 1000  # rows written at once
PLACES_SHOWN = 5  # of the rows that were dropped for a reason
TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
# A row holds `input` and `output` for people and predictions.jsonl, `messages` and `tools` (JSON) where it is a
# conversation, the record's other `fields` (JSON), where it stood (line or row: `unit`), and as `key` a hash of what is
# trained on. A message is {"role", "content", "supervised"}, and "reasoning" where a thought goes before the content.
# `splits` says that a long text becomes several rows instead of being cut.
COLUMNS = ("input", "output", "messages", "tools", "fields", "file", "unit", "place", "splits", "key")


@dataclass
class Account:
    """What became of the records of one source: each gives rows, some of which are dropped."""

    source: str
    unit: str
    format: str = ""
    records: int = 0
    rows: int = 0  # that are left
    dropped: dict[str, list[int]] = field(default_factory=dict)  # reason → places
    columns: list[str] = field(default_factory=list)  # of the first record
    unused: dict[str, int] = field(default_factory=dict)  # column or field that decides nothing → records that have it
    prompts: int = 0  # rows that `--prompt_format` lays out

    def drop(self, reason: str, place: int) -> None:
        self.dropped.setdefault(reason, []).append(place)

    def count(self, examples: list[dict], record: dict, record_format: Format) -> None:
        """Count the examples that a record gave, and what in it decides nothing of them."""
        self.rows += len(examples)
        self.prompts += sum(map(has_prompt, examples))
        for name in record_format.unused(record, any("messages" in example for example in examples)):
            label = name if name.isprintable() else name.encode("unicode_escape").decode()
            self.unused[label] = self.unused.get(label, 0) + 1

    def summary(self, dropped_later: Sequence[tuple[str, int]] = ()) -> dict[str, Any]:
        """Return what the data report says of the source: `rows` are left, `dropped` gives {"rows", "places"}.

        Args:
            dropped_later: (reason, place) of each row that was dropped since.
        """
        counts = {name: value for name, value in asdict(self).items() if name not in ("columns", "prompts")}
        places = {reason: [*at] for reason, at in self.dropped.items()}
        for reason, place in dropped_later:
            places.setdefault(reason, []).append(place)
        dropped = {reason: {"rows": len(at), "places": at} for reason, at in places.items()}
        return counts | {"rows": self.rows - len(dropped_later), "dropped": dropped}


def count_dropped(source: Mapping) -> int:
    """Return how many rows the summary of a source says were dropped, whatever for."""
    return sum(dropped["rows"] for dropped in source["dropped"].values())


def describe_read(source: Mapping) -> str:
    """Return how many rows were read, dropped and kept, of the summary of a source."""
    dropped = count_dropped(source)
    rows = counted(source["rows"] + dropped, "row")
    if source["rows"] + dropped != source["records"]:
        rows += f" from {counted(source['records'], 'record')}"
    return f"{source['source']} ({source['format']}): {rows}, {dropped:,} dropped, {source['rows']:,} kept"


def describe_dropped(source: Mapping) -> list[str]:
    """Return a text for each reason: how many rows, and where the first of them stand."""
    texts = []
    for reason, dropped in source["dropped"].items():
        rows, unit = dropped["rows"], source["unit"] if dropped["rows"] == 1 else f"{source['unit']}s"
        places = first_of(map(str, dropped["places"]), PLACES_SHOWN, rows)
        texts.append(f"{counted(rows, 'row')} ({unit} {places}): {reason}")
    return texts


def format_source(
    source: Source, record_format: Format | None, cache: Path, questions: bool = False, prompt_format: str = "alpaca"
) -> tuple["Dataset", Account]:
    """Return the formatted rows of a source as a memory-mapped `datasets.Dataset`, and the account of them.

    Args:
        source: what to read.
        record_format: None detects it from the first record.
        cache: folder for prepared rows.
        questions: keep records that lack their answer, to predict one; their `output` is empty.
        prompt_format: how questions and answers are laid out; see `data.formats.layout`.

    Raises:
        DataError: the source cannot be read, no format fits, or no row is left.
    """
    key = key_of(
        source.digest, source.name, record_format and record_format.name, questions, prompt_format, code_digest()
    )
    place = cache / f"rows-{key}"
    if (prepared := _read(place)) is None:
        try:
            _write(source, record_format, place, questions, prompt_format)
        except OSError as error:
            raise cannot_write(cache, error) from error
        prepared = _read(place)
    if prepared is None:
        raise DataError(f"{place} cannot be read back after it was written; is the disk full?")
    _, account = prepared
    if not account.rows:
        summary = account.summary()
        lines = ["no rows are left to train or evaluate on", describe_read(summary), *describe_dropped(summary)]
        columns = ", ".join(map(repr, account.columns)) or "none"
        raise DataError("\n".join([*lines, f"columns of the first record: {columns}"]))
    return prepared


def _read(place: Path) -> tuple["Dataset", Account] | None:
    """Return the rows and the account that were written to `place`, or None where they are not whole."""
    import datasets
    import pyarrow

    try:
        account = Account(**json.loads((place / "account.json").read_text(encoding="utf-8")))
        rows = datasets.Dataset.from_file(str(place / "rows.arrow"))
    except (OSError, ValueError, TypeError, pyarrow.ArrowException):
        return None
    return (rows, account) if len(rows) == account.rows else None


def _write(source: Source, record_format: Format | None, place: Path, questions: bool, prompt_format: str) -> None:
    """Write rows.arrow and account.json under other names first, so that a cut run leaves nothing to trust.

    Two processes may write the same at once: each puts whole files in place, of the same content.
    """
    import pyarrow
    from datasets.utils import tqdm

    types = dict.fromkeys(COLUMNS, pyarrow.large_string())
    schema = pyarrow.schema(types | {"place": pyarrow.int64(), "splits": pyarrow.bool_(), "key": pyarrow.int64()})
    account = Account(source.name, source.unit)
    with tempfile.TemporaryDirectory(dir=place.parent) as partial:
        with pyarrow.OSFile(f"{partial}/rows.arrow", "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
            examples = _format(source, record_format, account, questions)
            rows = (_row(lay_out(example, prompt_format), questions) | origin for example, origin in examples)
            # The bar waits two seconds (`delay`), as one for less time only flickers.
            rows = iter(tqdm(rows, desc=f"reading {Path(source.name).name}", unit=" rows", delay=2))
            while batch := list(itertools.islice(rows, BATCH)):
                writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema))
        Path(partial, "account.json").write_text(json.dumps(asdict(account)), encoding="utf-8")
        place.mkdir(exist_ok=True)
        for name in ("rows.arrow", "account.json"):
            os.replace(f"{partial}/{name}", place / name)


def _format(
    source: Source, record_format: Format | None, account: Account, questions: bool
) -> Iterator[tuple[dict, dict[str, Any]]]:
    """Give the examples of a source, each with where it comes from; keep account of all records."""
    for place, raw in source.records():
        account.records += 1
        account.columns = account.columns or list(raw)
        try:
            # Columns of null stay: that a file has one says something of its format.
            record = {name: without_nulls(value) for name, value in raw.items()}
            record_format = record_format or _detect(source, place, record, questions)
            account.format = record_format.name
            examples = record_format.convert(as_question(record, record_format) if questions else record)
        except SkipRow as skip:
            account.drop(str(skip), place)
            continue
        usable = []
        for example in examples if isinstance(examples, list) else [examples]:
            reason = str(example) if isinstance(example, SkipRow) else _why_unusable(example, questions)
            if reason is None:
                usable.append(example)
            else:
                account.drop(reason, place)
        if usable:
            account.count(usable, record, record_format)
        fields = json.dumps(
            {name: value for name, value in raw.items() if name not in record_format.consumed}, default=str
        )
        origin = {"file": source.name, "unit": source.unit, "place": place, "fields": fields}
        yield from ((example, origin | {"splits": record_format.name == "text"}) for example in usable)
    if not account.records:
        raise DataError(f"{source.name}: it holds no rows, and at least one is needed")


def _detect(source: Source, place: int, record: dict, questions: bool) -> Format:
    header = "\nthe first line has to hold the names of the columns" if source.name.endswith(TABLES) else ""
    try:
        return detect_format(record, questions)
    except DataError as error:
        raise DataError(f"{source.name}, {source.unit} {place}: {error}{header}") from error


def _why_unusable(example: dict, questions: bool) -> str | None:
    """Return why there is nothing to learn in an example, or None where there is."""
    if questions or example.get("output", "").strip():
        return None
    answers = [message for message in example.get("messages", ()) if message["supervised"]]
    if any(answer["content"].strip() for answer in answers):
        return None
    # A model that learns to stop after a thought learns to give no answer.
    return "an answer that is only a thought" if any("reasoning" in answer for answer in answers) else "an empty answer"


def _row(example: dict, questions: bool) -> dict:
    """Return the columns that are made of an example; the others of COLUMNS say where it comes from."""
    messages, tools = example.get("messages"), example.get("tools")
    if messages is not None:
        # An empty answer would teach the model to stop at once; that of a question is the last one, to be predicted.
        last = messages[-1] if questions else None
        messages = [m | {"supervised": m["supervised"] and (m is last or bool(m["content"].strip()))} for m in messages]
        example = exchange(messages)
    row = {
        "input": example["input"],
        "output": example["output"] if example["output"].strip() else "",
        "messages": None if messages is None else json.dumps(messages),
        "tools": None if tools is None else json.dumps(tools),
    }
    digest = hashlib.blake2b(repr(list(row.values())).encode(), digest_size=8).digest()
    return row | {"key": int.from_bytes(digest, "big", signed=True)}


def sample_tools(rows: "Dataset") -> list[list | None]:
    """Return a list of None, where a conversation has no tools, and of the tools of the first that has some.

    A template may close answers otherwise where there are tools, so both kinds are looked at. The columns are those of
    the whole file, so that nothing is gathered into memory.
    """
    messages, tools = (rows.data.column(name) for name in ("messages", "tools"))
    with_tools = len(tools) - tools.null_count
    without = [None] if len(messages) - messages.null_count > with_tools else []
    return without + ([json.loads(tools.drop_null()[0].as_py())] if with_tools else [])


def exchange(messages: list[dict], answer: int = -1) -> dict[str, str]:
    """Return a supervised answer of a conversation, the last one by default, and the turn before it as `input`."""
    number = [number for number, message in enumerate(messages) if message["supervised"]][answer]
    return {"input": messages[number - 1]["content"] if number else "", "output": messages[number]["content"]}


def fields_of(row: dict) -> dict[str, Any]:
    """Return the fields of the record that a row was made from, with `input` and `output` as they were trained.

    A question without an answer has no `output`. A row that was not made here is its own fields.
    """
    if "fields" not in row:
        return dict(row)
    fields = json.loads(row["fields"]) | {"input": row["input"], "output": row["output"]}
    if not row["output"]:
        del fields["output"]
    if row["messages"] is not None:
        turns = json.loads(row["messages"])[: None if row["output"] else -1]
        names = ("role", "content", "reasoning")
        fields["messages"] = [{name: turn[name] for name in names if name in turn} for turn in turns]
    return fields
