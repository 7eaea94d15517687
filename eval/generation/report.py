"""What `eval.generation` prints: a table of all files, one of the groups of each, and what to try next."""

import argparse
import shlex
from typing import Any

from eval.metrics.text import PREFIX

LABELS = {
    "samples": "answers",
    "references": "with a reference",
    "exact_match": "exact match",
    "token_f1": "token F1",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "stopped": "stopped",
    "new_tokens": "new tokens",
}
COUNTS = ("samples", "references")


def print_report(results: dict[str, dict[str, Any]], by: str | None) -> None:
    """Print one column for each file, then the groups of each file."""
    names = list(results)
    if len(names) > 1:
        print("\n".join(f"[{number}] {name}" for number, name in enumerate(names, 1)))
        heads = [f"[{number}]" for number in range(1, len(names) + 1)]
    else:
        heads = names
    rows = [["%, and its 95 % interval", *heads]]
    rows += [
        [label, *(_shown(scores["all"], name, True) for scores in results.values())] for name, label in _used(results)
    ]
    _print_table(rows)
    for name in names if by else ():
        columns = _used({name: results[name]})
        print(f"\nby {by}" + (f", {name}" if len(names) > 1 else ""))
        rows = [[by, *(label for _, label in columns)]]
        totals = [(f"({key})", results[name].get(which)) for key, which in (("none", "without"), ("all", "all"))]
        groups = [*results[name]["by"].items(), *((label, scores) for label, scores in totals if scores)]
        rows += [[group, *(_shown(scores, key, False) for key, _ in columns)] for group, scores in groups]
        _print_table(rows)


def _used(results: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the (name, label) of the metrics that any file has."""
    found = {name for scores in results.values() for name in scores["all"]}
    return [(name, label) for name, label in LABELS.items() if f"{PREFIX}_{name}" in found]


def _shown(scores: dict[str, Any], name: str, with_interval: bool) -> str:
    value, interval = (scores.get(f"{PREFIX}_{name}{end}") for end in ("", "_interval"))
    if value is None:
        return "–"
    if name in COUNTS:
        return f"{value:,}"
    scale = 1 if name == "new_tokens" else 100
    shown = f"{scale * value:.1f}"
    if interval is None or not with_interval or interval[0] == interval[1]:  # rows that are all alike have no spread
        return shown
    return f"{shown}  [{scale * interval[0]:.1f}, {scale * interval[1]:.1f}]"


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [cell.ljust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]).rstrip())


def print_next(
    results: dict[str, dict[str, Any]], unlike: str | None, options: argparse.Namespace, argv: list[str]
) -> None:
    """Say what could not be measured or compared, where the numbers are, and what to try."""
    print()
    if unlike:
        print(f"note: these are not the same rows ({unlike}), so their numbers do not compare.")
    for name, scores in results.items():
        if not scores["all"][f"{PREFIX}_references"]:
            print(
                f"note: {name} has no text in {options.reference or 'output'!r}: --reference FIELD names what is right"
            )
    if options.output:
        print(f"metrics: {options.output}")
    else:
        print(f"next: python -m eval.generation {shlex.join(argv)} --output scores.json")
