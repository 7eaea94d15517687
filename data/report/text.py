"""What the data is like: numbers of the tokenized rows, what was dropped and cut, which flags would fit better.

    report = build_report(sources, {"train": train, "eval": held_out}, {"padding_share": 0.03}, args, duplicates)
    print(format_report(report))
    write_report(report, args.output_dir)  # data_report.json

A quantile is a length that occurs: p99 is the shortest that at least 99 % of the rows do not exceed.
"""

import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.report.advice import WHOLE_EPOCH, advise, percent

REPORT_FILE = "data_report.json"
PERCENTS = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
COLUMNS = ("length", "source_tokens", "target_tokens", "source_cut", "target_cut", "supervised")
# What is counted in conversations, and what it means.
CONVERSATIONS = {
    "unclosed": "answers before the last one are closed by nothing in the chat template: they do not teach to stop",
    "hidden_thoughts": "answers have a thought that the chat template leaves out: it is not learned",
    "hidden_turns": "turns (system, user or tool) are left out by the chat template: the model does not see them",
    "hidden_tools": "tools are left out by the chat template: the model does not see them",
}
LIMITS = ("source_max_len", "target_max_len", "train_on_source", "max_steps", "context")
BATCHING = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_tokens_per_batch",
    "packing",
    "train_sampling_strategy",
)
PLACES_SHOWN = 5
NAMES_SHOWN = 30
WIDTH = 118  # characters of a printed line


# The numbers


def describe(dataset: Any) -> dict[str, Any]:
    """Return the numbers of a tokenized split; every length is in tokens, every share between 0 and 1.

    Args:
        dataset: a `datasets.Dataset` with the integer columns of COLUMNS: `length` after the cuts, `source_tokens` and
            `target_tokens` before them, `source_cut` and `target_cut` cut off, `supervised` labels that count; and
            those of CONVERSATIONS.

    Returns:
        rows: how many.
        tokens: all of them, after the cuts.
        source, target: p50, p90, p99 and max before the cuts, and `cut`: see `_describe_cut`.
        whole: the same of whole rows, p50 to max after the cuts.
        supervised: tokens, tokens per_row (mean), share of all tokens, and rows_without any.
        conversations: how much in them is as CONVERSATIONS says; see `data.tokens.encoder`.
    """
    from data.tokens.encoder import column  # brings torch

    length, source, target, source_cut, target_cut, supervised = (column(dataset, name) for name in COLUMNS)
    rows, tokens, counted = len(length), int(length.sum()), int(supervised.sum())
    return {
        "rows": rows,
        "tokens": tokens,
        "source": _quantiles(source) | {"cut": _describe_cut(source_cut, source)},
        "target": _quantiles(target) | {"cut": _describe_cut(target_cut, target)},
        "whole": _quantiles(length) | {"cut": _describe_cut(source_cut + target_cut, source + target)},
        "supervised": {
            "tokens": counted,
            "per_row": _share(counted, rows),
            "share": _share(counted, tokens),
            "rows_without": int((supervised == 0).sum()),
        },
        "conversations": {name: int(column(dataset, name).sum()) for name in CONVERSATIONS},
    }


def _quantiles(values: Any) -> dict[str, int]:
    """Return p50, p90, p99 and max of an integer array (rows,); 0 where there is no row."""
    import numpy

    ordered = numpy.sort(values)
    # In whole numbers, as 0.99 * rows would round up past the row that is meant.
    return {
        name: int(ordered[-(-percent * len(ordered) // 100) - 1]) if len(ordered) else 0
        for name, percent in PERCENTS.items()
    }


def _describe_cut(cut: Any, tokens: Any) -> dict[str, Any]:
    """Return what limits took from texts: rows and tokens with their shares; p99 and max are tokens cut from one row.

    Args:
        cut: integer array (rows,), tokens cut off.
        tokens: integer array (rows,), tokens before that.
    """
    rows, lost = int((cut > 0).sum()), int(cut.sum())
    largest = _quantiles(cut)
    return {
        "rows": rows,
        "rows_share": _share(rows, len(cut)),
        "tokens": lost,
        "tokens_share": _share(lost, int(tokens.sum())),
        "p99": largest["p99"],
        "max": largest["max"],
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


# The report


def build_report(
    sources: Sequence[Mapping],
    splits: Mapping[str, Any],
    padding: Mapping,
    args: Any,
    duplicates: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Return what goes to data_report.json.

    Args:
        sources: for each file or data set: source, format, records, rows, dropped ({reason: {"rows": how many,
            "places": the first line numbers}}), and, where they apply, unit ("line" unless given), used (rows), weight,
            use ("train", "eval" or "both") and unused ({column or field that decides nothing: records that have it}).
        splits: `train` and `eval`, each a tokenized `datasets.Dataset` or None.
        padding: what `data.batches.steps.padding_share` found of the training batches, with `padding` as
            `padding_share`, and the `strategy` it was asked for; may be empty.
        args: every flag; those that are absent are left out.
        duplicates: how many rows of `train` and of `eval` repeat another one there, and how many of eval are in `both`.

    Returns:
        sources and duplicates as given; train and eval as `describe` has them, or None; limits and batching: the
        flags that cut and batch, the latter with rows_per_step (of all processes) and what `padding` holds;
        advice: see `advise`.
    """
    batching = {name: getattr(args, name) for name in BATCHING if hasattr(args, name)}
    report = {
        "sources": [dict(source) for source in sources],
        "train": None if splits.get("train") is None else describe(splits["train"]),
        "eval": None if splits.get("eval") is None else describe(splits["eval"]),
        "duplicates": dict(duplicates or {}),
        "limits": {name: getattr(args, name) for name in LIMITS if hasattr(args, name)},
        "batching": batching | {"rows_per_step": _rows_per_step(batching)} | dict(padding),
    }
    return report | {"advice": advise(report)}


def _rows_per_step(batching: Mapping) -> int:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return batching.get("per_device_train_batch_size", 1) * batching.get("gradient_accumulation_steps", 1) * processes


def write_report(report: Mapping, output_dir: str | Path) -> Path:
    """Write data_report.json whole or not at all, and return its path."""
    path = Path(output_dir) / REPORT_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{REPORT_FILE}.{os.getpid()}")
    unfinished.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(unfinished, path)
    return path


# The text


def format_report(report: Mapping) -> str:
    """Return the report as text for a terminal: where rows went, a table of lengths, batching, advice."""
    splits = {name: report[name] for name in ("train", "eval") if report[name]}
    sizes = ", ".join(f"{split['rows']:,} {name}" for name, split in splits.items())
    lines = ["data report"]
    for source in report["sources"]:
        lines += _block("read", [_read(source)]) + _block("not used", _unused(source))
        lines += _block("dropped", _dropped(source))
    lines += _block("split", [sizes or "no rows"])
    lines += _block("duplicates", _duplicates(report["duplicates"]))
    lines += _table(splits)
    lines += _block("supervised", [f"{name}: {_supervised(split['supervised'])}" for name, split in splits.items()])
    counted = [line for name, split in splits.items() for line in _conversations(name, split["conversations"])]
    lines += _block("template", counted)
    lines += _block("batching", [_batching(report["batching"])] if report["train"] else [])
    return "\n".join(lines + _block("advice", report["advice"]))


def _block(label: str, texts: Sequence[str]) -> list[str]:
    """Return the lines of each text, folded, the first one after its label."""
    lines = []
    for text in texts:
        lines += textwrap.wrap(text, WIDTH - 15, break_long_words=False, break_on_hyphens=False)
    return [f"  {label + ':' if number == 0 else '':<13}{line}" for number, line in enumerate(lines)]


def _rows(count: int) -> str:
    return f"{count:,} row" if count == 1 else f"{count:,} rows"


def _read(source: Mapping) -> str:
    lost = sum(what["rows"] for what in source.get("dropped", {}).values())
    made = source["rows"] + lost
    read = _rows(made) if made == source["records"] else f"{_rows(made)} from {source['records']:,} records"
    said = f"{source['source']} ({source['format']}): {read}, {lost:,} dropped, {source['rows']:,} kept"
    if source.get("weight") is not None:
        said += f", {source.get('used', source['rows']):,} used (weight {source['weight']:g})"
    return said + ("; for evaluation" if source.get("use") == "eval" else "")


def _unused(source: Mapping) -> list[str]:
    """Return a text with the columns and fields that decide nothing, and how many records have something in them."""
    names = [f"{name} ({_rows(count)})" for name, count in source.get("unused", {}).items()]
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return [", ".join(names[:NAMES_SHOWN]) + more] if names else []


def _dropped(source: Mapping) -> list[str]:
    """Return a text for each reason: how many rows, and where the first of them stand."""
    texts, unit = [], source.get("unit", "line")
    for reason, what in source.get("dropped", {}).items():
        places = what["places"][:PLACES_SHOWN]
        more = f" and {what['rows'] - len(places):,} more" if what["rows"] > len(places) else ""
        where = f"{unit if what['rows'] == 1 else unit + 's'} {', '.join(map(str, places))}{more}"
        texts.append(f"{_rows(what['rows'])} ({where}): {reason}")
    return texts


def _duplicates(counts: Mapping[str, int]) -> list[str]:
    lines = [
        f"{_rows(counts[name])} of {name} repeat{'s' if counts[name] == 1 else ''} an earlier one"
        for name in ("train", "eval")
        if counts.get(name)
    ]
    if counts.get("both"):
        which = f"{_rows(counts['both'])} of eval {'is' if counts['both'] == 1 else 'are'} in train too"
        lines.append(f"{which}: what is measured there flatters")
    return lines


def _table(splits: Mapping[str, Mapping]) -> list[str]:
    """Return the lengths of each split, in aligned columns; nothing where there is no row."""
    if not splits:
        return []
    cells = [["tokens:", *PERCENTS, "rows cut", "tokens cut"]]
    for split, numbers in splits.items():
        for part in ("source", "target", "whole"):
            found, cut = numbers[part], numbers[part]["cut"]
            lost = [
                f"{cut[what]:,} ({percent(cut[what + '_share'])})" if cut[what] else "0" for what in ("rows", "tokens")
            ]
            cells.append([f"  {split} {part}", *(f"{found[name]:,}" for name in PERCENTS), *lost])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for name, *row in cells:
        right = "  ".join(cell.rjust(max(width, 6)) for cell, width in zip(row, widths[1:], strict=True))
        lines.append(f"  {name.ljust(max(widths[0], 13))}  {right}")
    limited = any(numbers["whole"]["cut"]["rows"] for numbers in splits.values())
    return lines + (["    source and target before the cuts, whole after them"] if limited else [])


def _supervised(counts: Mapping) -> str:
    without = f"; {_rows(counts['rows_without'])} without any" if counts["rows_without"] else ""
    return f"{counts['tokens']:,} tokens, {counts['per_row']:,.1f} per row, {percent(counts['share'])} of all{without}"


def _conversations(split: str, counts: Mapping) -> list[str]:
    return [f"{split}: {counts[name]:,} {what}" for name, what in CONVERSATIONS.items() if counts[name]]


def _batching(batching: Mapping) -> str:
    rows = _rows(batching.get("per_device_train_batch_size", 1))
    if batching.get("train_sampling_strategy") in WHOLE_EPOCH:  # in which nothing was counted
        return f"micro-batches of {rows}, {batching['train_sampling_strategy']}"
    made = {
        "random": f"of {rows} as they come",
        "split": f"of {rows} by length within a step",
        "budget": f"of up to {batching.get('max_tokens_per_batch') or 0:,} tokens by length within a step",
        "packed": "packed from the rows of a step",
    }.get(batching.get("strategy"), f"of {rows}")
    share, count = batching.get("padding_share"), batching.get("micro_batches")
    counts = [] if share is None else [f"{percent(share)} padding"]
    counts += (
        [] if count is None else [f"{count:,.1f} of them a step", f"the largest of {batching['largest']:,} tokens"]
    )
    return f"micro-batches {made}" + (f": {', '.join(counts)}" if counts else "")
