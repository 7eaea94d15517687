"""The data report as text for a terminal: where rows went, a table of lengths, batching, advice.

The report is that of `data.report.numbers.build_report`:

    print(format_report(report))
"""

import textwrap
from collections.abc import Mapping, Sequence

from common.text import counted, first_of, percent, table
from data.report.numbers import CONVERSATIONS, PERCENTS
from data.rows import describe_dropped, describe_read

NAMES_SHOWN = 30  # of columns and fields that decide nothing
WIDTH = 118  # characters of a printed line


def format_report(report: Mapping) -> str:
    """Return the report as text for a terminal: where rows went, a table of lengths, batching, advice."""
    splits = {name: report[name] for name in ("train", "eval") if report[name]}
    sizes = ", ".join(f"{split['rows']:,} {name}" for name, split in splits.items())
    lines = ["data report"]
    for source in report["sources"]:
        lines += _block("read", [_read(source)]) + _block("not used", _unused(source))
        lines += _block("dropped", describe_dropped(source))
    lines += _block("split", [sizes or "no rows"])
    lines += _block("duplicates", _duplicates(report["duplicates"]))
    lines += _table(splits)
    lines += _block("supervised", [f"{name}: {_supervised(split['supervised'])}" for name, split in splits.items()])
    counts = [(name, split["conversations"][kind], kind) for name, split in splits.items() for kind in CONVERSATIONS]
    lines += _block("template", [f"{name}: {count:,} {CONVERSATIONS[kind]}" for name, count, kind in counts if count])
    lines += _block("batching", [_batching(report["batching"])] if report["train"] else [])
    return "\n".join(lines + _block("advice", report["advice"]))


def _block(label: str, texts: Sequence[str]) -> list[str]:
    """Return the lines of each text, folded, the first one after its label."""
    lines = []
    for text in texts:
        lines += textwrap.wrap(text, WIDTH - 15, break_long_words=False, break_on_hyphens=False)
    return [f"  {label + ':' if number == 0 else '':<13}{line}" for number, line in enumerate(lines)]


def _read(source: Mapping) -> str:
    used = f", {source['used']:,} used (weight {source['weight']:g})" if "weight" in source else ""
    return describe_read(source) + used + ("; for evaluation" if source["use"] == "eval" else "")


def _unused(source: Mapping) -> list[str]:
    """Return a text with the columns and fields that decide nothing, and how many records have something in them."""
    names = [f"{name} ({counted(count, 'row')})" for name, count in source["unused"].items()]
    return [first_of(names, NAMES_SHOWN)] if names else []


def _duplicates(counts: Mapping[str, int]) -> list[str]:
    lines = []
    for name in ("train", "eval"):
        if count := counts.get(name):
            lines.append(f"{counted(count, 'row')} of {name} repeat{'s' if count == 1 else ''} an earlier one")
    if count := counts.get("both"):
        rows = f"{counted(count, 'row')} of eval {'is' if count == 1 else 'are'} in train too"
        lines.append(f"{rows}: what is measured there flatters")
    return lines


def _table(splits: Mapping[str, Mapping]) -> list[str]:
    """Return the lengths of each split, in aligned columns; nothing where there is no row."""
    if not splits:
        return []
    rows = [["tokens:", *PERCENTS, "rows cut", "tokens cut"]]
    for split, numbers in splits.items():
        for part in ("source", "target", "whole"):
            cut = numbers[part]["cut"]
            lengths = [f"{numbers[part][name]:,}" for name in PERCENTS]
            cuts = [f"{cut[of]:,} ({percent(cut[of + '_share'])})" if cut[of] else "0" for of in ("rows", "tokens")]
            rows.append([f"  {split} {part}", *lengths, *cuts])
    is_cut = any(numbers["whole"]["cut"]["rows"] for numbers in splits.values())
    lines = [f"  {line}" for line in table(rows).splitlines()]
    return lines + (["    source and target before the cuts, whole after them"] if is_cut else [])


def _supervised(counts: Mapping) -> str:
    without = f"; {counted(counts['rows_without'], 'row')} without any" if counts["rows_without"] else ""
    return f"{counts['tokens']:,} tokens, {counts['per_row']:,.1f} per row, {percent(counts['share'])} of all{without}"


def _batching(batching: Mapping) -> str:
    rows = counted(batching["per_device_train_batch_size"], "row")
    if "strategy" not in batching:  # the library groups rows of the whole epoch, which is not counted
        return f"micro-batches of {rows}, {batching['train_sampling_strategy']}"
    batches = {
        "random": f"of {rows} as they come",
        "split": f"of {rows} by length within a step",
        "budget": f"of up to {batching['max_tokens_per_batch'] or 0:,} tokens by length within a step",
        "packed": "packed from the rows of a step",
        "unpadded": "of the rows of a step behind one another",
        "shared": "of the rows of a step, what they begin with alike once",
    }[batching["strategy"]]
    counts = f"{batching['micro_batches']:,.1f} of them a step, the largest of {batching['largest']:,} tokens"
    padding = f"{percent(batching['padding_share'])} padding"
    if batching["strategy"] == "shared":
        padding = f"no padding, {percent(batching['shared_share'])} of the tokens saved"
    return f"micro-batches {batches}: {padding}, {counts}"
