"""Formatted rows → token ids and labels, once: kept on disk under a key of all that they depend on.

The rows come back with the columns of `RowEncoder`, those that cannot be trained on apart:

    rows, dropped = tokenize(rows, encoder, cache)
    lengths = column(rows, "length")  # int64 array (rows,)
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from data.cache import cannot_write, key_of
from data.tokens.encoder import CONVERSATION_COUNTS, TEXT_COUNTS, RowEncoder

if TYPE_CHECKING:
    from datasets import Dataset, Features

BATCH = 1000  # rows tokenized at once
FEW_ROWS = 5000  # a progress bar for fewer only flickers


def tokenize(rows: "Dataset", encoder: RowEncoder, cache: Path) -> tuple["Dataset", "Dataset"]:
    """Return (rows with token columns, rows that are dropped), each a `datasets.Dataset`; shows progress.

    The result of the same rows and encoder is read from the disk.
    """
    import datasets

    key = key_of(_rows_key(rows), encoder.key)
    place = cache / f"tokens-{key}.arrow"
    quiet = len(rows) < FEW_ROWS and not datasets.are_progress_bars_disabled()
    if quiet:
        datasets.disable_progress_bars()
    try:
        rows = _mapped(rows, encoder, key, place)
    finally:
        if quiet:
            datasets.enable_progress_bars()
    usable = column(rows, "length") > 0
    return rows.select(numpy.flatnonzero(usable)), rows.select(numpy.flatnonzero(~usable))


def _mapped(rows: "Dataset", encoder: RowEncoder, key: str, place: Path) -> "Dataset":
    """Return the rows with their tokens, from the file `place` where it is there; a damaged one is written anew."""
    import pyarrow

    for is_last in (False, True):
        try:
            return rows.map(
                encoder,
                batched=True,
                batch_size=BATCH,
                features=_features(rows.features),
                cache_file_name=str(place),
                load_from_cache_file=True,
                new_fingerprint=key,
                desc="tokenizing",
            )
        except (OSError, pyarrow.ArrowException) as error:
            if is_last or not place.exists():
                raise cannot_write(place.parent, error) from error
            place.unlink()


def column(rows: "Dataset", name: str) -> numpy.ndarray:
    """Return an integer column as an int64 array (rows,), in the order of the data set."""
    values = rows.data.column(name).to_numpy().astype("int64")
    # The public `rows[name]` reads a data set that was selected from row by row: 5 s for 53,000 rows, not 0.1.
    return values if rows._indices is None else values[rows._indices.column(0).to_numpy()]


def _rows_key(rows: "Dataset") -> str:
    """Return a key of all that the rows hold; the texts that are trained on by the hashes that stand beside them."""
    digest = hashlib.sha256()
    columns = rows.select_columns(["key", "place", "splits", "file", "fields"]).with_format("arrow")
    for batch in columns.iter(BATCH):
        for name in ("key", "place", "splits"):
            digest.update(batch[name].combine_chunks().to_numpy(zero_copy_only=False).tobytes())
        for name in ("file", "fields"):
            digest.update("\0".join(batch[name].to_pylist()).encode())
    return digest.hexdigest()


def _features(features: "Features") -> "Features":
    """Return the columns of tokenized rows, of those of formatted rows."""
    import datasets

    ids, count = datasets.List(datasets.Value("int32")), datasets.Value("int32")
    columns = {"input_ids": ids, "labels": ids, "prompt_ids": ids, "dropped": datasets.Value("string")}
    counts = ("length", "supervised", "prompt_length", *TEXT_COUNTS, *CONVERSATION_COUNTS)
    return datasets.Features({**features, **columns, **{name: count for name in counts}})
