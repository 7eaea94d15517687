"""Base against tuned: the same rows with the adapter off and on, what changed, and whether it is more than chance.

    comparison = compare(base, tuned)           # two `Measured`
    print(format_comparison(comparison))

Intervals are paired bootstraps: both models are resampled on the same rows (https://aclanthology.org/W04-3250).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from textwrap import indent
from typing import Any

import numpy

from common.text import shortened, table
from eval.metrics.bleu.scoring import bleu_score
from eval.metrics.chrf.scoring import chrf, chrf_score
from eval.metrics.names import LABELS
from eval.metrics.text import Comparison, compare_all
from eval.statistics import mean, paired_corpus_difference, paired_difference

CHANGED_SHOWN = 5
LEAST = 0.0005  # the least difference that the table shows: 0.1 % of a share, 0.001 of a loss
FEWEST_ROWS = 6  # five rows that all change for the better are no proof: a sign test gives p = 2 / 2**5 = 0.06
RARELY = 0.5  # A warning comes where a smaller share of answers ends by itself.

STOPPED = "stopped by itself"


@dataclass
class Measured:
    """One model on the rows; what was not asked for is empty.

    Attributes:
        losses: (rows, 2), sums of losses and supervised tokens of each row.
        lines: those of predictions.jsonl.
        subjects: the subject of each MMLU question.
        right: whether each was answered right.
        max_new_tokens: what an answer could be at most.
    """

    losses: Sequence[Sequence[float]] = ()
    lines: list[dict[str, Any]] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    max_new_tokens: int = 0


@dataclass(frozen=True)
class Difference:
    """A number of both models, and tuned − base with its 95 % interval.

    Attributes:
        better: 1 where more is better, −1 where less is, 0 where it is neither.
        percent: whether it is a share, to be shown in %.
    """

    name: str
    rows: int
    base: float
    tuned: float
    difference: float
    low: float
    high: float
    better: int = 1
    percent: bool = True

    def verdict(self) -> str:
        """Return what to call the difference.

        It is "better" or "worse"; "not told apart" where the interval holds 0; "too few rows"; "equal" where the table
        shows no difference; "" where neither more nor less is better.
        """
        if not self.better:
            return ""
        if max(abs(self.difference), abs(self.low), abs(self.high)) < LEAST:
            return "equal"
        if self.rows < FEWEST_ROWS:
            return "too few rows"
        if self.low <= 0 <= self.high:
            return "not told apart"
        return "better" if self.difference * self.better > 0 else "worse"


def compare(base: Measured, tuned: Measured, seed: int = 42) -> dict[str, Any]:
    """Compare two models on the same rows.

    Returns:
        `differences`, a list of `Difference`; `changed`, the rows whose answers changed most; `verdict`, sentences.

    Raises:
        ValueError: the two were not measured on the same number of rows.
    """
    differences = [
        *loss_difference(base, tuned, seed),
        *mmlu_difference(base, tuned, seed),
        *answer_differences(base.lines, tuned.lines, seed),
    ]
    return {
        "differences": differences,
        "changed": most_changed(base.lines, tuned.lines),
        "verdict": [*better_or_not(differences), *stopping(tuned)],
    }


def loss_difference(base: Measured, tuned: Measured, seed: int) -> list[Difference]:
    """Compare the evaluation loss by supervised token, as `eval_loss`: a row's loss counts by its tokens."""
    if not len(base.losses):
        return []
    before, after = (numpy.asarray(model.losses, dtype=float) for model in (base, tuned))  # (rows, 2)
    tokens = before[:, 1]
    means = [losses[:, 0] / tokens.clip(min=1) for losses in (before, after)]
    both = [float(losses[:, 0].sum() / tokens.sum()) for losses in (before, after)]
    return [
        Difference("eval loss", len(before), *both, *paired_difference(*means, tokens, seed), better=-1, percent=False)
    ]


def mmlu_difference(base: Measured, tuned: Measured, seed: int) -> list[Difference]:
    """Compare the mean over subjects: a question counts by one over the number of its subject's questions."""
    if not base.right:
        return []
    questions = Counter(base.subjects)
    weights = [1 / questions[subject] for subject in base.subjects]
    both = [mean(model.right, weights) for model in (base, tuned)]
    return [
        Difference("MMLU accuracy", len(weights), *both, *paired_difference(base.right, tuned.right, weights, seed))
    ]


def answer_differences(base: list[dict], tuned: list[dict], seed: int) -> list[Difference]:
    """Compare the metrics of predictions.jsonl on the rows that have a reference; then how answers end, on all."""
    if not base:
        return []
    compared = [[row for row in compare_lines(lines) if row is not None] for lines in (base, tuned)]
    differences = []
    for name in compared[0][0].means if compared[0] else ():
        both = [[row.means[name] for row in rows] for rows in compared]
        differences.append(of_means(LABELS[name], *both, seed=seed))
    scores: dict[str, Callable] = {"bleu": bleu_score, "chrf": chrf_score} if compared[0] else {}
    for name, score in scores.items():
        both = [[getattr(row, name) for row in rows] for rows in compared]
        change = paired_corpus_difference(*both, score, seed=seed)
        differences.append(Difference(LABELS[name], len(both[0]), *change))
    ends = [[float(line["prediction_stopped"]) for line in lines] for lines in (base, tuned)]
    lengths = [[line["prediction_tokens"] for line in lines] for lines in (base, tuned)]
    return [
        *differences,
        of_means(STOPPED, *ends, seed=seed),
        of_means("new tokens", *lengths, seed=seed, better=0, percent=False),
    ]


def of_means(name: str, base: Sequence[float], tuned: Sequence[float], seed: int, **how: Any) -> Difference:
    """Compare the means of a number of each row; `how` it is shown, as in `Difference`."""
    return Difference(name, len(base), mean(base), mean(tuned), *paired_difference(base, tuned, seed=seed), **how)


def compare_lines(lines: list[dict]) -> list[Comparison | None]:
    """Compare each answer with its reference, where it has one."""
    return compare_all([line["prediction"] for line in lines], [line.get("output") for line in lines])


def most_changed(base: list[dict], tuned: list[dict]) -> list[dict[str, Any]]:
    """Return the rows whose answers changed most: in chrF against the reference, or against each other without one.

    chrF says by how much an answer is off, in any language; exact match knows two values only.
    """
    rows = []
    for number, (before, after) in enumerate(zip(base, tuned, strict=True), start=1):
        answers, output = (before["prediction"], after["prediction"]), after.get("output")
        reference = output if output and output.strip() else None
        scores = [chrf([answer], [reference]) for answer in answers] if reference else None
        change = scores[1] - scores[0] if scores else chrf([answers[1]], [answers[0]]) - 1
        question = after.get("instruction") or after.get("input") or ""
        rows.append(
            {
                "row": number,
                "question": question if isinstance(question, str) else str(question),
                "reference": reference,
                "base": answers[0],
                "tuned": answers[1],
                "chrf": scores,
                "change": change,
            }
        )
    changed = [row for row in rows if row["base"] != row["tuned"]]
    return sorted(changed, key=lambda row: -abs(row["change"]))[:CHANGED_SHOWN]


def better_or_not(differences: list[Difference]) -> list[str]:
    """Return the differences in words; one that chance explains is never called an improvement."""
    by_verdict: dict[str, list[str]] = defaultdict(list)
    for row in differences:
        if row.better and row.name != STOPPED:
            by_verdict[row.verdict()].append(row.name)
    sentences = []
    if by_verdict["better"]:
        sentences.append(f"The tuned model is better than the base in: {', '.join(by_verdict['better'])}.")
    elif any(by_verdict.values()):
        worse = by_verdict["worse"]
        sentences.append(
            "The tuned model is not better than the base."
            if worse or not (by_verdict["not told apart"] or by_verdict["too few rows"])
            else "Nothing here shows the tuned model to be better than the base."
        )
    elif differences:
        sentences.append("No row here has an answer to compare with: nothing says which model is better.")
    if by_verdict["worse"]:
        sentences.append(f"It is worse in: {', '.join(by_verdict['worse'])}.")
    if by_verdict["not told apart"]:
        sentences.append(f"These rows cannot tell the two apart in: {', '.join(by_verdict['not told apart'])}.")
    if by_verdict["too few rows"]:
        sentences.append(f"Fewer than {FEWEST_ROWS} rows prove nothing: {', '.join(by_verdict['too few rows'])}.")
    return sentences


def stopping(measured: Measured, model: str = "the tuned model") -> list[str]:
    """Return a warning where the answers of `model` seldom or never end by themselves, else nothing."""
    lines = measured.lines
    ended = sum(line["prediction_stopped"] for line in lines)
    if not lines or ended >= RARELY * len(lines):
        return []
    never = f"{model} never stops by itself: all {len(lines):,} answers"
    seldom = f"{model} stops by itself in {ended:,} of {len(lines):,} answers only: the others"
    return [
        f"WARNING: {seldom if ended else never} ran to --max_new_tokens {measured.max_new_tokens}. Where training rows "
        "lose their ends (the data report counts them), raise --target_max_len; else train longer, or allow more new "
        "tokens."
    ]


def to_json(comparison: dict[str, Any]) -> dict[str, Any]:
    """Return the comparison as it is written to a file."""
    rows = [{**asdict(row), "verdict": row.verdict()} for row in comparison["differences"]]
    for row in rows:  # "better": -1 would read as a verdict, beside which it stands.
        row["higher_is"] = {1: "better", -1: "worse", 0: None}[row.pop("better")]
    return {**comparison, "differences": rows}


def format_comparison(comparison: dict[str, Any]) -> str:
    """Return the comparison as text: a table, the rows that changed most, and the verdict."""
    rows = [("", "base", "tuned", "difference", "95% interval", "")]
    for row in comparison["differences"]:
        base, tuned = (number(value, row.percent) for value in (row.base, row.tuned))
        change, low, high = (number(value, row.percent, "+") for value in (row.difference, row.low, row.high))
        rows.append((row.name, base, tuned, change, f"{low} to {high}", row.verdict()))
    lines = ["base against tuned (adapter off and on, the same rows)", indent(table(rows, left=(0, 5)), "  ")]
    if comparison["changed"]:
        lines += ["", "answers that changed most"]
    for row in comparison["changed"]:
        lines += format_change(row)
    return "\n".join([*lines, "", *comparison["verdict"]])


def format_change(row: dict[str, Any]) -> list[str]:
    """Return a row whose answer changed as lines of text."""
    scores = [f"  (chrF {score:.0%})" for score in row["chrf"]] if row["chrf"] else ["", ""]
    reference = [f"    right:  {shortened(row['reference'])}"] if row["reference"] else []
    return [
        f"  row {row['row']}: {shortened(row['question'])}",
        f"    base:   {shortened(row['base'])}{scores[0]}",
        f"    tuned:  {shortened(row['tuned'])}{scores[1]}",
        *reference,
    ]


def number(value: float, percent: bool, sign: str = "") -> str:
    """Return a number as text, a share in %; with the sign "+" where it is positive, if asked for."""
    return f"{100 * value:{sign}.1f}%" if percent else f"{value:{sign}.3f}"
