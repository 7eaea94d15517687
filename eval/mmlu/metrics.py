"""What the logits of A, B, C and D behind MMLU questions are worth.

    metrics = mmlu_metrics(rows, logits, split="eval")      # {"mmlu_eval_accuracy": …, …}

Nothing here needs torch, so that a --metric_for_best_model that these questions do not give is refused at once.
"""

import difflib
from collections import defaultdict
from collections.abc import Sequence

import numpy

from common.errors import DataError
from data.mmlu.prompts import LETTERS
from eval.mmlu.subjects import GROUP_OF, GROUPS
from eval.statistics import macro_interval, mean


def right_letters(rows: Sequence[dict[str, str]]) -> numpy.ndarray:
    """Return which of A, B, C and D is right, 0 to 3; (questions,)."""
    return numpy.array([LETTERS.index(row["output"]) for row in rows])


def answered_right(rows: Sequence[dict[str, str]], logits: numpy.ndarray) -> list[bool]:
    """Return whether the right letter has the highest logit; never where one of them is not a number."""
    return ((logits.argmax(axis=1) == right_letters(rows)) & numpy.isfinite(logits).all(axis=1)).tolist()


def mmlu_metrics(rows: Sequence[dict[str, str]], logits: numpy.ndarray, split: str) -> dict[str, float]:
    """Return the loss and the accuracies of the logits of the four letters, (questions, 4).

    Returns:
        Of `mmlu_{split}_`: `loss`, the mean cross-entropy over the four letters; `accuracy`, the mean over subjects,
        and its 95 % interval `accuracy_low`, `accuracy_high`; `accuracy_questions`, over all questions alike;
        `accuracy_SUBJECT`; `accuracy_group_NAME` over the questions of each of the paper's four groups, and
        `accuracy_groups`, the mean of these, with `accuracy_groups_low` and `accuracy_groups_high`; `questions`, their
        number.
    """
    right = answered_right(rows, logits)
    subjects, groups = defaultdict(list), defaultdict(list)
    for row, is_right in zip(rows, right, strict=True):
        subjects[row["subject"]].append(is_right)
        if row["subject"] in GROUP_OF:
            groups[GROUP_OF[row["subject"]]].append(is_right)
    low, high = macro_interval(list(subjects.values()))
    by_group = {f"accuracy_group_{name}": mean(groups[name]) for name in GROUPS if name in groups}
    if by_group:
        names = ("accuracy_groups", "accuracy_groups_low", "accuracy_groups_high")
        of_groups = (mean(list(by_group.values())), *macro_interval(list(groups.values())))
        by_group |= zip(names, of_groups, strict=True)
    metrics = {
        "loss": cross_entropy(logits, right_letters(rows)),
        "accuracy": mean([mean(hits) for hits in subjects.values()]),
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_questions": mean(right),
        **by_group,
        **{f"accuracy_{name}": mean(hits) for name, hits in sorted(subjects.items())},
        "questions": len(rows),
    }
    return {f"mmlu_{split}_{name}": value for name, value in metrics.items()}


def cross_entropy(logits: numpy.ndarray, right: numpy.ndarray) -> float:
    """Return the mean cross-entropy, in nats, of logits, (rows, classes), and the right class of each row."""
    from scipy.special import log_softmax

    return float(-log_softmax(logits.astype("float64"), axis=1)[numpy.arange(len(right)), right].mean())


def check_best_metric(name: str | None, rows: Sequence[dict[str, str]], split: str) -> None:
    """Refuse a --metric_for_best_model that is MMLU's by its name and would be missed at the first evaluation.

    Raises:
        DataError: scoring these rows gives no such number.
    """
    best = (name or "").removeprefix("eval_")
    if not best.startswith("mmlu_"):
        return
    names = list(mmlu_metrics(rows, numpy.zeros((len(rows), len(LETTERS))), split))
    if best not in names:
        near = ", ".join(difflib.get_close_matches(best, names, n=2) or names[:2])
        raise DataError(f"--metric_for_best_model {name}: these questions give no such number; try {near}")
