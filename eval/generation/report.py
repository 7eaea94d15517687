"""What `eval.generation` prints: a table of all files, one of the groups of each, and what to try next.

    print_report({"predictions.jsonl": {"all": {"predict_exact_match": 0.5}}}, by=None)

Shares are shown in %.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.text import table
from eval.metrics.names import LABELS
from eval.metrics.text import PREFIX

COUNTS = {"samples": "answers", "references": "with a reference"}


def print_report(results: dict[str, dict[str, Any]], by: str | None) -> None:
    """Print one column for each file, then the groups of each file."""
    names = list(results)
    heads = names if len(names) == 1 else [f"[{number}]" for number in range(1, len(names) + 1)]
    if len(names) > 1:
        print("\n".join(f"{head} {name}" for head, name in zip(heads, names, strict=True)))
    rows = [["%, and its 95 % interval", *heads]]
    rows += [
        [label, *(cell(scores["all"], name, True) for scores in results.values())]
        for name, label in labels_of(results.values())
    ]
    print(table(rows, left=range(len(rows[0]))))
    for name in names if by else ():
        print(f"\nby {by}" + (f", {name}" if len(names) > 1 else ""))
        print(group_table(results[name], by))


def group_table(scores: dict[str, Any], by: str) -> str:
    """Return a table of one row for each group, then those of the rows without a group and of all."""
    labels = labels_of([scores])
    totals = {f"({label})": scores[key] for label, key in (("none", "without"), ("all", "all")) if key in scores}
    groups = [*scores["by"].items(), *totals.items()]
    header = [by, *(label for _, label in labels)]
    return table([header, *([group, *(cell(row, name, False) for name, _ in labels)] for group, row in groups)])


def labels_of(results: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the (name, label) of the metrics that any file has."""
    names = {name for scores in results for name in scores["all"]}
    return [(name, label) for name, label in (COUNTS | LABELS).items() if f"{PREFIX}_{name}" in names]


def cell(scores: dict[str, Any], name: str, with_interval: bool) -> str:
    """Return a metric as text: a count, a mean of tokens, or a share in %."""
    value, interval = (scores.get(f"{PREFIX}_{name}{end}") for end in ("", "_interval"))
    if value is None:
        return "–"
    if name in COUNTS:
        return f"{value:,}"
    scale = 1 if name == "new_tokens" else 100
    number = f"{scale * value:.1f}"
    if interval is None or not with_interval or interval[0] == interval[1]:  # rows that are all alike have no spread
        return number
    return f"{number}  [{scale * interval[0]:.1f}, {scale * interval[1]:.1f}]"


def print_next(
    results: dict[str, dict[str, Any]], reference: str, unlike: str | None, output: Path | None, command: str
) -> None:
    """Say what could not be measured or compared, where the numbers are, and what to try.

    Args:
        reference: the field that was read as what is right.
        unlike: how the rows of the files differ, None where they do not.
        output: where the numbers are, None where they are in no file.
        command: the arguments of this command line.
    """
    print()
    if unlike:
        print(f"note: these are not the same rows ({unlike}), so their numbers do not compare.")
    for name, scores in results.items():
        if not scores["all"][f"{PREFIX}_references"]:
            print(f"note: {name} has no text in {reference!r}: --reference FIELD names what is right")
    print(f"metrics: {output}" if output else f"next: python -m eval.generation {command} --output scores.json")
