"""chrF2 of a corpus or of one row, from 0 to 1, as sacreBLEU counts it (chrF2|nc:6|nw:0|space:no).

    counts = [chrf_counts(*pair) for pair in zip(predictions, references)]  # counts of rows add up to those of a corpus
    chrf_score([sum(column) for column in zip(*counts)])

Sources: https://aclanthology.org/W15-3049, and for beta = 2 https://aclanthology.org/W16-2341
"""

from collections.abc import Sequence
from functools import cache
from typing import Any


@cache
def metric() -> Any:
    """Return the library's metric, which is imported where a score is needed."""
    from sacrebleu.metrics import CHRF

    return CHRF()


def chrf_counts(prediction: str, reference: str | Sequence[str]) -> list[int]:
    """Return for each of 1- to 6-grams of characters: those of the prediction, of the reference, and of both.

    These are 6 x 3 numbers. White space is left out, and so are the prediction's n-grams that are longer than the
    reference. Of several references, the one that gives the row the best chrF is taken.
    """
    # The library has no public way to the counts of a row, which the bootstrap over rows needs.
    [counts] = metric()._extract_corpus_statistics(
        [prediction], [[text] for text in ([reference] if isinstance(reference, str) else reference)]
    )
    return counts


def chrf_score(counts: Sequence[float]) -> float:
    """Return the chrF2, from 0 to 1, of counts as `chrf_counts` gives them, of one row or summed over rows.

    Precision and recall are means over the orders that both texts are long enough for. No shared character is 0.
    """
    return metric()._compute_f_score(list(counts)) / 100 if any(counts) else 0.0


def chrf(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> float:
    """Return the corpus chrF2, from 0 to 1: the F score (beta 2) of 1- to 6-grams of characters without white space.

    n-grams are counted over all rows, not averaged over them. It needs no words, so it serves every language.

    Raises:
        ValueError: the two differ in length, or a row has no reference; says which.
    """
    _refuse_missing(references)
    counts = [chrf_counts(*pair) for pair in zip(predictions, references, strict=True)]
    return chrf_score([sum(column) for column in zip(*counts, strict=True)])


def _refuse_missing(references: Sequence[str | Sequence[str]]) -> None:
    for row, reference in enumerate(references):
        if not isinstance(reference, str) and (not reference or None in reference):
            raise ValueError(f"references[{row}] is {reference}: a text is needed, or a list of one or more")
