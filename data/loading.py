"""Named data sets and local files → formatted, checked and split data sets.

    module = make_data_module(tokenizer, args)  # args holds the flags; prints how many rows went where
    Trainer(..., train_dataset=module["train_dataset"], data_collator=module["data_collator"])

A file is read (`read_file` → Table: records and where each stands), its records formatted and checked (`format_table` →
Examples: what can be trained on, what was dropped and why), then split by a seeded permutation. Whatever is wrong with
the data is a `DataError` that says where it is and what to do.
"""

import csv
import difflib
import gzip
import io
import json
import math
import os
import random
import re
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from data.formats import NAMED_DATASETS, REFUSED_DATASETS, DataError, Examples, Table, find_format, format_table

__all__ = ["DataError", "make_data_module"]

# Splits of a hub data set that serve as its evaluation rows, the first one found.
EVAL_SPLITS = ("eval", "validation", "test")
FILE_TYPES = ".json, .jsonl, .csv, .tsv (each also with .gz), .parquet"
JSON_NEEDED = "a list of objects, or one object on each line, is needed"


# Reading local files


def read_file(path: str) -> Table:
    """Read a JSON, JSON lines, CSV, TSV or Parquet file. Raises DataError with the line of what is wrong in it."""
    file = Path(path).expanduser()
    suffix = Path(file.stem).suffix.lower() if file.suffix.lower() == ".gz" else file.suffix.lower()
    if file.is_dir():
        files = ", ".join(sorted(child.name for child in file.iterdir() if child.is_file())[:5]) or "no file"
        raise DataError(f"{path} is a directory (it holds {files}); give the path of one file")
    if suffix == ".parquet":
        table = _read_parquet(path, file)
    elif suffix in READERS:
        table = READERS[suffix](path, _read_text(path, file))
    else:
        raise DataError(f"{path}: unknown file type {file.suffix!r}; file types: {FILE_TYPES}")
    if not table.records:
        raise DataError(f"{path}: the file is empty: it holds no rows, and at least one is needed")
    return table


def _read_text(source: str, file: Path) -> str:
    try:
        data = file.read_bytes()
        if file.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{source}: not a whole gzip file ({error}); copy or download it again") from error
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from error
    data = data.removeprefix(b"\xef\xbb\xbf")  # Excel marks UTF-8 with a BOM, which would become part of the first name
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        guess = "UTF-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "LATIN1"
        raise DataError(
            f"{source}, line {line}: byte {data[error.start]:#04x} at offset {error.start} is not UTF-8, as it must be"
            f"\ntry: iconv -f {guess} -t UTF-8 {source}"
        ) from error


def _read_json(source: str, text: str) -> Table:
    """Read a list of objects, or JSON lines; the text shows which, as many a .json file holds lines."""
    if text.lstrip().startswith("["):
        try:
            table = Table(source, json.loads(text), _element_lines(text))
        except ValueError as error:
            _refuse_json(source, 0, text, error)
    else:
        table = _read_json_lines(source, text)
    for index, record in enumerate(table.records):
        if not isinstance(record, dict):
            raise DataError(f"{table.at(index)}: {str(record)[:40]!r} is not an object; {JSON_NEEDED}")
    return table


def _read_json_lines(source: str, text: str) -> Table:
    records, places = [], []
    # Not splitlines(): it also breaks at characters that may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except ValueError as error:
                _refuse_json(source, number - 1, line, error)
            places.append(number)
    return Table(source, records, places)


def _refuse_json(source: str, lines_before: int, text: str, error: ValueError) -> NoReturn:
    if isinstance(error, json.JSONDecodeError):
        found = text[error.pos : error.pos + 20]
        where = f"{source}, line {lines_before + error.lineno}, column {error.colno}"
        what = f"{error.msg.rstrip(': ')}: {repr(found) if found.strip() else 'the text ends here'}"
    else:  # a number of more digits than Python converts
        where, what = f"{source}, line {lines_before + 1}", str(error)
    raise DataError(f"{where}: not valid JSON: {what}; {JSON_NEEDED}") from error


def _element_lines(text: str) -> list[int]:
    """Return the line on which each element of a valid JSON list starts."""
    decoder, gap, lines = json.JSONDecoder(), re.compile(r"[\s,]*"), []
    end = text.index("[") + 1
    line = text.count("\n", 0, end) + 1
    while True:
        start = gap.match(text, end).end()
        line += text.count("\n", end, start)
        if text[start] == "]":
            return lines
        lines.append(line)
        end = decoder.raw_decode(text, start)[1]
        line += text.count("\n", start, end)


def _read_delimited(delimiter: str, source: str, text: str) -> Table:
    csv.field_size_limit(sys.maxsize)  # the default refuses a field over 128 KiB
    # strict: otherwise a quote that is never closed swallows the rest of the file without a word.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header, records, places, line = None, [], [], 1
    try:
        for fields in reader:
            start, line = line, reader.line_num + 1
            if not fields:
                continue
            if header is None:
                header = _check_header(source, start, fields)
            elif len(fields) != len(header):
                raise DataError(
                    f"{source}, line {start}: {len(fields)} fields where the header has {len(header)}"
                    f" ({', '.join(header)})\na field with a {delimiter!r} or line break in it stands in double quotes"
                )
            else:
                records.append(dict(zip(header, fields, strict=True)))
                places.append(start)
    except csv.Error as error:
        raise DataError(
            f'{source}, line {line}: {error}\na quote inside a quoted field is written twice (""), one ends the field'
        ) from error
    return Table(source, records, places)


def _check_header(source: str, line: int, fields: list[str]) -> list[str]:
    # pandas writes its index as a first column without a name.
    header = [name or f"column_{number}" for number, name in enumerate(fields, 1)]
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise DataError(
            f"{source}, line {line}: {header.count(twice[0])} columns are named {twice[0]!r}; each needs its own"
        )
    return header


def _read_parquet(source: str, file: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file).read()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{source}: not a readable Parquet file: {str(error).splitlines()[0]}") from error
    _check_header(source, 1, table.column_names)
    return Table(source, table.to_pylist(), range(1, table.num_rows + 1), "row")


READERS: dict[str, Callable[[str, str], Table]] = {
    ".json": _read_json,
    ".jsonl": _read_json,
    ".csv": partial(_read_delimited, ","),
    ".tsv": partial(_read_delimited, "\t"),
}


# Named data sets


def check_sources(args: Any) -> None:
    """Refuse data and format names that are none, before anything is loaded.

    Raises:
        DataError: as `check_source` and `find_format` do.
    """
    check_source(args.dataset, "--dataset")
    if args.eval_dataset is not None:
        check_source(args.eval_dataset, "--eval_dataset")
    if args.dataset_format is not None:
        find_format(args.dataset_format)


def load_tables(name: str, flag: str, args: Any) -> dict[str, Table]:
    """Return the splits of a named data set, or a file as the one split "train".

    Raises:
        DataError: `name` is neither, or it cannot be read.
    """
    check_source(name, flag)
    return _load_from_hub(name, flag, args) if name in NAMED_DATASETS else {"train": read_file(name)}


def check_source(name: str, flag: str) -> None:
    """Refuse what is neither a named data set nor a path; gives the nearest name."""
    if name in REFUSED_DATASETS:
        raise DataError(f"{flag} {name}: {REFUSED_DATASETS[name]}; named data sets: {', '.join(NAMED_DATASETS)}")
    path = Path(name).expanduser()
    if name in NAMED_DATASETS or path.exists():
        return
    beside = [str(path.with_name(file)) for file in os.listdir(path.parent)] if path.parent.is_dir() else []
    repositories = {row.source["path"]: known for known, row in NAMED_DATASETS.items()}
    near = difflib.get_close_matches(name, [*NAMED_DATASETS, *repositories, *beside], n=1)
    hint = f"; did you mean {repositories.get(near[0], near[0])}?" if near else ""
    raise DataError(
        f"{flag} {name}: there is no such file and no data set of that name{hint}\n"
        f"named data sets: {', '.join(NAMED_DATASETS)}\nfile types: {FILE_TYPES}"
    )


def _load_from_hub(name: str, flag: str, args: Any) -> dict[str, Table]:
    import datasets

    row = NAMED_DATASETS[name]
    try:
        splits = datasets.load_dataset(
            **row.source,
            cache_dir=getattr(args, "cache_dir", None),
            token=True if getattr(args, "use_auth_token", False) else None,
        )
    except Exception as error:  # whatever it is, it is the network, the hub or the cache
        raise DataError(_how_to_go_on(name, flag, datasets.config.HF_HUB_OFFLINE, error)) from error
    tables = {}
    for split in ("train", *[split for split in EVAL_SPLITS if split in splits][:1]):
        records = splits[split].to_list()
        source = f"{name} ({row.source['path']}, split {split})"
        tables[split] = Table(source, records, range(1, len(records) + 1), "row", row.format)
    return tables


def _how_to_go_on(name: str, flag: str, offline: bool, error: Exception) -> str:
    row = NAMED_DATASETS[name]
    repository, revision = row.source["path"], row.source.get("revision")
    branch = f" --revision {revision}" if revision else ""
    fetch = f"hf download {repository} --repo-type dataset{branch} --local-dir DIR"
    searched = "HF_HUB_OFFLINE is set, so only the local cache was searched\n" if offline else ""
    return (
        f"{flag} {name}: {repository} could not be loaded from the Hugging Face hub ({type(error).__name__}: {error})\n"
        f"{searched}without a network here, run this where there is one: {fetch}\n"
        f"then copy its data file here and pass it: {flag} FILE --dataset_format {row.format}"
    )


# Formatting


def _format(table: Table, args: Any) -> Examples:
    """Format a table by `--dataset_format`, its name or its columns, and print what became of its rows."""
    name = args.dataset_format or table.format
    examples = format_table(table, find_format(name) if name else None)
    _say(examples.report())
    return examples


def to_dataset(rows: list[dict]):
    """Return the rows as a `datasets.Dataset` in memory: `input`, `output`, then every column that any row has."""
    import datasets
    import pyarrow

    names = dict.fromkeys(["input", "output", *(name for row in rows for name in row)])
    return datasets.Dataset(pyarrow.table({name: _to_arrow(name, [row.get(name) for row in rows]) for name in names}))


def _to_arrow(name: str, values: list):
    """Return a column as Arrow holds it, or, where Arrow would refuse or change a value, as JSON text.

    A column of Arrow has one type: [1, "a"] is an error there, and of {"a": 1} and {"b": 2} each gets the other's key
    as null. JSON text keeps every value as it was.
    """
    import pyarrow

    try:
        array = pyarrow.array(values)
        back = array.to_pylist()
        if back == values or repr(back) == repr(values):  # repr: NaN is not equal to itself
            return array
    except (pyarrow.ArrowException, OverflowError, TypeError, ValueError):
        pass
    _say(f"column {name!r} holds values of several types; each is kept as JSON text")
    return pyarrow.array([None if value is None else json.dumps(value, default=str) for value in values])


# Splitting


def count_held_out(size: float, rows: int, source: str) -> int:
    """Return how many of `rows` to hold out: `size` itself from 1 on, that fraction of the rows (rounded up) below 1.

    Raises:
        DataError: `size` is neither a whole number from 1 on nor between 0 and 1, or no row is left to train on.
    """
    if not size > 0 or (size > 1 and size % 1):
        raise DataError(f"--eval_dataset_size {size:g}: it must be a whole number of rows, or a fraction below 1")
    count = int(size) if size >= 1 else math.ceil(size * rows)
    if count >= rows:
        raise DataError(
            f"--eval_dataset_size {size:g} holds {count:,} rows out, but {source} has {rows:,}; none is left to train\n"
            "try --eval_dataset_size 0.1 (a tenth of the rows), or evaluate on all rows of a file: --eval_dataset FILE"
        )
    return count


def split_indices(rows: int, held_out: int, seed: int) -> tuple[list[int], list[int]]:
    """Return (train, held out) row numbers, each in the order of the file, from one seeded permutation."""
    order = list(range(rows))
    random.Random(seed).shuffle(order)
    return sorted(order[held_out:]), sorted(order[:held_out])


def load_rows(args: Any) -> tuple[list[dict], list[dict]]:
    """Return (train, eval) rows before `max_*_samples`, printing where they come from; what is not asked for is empty.

    Evaluation and prediction take their rows from `eval_dataset`, else from a split that the named data set brings,
    else from a seeded split of `dataset`. That split is the same with and without `do_train`, so that the rows held out
    of training are the ones that a later run predicts on.
    """
    other = getattr(args, "eval_dataset", None)
    wants_eval = args.do_eval or args.do_predict
    if not (args.do_train or wants_eval):
        return [], []
    tables = load_tables(args.dataset, "--dataset", args) if args.do_train or not other else {}
    eval_tables = load_tables(other, "--eval_dataset", args) if other and wants_eval else tables
    # A file that was named for evaluation has one split, "train".
    eval_splits = [split for split in (*EVAL_SPLITS, *(["train"] if other else [])) if split in eval_tables]
    if not wants_eval or eval_splits:
        train = _format(tables["train"], args).rows if args.do_train else []
        return train, _format(eval_tables[eval_splits[0]], args).rows if wants_eval else []
    examples = _format(tables["train"], args)
    count = count_held_out(args.eval_dataset_size, len(examples.rows), examples.source)
    seed = args.seed if getattr(args, "data_seed", None) is None else args.data_seed
    train, held_out = split_indices(len(examples.rows), count, seed)
    _say(f"{len(examples.rows):,} kept = {len(train):,} train + {count:,} held out (seed {seed})")
    return [examples.rows[index] for index in train], [examples.rows[index] for index in held_out]


def _first(rows: list[dict], limit: int | None, flag: str) -> list[dict]:
    if limit is not None and limit < 1:
        raise DataError(f"{flag} {limit}: at least 1 row is needed; leave the flag out to take all {len(rows):,}")
    return rows[:limit]


# The module


def make_data_module(tokenizer: Any, args: Any, rows: tuple[list[dict], list[dict]] | None = None) -> dict[str, Any]:
    """Load, format, check and split what the flags in `args` name, and print the row counts.

    `rows` are those that `load_rows` gave, where it was called before.

    Returns:
        train_dataset (None without `do_train`), eval_dataset (None without `do_eval`) and predict_dataset (None without
        `do_predict`; the same rows), each a `datasets.Dataset` in the order of the file, with columns `input`, `output`
        and the record's other fields; where batches are grouped by length, train_dataset also has `length`, the tokens
        of source and target after the cuts. data_collator makes the batches.

    Raises:
        DataError: the data cannot be used as asked; the message is for the user.
    """
    from data.collator import DataCollatorForCausalLM  # brings torch

    collator = DataCollatorForCausalLM(
        tokenizer=tokenizer,
        source_max_len=args.source_max_len,
        target_max_len=args.target_max_len,
        train_on_source=args.train_on_source,
        predict_with_generate=args.predict_with_generate,
    )
    wants_eval = args.do_eval or args.do_predict
    all_train, all_eval = rows or load_rows(args)
    train = _first(all_train, args.max_train_samples, "--max_train_samples") if args.do_train else []
    held_out = _first(all_eval, args.max_eval_samples, "--max_eval_samples")
    used = [f"{len(train):,} of {len(all_train):,} train"] if args.do_train else []
    used += [f"{len(held_out):,} of {len(all_eval):,} eval"] if wants_eval else []
    _say(f"used: {', '.join(used) or 'no'} rows")
    grouped = "group_by_length" if getattr(args, "group_by_length", False) else "random"
    if (getattr(args, "train_sampling_strategy", None) or grouped) in ("group_by_length", "batch_rebalance"):
        column = getattr(args, "length_column_name", "length")
        train = [row | {column: length} for row, length in zip(train, collator.lengths(train), strict=True)]
    eval_dataset = to_dataset(held_out) if wants_eval else None
    return {
        "train_dataset": to_dataset(train) if args.do_train else None,
        "eval_dataset": eval_dataset if args.do_eval else None,
        "predict_dataset": eval_dataset if args.do_predict else None,
        "data_collator": collator,
    }


def _say(text: str) -> None:
    if int(os.environ.get("RANK", "0")) == 0:  # under a launcher, one process speaks for all
        print("\n".join(f"data: {line}" for line in text.splitlines()), flush=True)
