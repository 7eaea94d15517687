"""What the data is like, in numbers: lengths of the tokenized rows, what was dropped and cut, and what is repeated.

    report = build_report(sources, {"train": train, "eval": None}, limits, batching, count_duplicates(train, None))

A quantile is a length that occurs: p99 is the shortest that at least 99 % of the rows do not exceed.
"""

import math
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from arguments.library_flags import GROUPING_STRATEGIES
from arguments.training import TrainingArguments
from common.launcher import processes
from data.batches.shared import SharedStepCollator, size_of
from data.batches.steps import StepCollator, padding_share
from data.report.advice import advise
from data.selection import Use
from data.tokens.encoder import TEXT_COUNTS
from data.tokens.store import column

if TYPE_CHECKING:
    from datasets import Dataset

SAMPLED_ROWS = 1024  # of which it is counted how much of them is shared
PERCENTS = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
COLUMNS = ("length", *TEXT_COUNTS, "supervised")
# These are counted in conversations; beside each, what it means.
CONVERSATIONS = {
    "unclosed": "answers before the last one are closed by nothing in the chat template: they do not teach to stop",
    "hidden_thoughts": "answers have a thought that the chat template leaves out: it is not learned",
    "hidden_turns": "turns (system, user or tool) are left out by the chat template: the model does not see them",
    "hidden_tools": "tools are left out by the chat template: the model does not see them",
}


def describe(dataset: "Dataset") -> dict[str, Any]:
    """Return the numbers of a tokenized split; every length is in tokens, every share between 0 and 1.

    Args:
        dataset: a `datasets.Dataset` with the integer columns of COLUMNS: `length` after the cuts, `source_tokens` and
            `target_tokens` before them, `source_cut` and `target_cut` cut off, `supervised` labels that count; and
            those of CONVERSATIONS.

    Returns:
        rows: how many.
        tokens: all of them, after the cuts.
        source, target: p50, p90, p99 and max before the cuts, and `cut`: see `describe_cut`.
        whole: the same of whole rows, p50 to max after the cuts.
        supervised: tokens, tokens per_row (mean), share of all tokens, and rows_without any.
        conversations: how much in them is as CONVERSATIONS says; see `data.tokens.encoder`.
    """
    length, source, target, source_cut, target_cut, supervised = (column(dataset, name) for name in COLUMNS)
    rows, tokens, supervised_tokens = len(length), int(length.sum()), int(supervised.sum())
    return {
        "rows": rows,
        "tokens": tokens,
        "source": quantiles(source) | {"cut": describe_cut(source_cut, source)},
        "target": quantiles(target) | {"cut": describe_cut(target_cut, target)},
        "whole": quantiles(length) | {"cut": describe_cut(source_cut + target_cut, source + target)},
        "supervised": {
            "tokens": supervised_tokens,
            "per_row": share(supervised_tokens, rows),
            "share": share(supervised_tokens, tokens),
            "rows_without": int((supervised == 0).sum()),
        },
        "conversations": {name: int(column(dataset, name).sum()) for name in CONVERSATIONS},
    }


def quantiles(values: numpy.ndarray) -> dict[str, int]:
    """Return p50, p90, p99 and max of an integer array (rows,); 0 where there is no row."""
    if not len(values):
        return dict.fromkeys(PERCENTS, 0)
    lengths = numpy.percentile(values, list(PERCENTS.values()), method="inverted_cdf")
    return dict(zip(PERCENTS, map(int, lengths), strict=True))


def describe_cut(cut: numpy.ndarray, tokens: numpy.ndarray) -> dict[str, Any]:
    """Return what limits took from texts: rows and tokens with their shares; p99 and max of the tokens of one row.

    Args:
        cut: integer array (rows,), tokens cut off.
        tokens: integer array (rows,), tokens before that.
    """
    rows, tokens_cut, lengths = int((cut > 0).sum()), int(cut.sum()), quantiles(cut)
    shares = {"rows_share": share(rows, len(cut)), "tokens_share": share(tokens_cut, int(tokens.sum()))}
    return {"rows": rows, "tokens": tokens_cut, **shares, "p99": lengths["p99"], "max": lengths["max"]}


def share(part: int, whole: int) -> float:
    """Return a part of a whole, 0 of nothing."""
    return part / whole if whole else 0.0


def build_report(
    sources: Sequence[Mapping],
    splits: "Mapping[str, Dataset | None]",
    limits: Mapping[str, Any],
    batching: Mapping[str, Any],
    duplicates: Mapping[str, int],
) -> dict[str, Any]:
    """Return what goes to data_report.json.

    Args:
        sources: see `source_report`.
        splits: `train` and `eval`, each a tokenized `datasets.Dataset` or None.
        limits: the flags that cut, and the `context` that the model was made for.
        batching: see `count_batches`.
        duplicates: see `count_duplicates`.

    Returns:
        sources, limits, batching and duplicates as given; train and eval as `describe` has them, or None; advice: see
        `data.report.advice`.
    """
    numbers = {name: None if splits[name] is None else describe(splits[name]) for name in ("train", "eval")}
    report = {"sources": list(sources), **numbers, "duplicates": duplicates, "limits": limits, "batching": batching}
    return report | {"advice": advise(report)}


def source_report(use: Use, dropped: Sequence[tuple[str, str, str, int]]) -> dict[str, Any]:
    """Return what became of the records of one source.

    Args:
        use: the source.
        dropped: rows that tokenizing dropped of its splits: (split, file, reason, place).

    Returns:
        What `data.rows.Account.summary` says of it, with use, used (rows), digest, and weight where it has one.
    """
    its_own = [(reason, place) for _, file, reason, place in dropped if file == use.account.source]
    weight = {} if use.weight is None else {"weight": use.weight}
    return use.account.summary(its_own) | {"use": use.purpose, "used": len(use.rows), "digest": use.digest} | weight


def count_batches(
    train: "Dataset | None", step: StepCollator | SharedStepCollator | None, training: TrainingArguments
) -> dict[str, Any]:
    """Return how training rows are batched, and of what one epoch in a seeded order would be made.

    Args:
        train: tokenized rows, or None.
        step: makes the micro-batches of a step; None where the library does.
    """
    size, accumulation = training.per_device_train_batch_size, training.gradient_accumulation_steps
    batching = {
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": accumulation,
        "max_tokens_per_batch": training.max_tokens_per_batch,
        "packing": training.packing,
        "train_sampling_strategy": training.train_sampling_strategy or "random",
        "rows_per_step": size * accumulation * processes(),
    }
    if train is None or batching["train_sampling_strategy"] in GROUPING_STRATEGIES:
        return batching  # the library groups rows in its own way, which is not counted
    if isinstance(step, SharedStepCollator):
        return batching | sequence_share(train, size * accumulation, step)
    return batching | padding_share(column(train, "length").tolist(), size, accumulation, step)


def sequence_share(train: "Dataset", rows: int, step: SharedStepCollator) -> dict[str, Any]:
    """Count what steps in a seeded order would be made of, by the first of them.

    Args:
        train: tokenized rows.
        rows: those of a step, of one process.

    Returns:
        as `padding_share` (of which there is none), and `shared_share`: how much of all tokens need not be computed, as
        they stand once for several rows.
    """
    order = random.Random(0).sample(range(len(train)), min(len(train), max(SAMPLED_ROWS, rows)))
    steps = [train.select(order[start : start + rows]) for start in range(0, len(order), rows)]
    sequences = [step.plant(sampled.select_columns(["input_ids", "labels"]).to_list()) for sampled in steps]
    sizes = [size_of(pieces) for step_sequences in sequences for pieces in step_sequences]
    tokens = int(column(train.select(order), "length").sum())
    return {
        "padding_share": 0.0,
        "shared_share": 1 - sum(sizes) / tokens,
        "strategy": step.strategy,
        "rows_per_process": rows,
        "steps": math.ceil(len(train) / rows),
        "micro_batches": len(sizes) / len(steps),
        "largest": max(sizes),
    }


def count_duplicates(train: "Dataset | None", held_out: "Dataset | None") -> dict[str, int]:
    """Count rows that repeat an earlier one of their split, and evaluation rows that are trained on (`both`)."""
    keys = {name: row_keys(rows) for name, rows in (("train", train), ("eval", held_out)) if rows is not None}
    counts = {name: len(values) - len(numpy.unique(values)) for name, values in keys.items()}
    if len(keys) == 2:
        counts["both"] = int(numpy.isin(keys["eval"], keys["train"]).sum())
    return counts


def row_keys(rows: "Dataset") -> numpy.ndarray:
    """Return the hash of each row; of a long text that was split, that of its first piece alone."""
    keys, places, splits = (column(rows, name) for name in ("key", "place", "splits"))
    repeats = (numpy.diff(keys) == 0) & (numpy.diff(places) == 0) & (splits[1:] == 1)
    return keys[numpy.concatenate([[True], ~repeats])]
