"""Which flag values would fit the data better: what an expert would say who reads the report of `data.report.text`.

The report is that of `data.report.numbers.build_report`:

    for line in advise(report):
        print(line)
"""

import math
from collections.abc import Mapping

from common.text import percent
from data.rows import count_dropped

ROUND_TO = 64  # tokens; what is advised is a multiple of it
MUCH_PADDING = 0.15  # of the tokens of a batch
FEW_SUPERVISED = 0.05  # of the tokens of the rows
FAR = 8  # times a limit: a row that is that long is an outlier
MUCH_DROPPED = 0.1  # of the rows of a source
FEW_PACKED = 2  # rows to a sequence
MANY_PASSES = 10  # over the same rows
FEWER_BATCHES = 0.5  # of today's micro-batches: a budget of tokens is advised where it needs no more
# For each limit: what it does to rows, and what text it takes from them.
CUT = {"source": ("lose the end of the prompt", "prompt"), "target": ("lose the end of an answer", "answer")}


def advise(report: Mapping) -> list[str]:
    """Return flag values that would fit the data better, one line each, with the numbers that say so.

    Limits that are longer than needed are passed over: rows are padded to the longest one of their batch, not to a
    limit.
    """
    split, limits, batching = report["train"] or report["eval"], report["limits"], report["batching"]
    if not split or not split["rows"]:
        return []
    lines = [_advise_dropped(source) for source in report["sources"]]
    lines += [advise_limit(kind, split[kind]["cut"], limits) for kind in ("target", "source")]
    if report["train"]:
        lines += [
            _advise_packing(split, batching),
            _advise_padding(batching),
            _advise_micro_batches(split, batching),
            _advise_passes(split, limits, batching),
            _advise_supervision(split, limits),
        ]
    return [line for line in lines if line]


def _round_up(tokens: float) -> int:
    return math.ceil(tokens / ROUND_TO) * ROUND_TO


def _advise_dropped(source: Mapping) -> str | None:
    dropped = count_dropped(source)
    rows = dropped + source["rows"]
    if dropped <= MUCH_DROPPED * rows:
        return None
    return f"look at {source['source']}: {percent(dropped / rows)} of its rows were dropped, for the reasons above"


def _advise_packing(split: Mapping, batching: Mapping) -> str | None:
    """Advise longer sequences where hardly two rows fit into one, which packing then only makes slower."""
    if batching.get("strategy") != "packed":
        return None
    sequences, rows = batching["micro_batches"], batching["rows_per_process"]
    if not FEW_PACKED <= rows < FEW_PACKED * sequences:
        return None
    return (
        f"--max_tokens_per_batch {_round_up(4 * split['tokens'] / split['rows'])}: packing puts "
        f"{rows / sequences:,.1f} rows in a sequence as it is; that long, a sequence holds about 4"
    )


def advise_limit(kind: str, cut: Mapping, limits: Mapping) -> str | None:
    """Advise a limit that cuts next to nothing; one that cuts nothing where that costs little more.

    Args:
        kind: "source" or "target".
        cut: what the limit took; see `data.report.numbers.describe_cut`.
        limits: the flags that cut.
    """
    flag, context, (loss, text) = f"{kind}_max_len", limits.get("context"), CUT[kind]
    if not cut["rows"]:
        return None
    limit = limits[flag]
    for_most, for_all = (_round_up(limit + cut[name]) for name in ("p99", "max"))
    longer, whole = (for_all, "all of them") if for_all <= 1.25 * for_most else (for_most, "99%")
    if whole == "99%" and not cut["p99"]:
        return None
    losses = f"{percent(cut['rows_share'])} of the rows {loss}, {percent(cut['tokens_share'])} of all {text} text"
    if longer > FAR * limit:
        return f"{losses}; the longest would need --{flag} {longer} (now {limit}): look whether it belongs there"
    other_limit = limits["target_max_len" if kind == "source" else "source_max_len"]
    if context and longer + other_limit > context:
        return (
            f"{losses}: with --{flag} {longer} (now {limit}) {whole} would be whole, but this model was made for "
            f"{context:,} tokens in all"
        )
    return f"--{flag} {longer} (now {limit}): {losses}; {longer} keeps {whole} whole, at more memory"


def _advise_padding(batching: Mapping) -> str | None:
    if batching.get("padding_share", 0) <= MUCH_PADDING:
        return None
    share = f"{percent(batching['padding_share'])} of what is computed is padding"
    if batching["strategy"] == "random":
        return (
            f"--group_by_length True: {share}; rows of a step that are alike in length need less of it, --packing none"
        )
    return f"--packing True: {share}, though rows of a step are batched by length; packed rows need none"


def _advise_micro_batches(split: Mapping, batching: Mapping) -> str | None:
    """Advise to fill micro-batches with tokens where most are far smaller than the largest, which fits as it is."""
    if batching.get("strategy") not in ("random", "split"):
        return None
    batches, largest, mean = batching["micro_batches"], batching["largest"], split["tokens"] / split["rows"]
    budget = _round_up(largest)
    fewer = math.ceil(split["rows"] / batching["steps"] / (budget // mean))
    if fewer > FEWER_BATCHES * batches:
        return None
    return (
        f"--max_tokens_per_batch {budget}: the same steps in about {fewer:,} micro-batches each, not {batches:,.0f}; "
        f"the largest has {largest:,} tokens now, a row {mean:,.0f} on average, so memory stays as it is"
    )


def _advise_passes(split: Mapping, limits: Mapping, batching: Mapping) -> str | None:
    steps, rows = limits["max_steps"], batching["rows_per_step"]
    passes = steps * rows / split["rows"]
    if passes <= MANY_PASSES:
        return None
    return (
        f"--max_steps -1 --num_train_epochs 3: {steps:,} steps of {rows:,} rows are {passes:,.0f} passes over "
        f"{split['rows']:,} rows, which are then learned by heart"
    )


def _advise_supervision(split: Mapping, limits: Mapping) -> str | None:
    share = split["supervised"]["share"]
    if not 0 < share < FEW_SUPERVISED or limits["train_on_source"]:
        return None
    return (
        f"--train_on_source True: only {percent(share)} of the tokens are supervised; with long prompts and short "
        "answers, learning the prompts too often helps (https://arxiv.org/abs/2405.14394)"
    )
