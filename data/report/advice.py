"""Which flag values would fit the data better: what an expert would say who reads the report of `data.report.text`.

for line in advise(report):
    print(line)
"""

import math
from collections.abc import Mapping

from common.text import percent

WHOLE_EPOCH = ("group_by_length", "batch_rebalance")  # orders of the library that sort more than the rows of a step
ROUND_TO = 64  # tokens; what is advised is a round number
MUCH_PADDING = 0.15  # of the tokens of a batch
FEW_SUPERVISED = 0.05  # of the tokens of the rows
FAR = 8  # times a limit: a row that is that long is an outlier
MUCH_DROPPED = 0.1  # of the rows of a source
FEW_PACKED = 2  # rows to a sequence
MANY_PASSES = 10  # over the same rows
FEWER_PASSES = 0.5  # what is advised takes at most this share of the micro-batches


def advise(report: Mapping) -> list[str]:
    """Return flag values that would fit the data better, one line each, with the numbers that say so.

    Limits that are longer than needed are passed over: rows are padded to the longest one of their batch, not to a
    limit.
    """
    split = report["train"] or report["eval"]
    if not split or not split["rows"]:
        return []
    lines = [_advise_dropped(source) for source in report["sources"]]
    lines += [_advise_target(split, report["limits"]), _advise_source(split, report["limits"])]
    if report["train"]:
        lines += [
            _advise_packing(split, report["batching"]),
            _advise_padding(report["batching"]),
            _advise_micro_batches(split, report["batching"]),
            _advise_passes(split, report),
            _advise_supervision(split, report["limits"]),
        ]
    return [line for line in lines if line]


def _advise_dropped(source: Mapping) -> str | None:
    lost = sum(what["rows"] for what in source.get("dropped", {}).values())
    if not lost or lost <= MUCH_DROPPED * (lost + source["rows"]):
        return None
    share = percent(lost / (lost + source["rows"]))
    return f"look at {source['source']}: {share} of its rows were dropped, for the reasons above"


def _advise_packing(split: Mapping, batching: Mapping) -> str | None:
    """Advise longer sequences where hardly two rows fit into one, which packing then only makes slower."""
    sequences, rows = batching.get("micro_batches"), batching.get("rows_per_process")
    if batching.get("strategy") != "packed" or not sequences or not rows or rows >= FEW_PACKED * sequences:
        return None
    if rows < FEW_PACKED:
        return None
    length = -(-4 * split["tokens"] // split["rows"] // ROUND_TO) * ROUND_TO
    return (
        f"--max_tokens_per_batch {length}: packing puts {rows / sequences:,.1f} rows in a sequence as it is; that "
        "long, a sequence holds about 4"
    )


def _longer_limit(cut: Mapping, limit: int) -> tuple[int, str] | None:
    """Return a limit that cuts next to nothing and how many rows it holds whole; all where that costs little more."""
    if not cut["rows"]:
        return None
    most, every = (-(-(limit + cut[name]) // ROUND_TO) * ROUND_TO for name in ("p99", "max"))
    if every <= 1.25 * most:
        return every, "all of them"
    return (most, "99%") if cut["p99"] else None


def _advise_target(split: Mapping, limits: Mapping) -> str | None:
    return advise_limit("target_max_len", split["target"]["cut"], limits, "lose the end of an answer", "answer")


def _advise_source(split: Mapping, limits: Mapping) -> str | None:
    return advise_limit("source_max_len", split["source"]["cut"], limits, "lose the end of the prompt", "prompt")


def advise_limit(flag: str, cut: Mapping, limits: Mapping, what: str, kind: str) -> str | None:
    limit, context = limits.get(flag), limits.get("context")
    longer = _longer_limit(cut, limit) if limit else None
    if longer is None:
        return None
    lost = f"{percent(cut['rows_share'])} of the rows {what}, {percent(cut['tokens_share'])} of all {kind} text"
    if longer[0] > FAR * limit:
        return f"{lost}; the longest would need --{flag} {longer[0]} (now {limit}): look whether it belongs there"
    rest = limits.get("target_max_len" if flag == "source_max_len" else "source_max_len", 0)
    if context and longer[0] + rest > context:
        return (
            f"{lost}: with --{flag} {longer[0]} (now {limit}) {longer[1]} would be whole, but this model was made for "
            f"{context:,} tokens in all"
        )
    return f"--{flag} {longer[0]} (now {limit}): {lost}; {longer[0]} keeps {longer[1]} whole, at more memory"


def _advise_padding(batching: Mapping) -> str | None:
    share = batching.get("padding_share")
    if not share or share <= MUCH_PADDING or batching.get("train_sampling_strategy") in WHOLE_EPOCH:
        return None
    what = f"{percent(share)} of what is computed is padding"
    if batching.get("strategy") == "random":
        return (
            f"--group_by_length True: {what}; rows of a step that are alike in length need less of it, --packing none"
        )
    return f"--packing True: {what}, though rows of a step are batched by length; packed rows need none"


def _advise_micro_batches(split: Mapping, batching: Mapping) -> str | None:
    """Advise to fill micro-batches with tokens where most are far smaller than the largest, which fits as it is."""
    now, largest = batching.get("micro_batches"), batching.get("largest")
    if not now or not largest or batching.get("strategy") not in ("random", "split"):
        return None
    if batching.get("train_sampling_strategy") in WHOLE_EPOCH:
        return None
    budget = -(-largest // ROUND_TO) * ROUND_TO
    mean = split["tokens"] / split["rows"]
    passes = math.ceil(split["rows"] / batching["steps"] / (budget // mean))
    if passes > FEWER_PASSES * now:
        return None
    return (
        f"--max_tokens_per_batch {budget}: the same steps in about {passes:,} micro-batches each, not {now:,.0f}; the "
        f"largest has {largest:,} tokens now, a row {mean:,.0f} on average, so memory stays as it is"
    )


def _advise_passes(split: Mapping, report: Mapping) -> str | None:
    steps, rows = report["limits"].get("max_steps"), report["batching"].get("rows_per_step")
    if not steps or not rows or steps * rows <= MANY_PASSES * split["rows"]:
        return None
    passes = steps * rows / split["rows"]
    return (
        f"--max_steps -1 --num_train_epochs 3: {steps:,} steps of {rows:,} rows are {passes:,.0f} passes over "
        f"{split['rows']:,} rows, which are then learned by heart"
    )


def _advise_supervision(split: Mapping, limits: Mapping) -> str | None:
    share = split["supervised"]["share"]
    if not 0 < share < FEW_SUPERVISED or limits.get("train_on_source"):
        return None
    return (
        f"--train_on_source True: only {percent(share)} of the tokens are supervised; with long prompts and short "
        "answers, learning the prompts too often helps (https://arxiv.org/abs/2405.14394)"
    )
