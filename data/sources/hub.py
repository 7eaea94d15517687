"""Named data sets → their splits, as sources of records.

A file is a data set whose only split is called train:

    source = open_sources("dolly", "--dataset", cache_dir=None, token=False)["train"]
"""

from functools import partial
from typing import TYPE_CHECKING

from common.errors import DataError
from data.named import NAMED_DATASETS
from data.sources.files import Source, open_file

if TYPE_CHECKING:
    from datasets import Dataset

# The first of these splits that a data set of the hub has serves as its evaluation rows.
EVAL_SPLITS = ("eval", "validation", "test")


def open_sources(name: str, flag: str, cache_dir: str | None, token: bool) -> dict[str, Source]:
    """Return the splits of a named data set, or a file as the one split "train".

    Args:
        flag: what names it, for messages.
        cache_dir: where the library keeps what it downloads; None for its own place.
        token: whether a stored token of the hub is required and sent.

    Raises:
        DataError: it cannot be read.
    """
    if name not in NAMED_DATASETS:
        return {"train": open_file(name)}
    import datasets

    row = NAMED_DATASETS[name]
    try:
        splits = datasets.load_dataset(**row.source, cache_dir=cache_dir, token=True if token else None)
    except Exception as error:  # the network, the hub and the cache raise many kinds, and the advice is one
        raise DataError(_how_to_go_on(name, flag, datasets.config.HF_HUB_OFFLINE, error)) from error
    return {
        split: Source(
            name=f"{name} ({row.source['path']}, split {split})",
            records=partial(enumerate, splits[split], 1),
            unit="row",
            digest=fingerprint(splits[split]),
            format=row.format,
        )
        for split in ("train", *[split for split in EVAL_SPLITS if split in splits][:1])
    }


def fingerprint(dataset: "Dataset") -> str:
    """Return what changes with the content of a `datasets.Dataset`; the library has no public name for it.

    https://github.com/huggingface/datasets/blob/5.2.0/src/datasets/fingerprint.py
    """
    return dataset._fingerprint


def _how_to_go_on(name: str, flag: str, offline: bool, error: Exception) -> str:
    row = NAMED_DATASETS[name]
    repository = row.source["path"]
    branch = f" --revision {row.source['revision']}" if "revision" in row.source else ""
    fetch = f"hf download {repository} --repo-type dataset{branch} --local-dir DIR"
    offline_note = "HF_HUB_OFFLINE is set, so only the local cache was searched\n" if offline else ""
    return (
        f"{flag} {name}: {repository} could not be loaded from the Hugging Face hub ({type(error).__name__}: {error})\n"
        f"{offline_note}without a network here, run this where there is one: {fetch}\n"
        f"then copy its data file here and pass it: {flag} FILE --dataset_format {row.format}"
    )
