"""BLEU-4 of a corpus or of one row, from 0 to 1, as sacreBLEU counts it (BLEU|case:mixed|eff:yes|tok:13a|smooth:exp).

    counts = [bleu_counts(*pair) for pair in zip(predictions, references)]  # counts of rows add up to those of a corpus
    bleu_score([sum(column) for column in zip(*counts)])

An order that no answer is long enough for is left out (eff:yes), so that right answers of one word score 1, not 0.

Sources: BLEU, https://aclanthology.org/P02-1040; sacreBLEU and the tokens of mteval-v13a,
https://aclanthology.org/W18-6319; smoothing of orders without a match, https://aclanthology.org/W14-3346, method 3.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

ORDER = 4


@cache
def metric() -> Any:
    """Return the library's metric, which is imported where a score is needed."""
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True)


def bleu_counts(prediction: str, reference: str | Sequence[str]) -> list[int]:
    """Return matching 1- to 4-grams, all of the prediction's, its tokens, and those of the reference nearest in length.

    These are 4 + 4 + 1 + 1 numbers. An n-gram matches as often as it stands in the one of several references that has
    it most often.
    """
    row = metric().sentence_score(prediction, ([reference] if isinstance(reference, str) else reference))
    return [*row.counts, *row.totals, row.sys_len, row.ref_len]


def bleu_score(counts: Sequence[float]) -> float:
    """Return the BLEU, from 0 to 1, of counts as `bleu_counts` gives them, of one row or summed over rows."""
    if not any(counts):
        return 0.0
    counts = [round(count) for count in counts]  # the library prints the lengths as whole numbers
    matches, totals, lengths = counts[:ORDER], counts[ORDER : 2 * ORDER], counts[2 * ORDER :]
    score = metric().compute_bleu(matches, totals, *lengths, smooth_method="exp", effective_order=True)
    return min(score.score / 100, 1.0)  # rounding of logarithms takes a perfect score just above 1


def bleu(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> float:
    """Return the corpus BLEU-4, from 0 to 1: n-grams are counted over all rows, not averaged over them.

    Tokens are those of mteval-v13a, case counts, and orders without a match are smoothed (method 3 of Chen and Cherry).

    Raises:
        ValueError: the two differ in length, or a row has no reference; says which.
    """
    _refuse_missing(references)
    counts = [bleu_counts(*pair) for pair in zip(predictions, references, strict=True)]
    return bleu_score([sum(column) for column in zip(*counts, strict=True)])


def _refuse_missing(references: Sequence[str | Sequence[str]]) -> None:
    for row, reference in enumerate(references):
        if not isinstance(reference, str) and (not reference or None in reference):
            raise ValueError(f"references[{row}] is {reference}: a text is needed, or a list of one or more")
