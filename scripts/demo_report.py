"""What the demo shows: the loss falling, exact match of the base against the tuned model, and some of their answers.

    python -m scripts.demo_report output/demo        # as scripts/demo.sh leaves it, with --compare_base

Adds `base_exact_match` and `tuned_exact_match` to metrics.json.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

from common.files import read_json, write_json
from common.outputs import TRAINER_STATE
from common.text import shortened, table

BARS = "▁▂▃▄▅▆▇█"
QUESTIONS = 6  # questions printed with both answers


def read_lines(path: Path) -> list[dict]:
    """Return the objects of a file with one on each line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def is_right(row: dict) -> bool:
    """Return whether a prediction is its reference, but for outer white space."""
    return row["prediction"].strip() == row["output"].strip()


def share_right(rows: list[dict]) -> float:
    """Return the share of predictions that are right."""
    return sum(map(is_right, rows)) / len(rows)


def curve(values: list[float]) -> str:
    """Return the values as a row of bars, the largest one highest."""
    low, high = min(values), max(values)
    return "".join(BARS[round((value - low) / ((high - low) or 1) * (len(BARS) - 1))] for value in values)


def print_losses(state: dict, metrics: dict) -> None:
    """Print how the loss fell."""
    losses = [(entry["step"], entry["loss"]) for entry in state["log_history"] if "loss" in entry]
    bars = curve([loss for _, loss in losses])
    print(
        f"\ntraining loss    {losses[0][1]:.3f} {bars} {losses[-1][1]:.3f}   (steps {losses[0][0]} to {losses[-1][0]})"
    )
    before, after = metrics["eval_loss_before"], metrics["eval_loss"]
    print(f"evaluation loss  {before:.3f} before, {after:.3f} after   (held-out countries)")


def print_table(base: list[dict], tuned: list[dict]) -> None:
    """Print the exact match of both models by kind of fact."""
    kinds: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(tuned):
        kinds[row["fact"]].append(index)
    print("\nexact match on questions about countries that no training question names")
    lines = [["", "questions", "base", "tuned"]]
    for kind, indices in [*sorted(kinds.items()), ("all", list(range(len(tuned))))]:
        shares = [share_right([rows[index] for index in indices]) for rows in (base, tuned)]
        lines.append([kind, str(len(indices)), *(f"{share:.1%}" for share in shares)])
    print(table(lines))


def print_answers(base: list[dict], tuned: list[dict]) -> None:
    """Print some questions with both answers."""
    print()
    for index in range(0, len(tuned), max(1, len(tuned) // QUESTIONS))[:QUESTIONS]:
        mark = "right" if is_right(tuned[index]) else f"wrong; right is: {tuned[index]['output']}"
        print(f"question: {tuned[index]['instruction']}")
        print(f"  base:   {shortened(base[index]['prediction'])}")
        print(f"  tuned:  {shortened(tuned[index]['prediction'])}   ({mark})")


def main(directory: str) -> None:
    """Print the report of an output directory, and add both scores to its metrics.json."""
    output = Path(directory)
    metrics = read_json(output / "metrics.json")
    base, tuned = (read_lines(output / name) for name in ("predictions_base.jsonl", "predictions.jsonl"))
    print_losses(read_json(output / TRAINER_STATE), metrics)
    print_table(base, tuned)
    print_answers(base, tuned)
    scores = {"base_exact_match": share_right(base), "tuned_exact_match": share_right(tuned)}
    write_json(output / "metrics.json", metrics | scores)
    print(f"\nbase_exact_match {scores['base_exact_match']:.3f}, tuned_exact_match {scores['tuned_exact_match']:.3f}")
    print(f"in {output}/metrics.json; all answers in {output}/predictions.jsonl")
    print("next: tune your own model on your own file, see README.md")


if __name__ == "__main__":
    main(*sys.argv[1:])
