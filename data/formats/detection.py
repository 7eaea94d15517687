"""Which format the records of a file are in: by name, or by the columns of the first record.

Both give a `data.formats.registry.Format`:

    detect_format({"instruction": "Add.", "input": "1 2", "output": "3"}).name  # "alpaca"
    find_format("alpaca-clean").name                                            # "alpaca"
"""

import difflib
from collections.abc import Mapping

from common.errors import DataError
from data.formats.registry import FORMATS, Format, waits
from data.named import NAMED_DATASETS


def as_question(record: Mapping, row: Format) -> Mapping:
    """Return a record that lacks its answer with an empty one in its place; any other as it is."""
    if row.answer is not None and record.get(row.answer) is None:
        return {**record, row.answer: ""}
    turns = record.get(row.columns[0]) if row.chat else None
    if waits(turns):
        return {**record, row.columns[0]: [*turns, {"role": "assistant", "content": ""}]}
    return record


def detect_format(first: Mapping, questions: bool = False) -> Format:
    """Return the first format whose columns are all in `first`, the first record, and that it looks like.

    A column that is null counts as one that is there only for the answer, and where nothing fits otherwise. With
    `questions`, the column of the answer may be absent.

    Raises:
        DataError: nothing fits; names the columns found and what each format needs.
    """
    filled = {name for name, value in first.items() if value is not None}
    for columns_of in (
        lambda row: filled | {row.answer, *row.nullable} & first.keys(),
        lambda row: filled | {row.answer} if questions else filled,
        lambda row: first.keys(),
    ):
        for row in FORMATS.values():
            if columns_of(row) >= set(row.columns) and row.looks_right(first):
                return row
    problem = f"no format fits its columns: {', '.join(map(repr, first)) or 'none'}"
    if hint := _misspelt(first):
        raise DataError(f"{problem}\n{hint}")
    needs = "\n".join(
        f"  {row.name}: {', '.join(row.columns)}" + (f" ({row.looks})" if row.looks else "") for row in FORMATS.values()
    )
    raise DataError(
        f"{problem}\nformats and the columns that each needs:\n{needs}\n"
        "rename the columns, or try --dataset_format with the name of the format that is meant"
    )


def _misspelt(first: Mapping) -> str:
    """Return what to do where the columns are nearly those of a format, or the rows seem to stand in one of them."""
    plain = {str(name).strip().lower(): name for name in first}
    for row in FORMATS.values():
        missing = [column for column in row.columns if column not in first]
        nearest = [difflib.get_close_matches(column.lower(), plain, n=1, cutoff=0.8) for column in missing]
        if missing and all(nearest):
            changes = (f"{plain[name]!r} to {column!r}" for column, [name] in zip(missing, nearest, strict=True))
            return f"rename {' and '.join(changes)} (format {row.name})"
    for row in FORMATS.values():
        if row.answer in row.columns and all(column in first for column in row.columns if column != row.answer):
            return (
                f"there is no {row.answer!r} (format {row.name}): rename the column that holds the answer, or, to "
                "predict one, give the file as --eval_dataset, with --do_predict and without --do_eval"
            )
    for name, value in first.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            return f"are the rows the list in {name!r}? Write it to a file of its own: jq .{name} FILE"
    return ""


def find_format(name: str) -> Format:
    """Return the format called `name`, or that of the data set of this name (published scripts say alpaca-clean).

    Raises:
        DataError: there is no such format; gives the nearest name and the list.
    """
    aliases = {alias: row for row in FORMATS.values() for alias in row.aliases}
    formats = {data_set: FORMATS[row.format] for data_set, row in NAMED_DATASETS.items()} | aliases | FORMATS
    if name in formats:
        return formats[name]
    question = did_you_mean(name, {other: other for other in formats})
    raise DataError(f"--dataset_format {name}: unknown{question}\nformats: {', '.join(FORMATS)}")


def did_you_mean(name: str, meanings: Mapping[str, str]) -> str:
    """Return a question that ends a message: what the name nearest to `name` means; "" where none is near."""
    nearest = difflib.get_close_matches(name, meanings, n=1)
    return f"; did you mean {meanings[nearest[0]]}?" if nearest else ""
