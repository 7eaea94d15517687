"""chrF2 of a corpus or of one row, from 0 to 1.

    counts = [chrf_counts(*pair) for pair in zip(predictions, references)]  # counts of rows add up to those of a corpus
    chrf_score([sum(column) for column in zip(*counts)])

Numbers are those of sacreBLEU's default (chrF2|nc:6|nw:0|space:no) divided by 100, which is what is published as chrF
today; beta is 2, which the second paper found best, not nltk's 3. nltk counts the n-grams. Its `corpus_chrf` is not
used: it averages F scores instead of precision and recall, and takes orders that a text is too short for as 0, so that
a right answer "yes" scores 0.5.

Sources: https://aclanthology.org/W15-3049, https://aclanthology.org/W16-2341
"""

from collections.abc import Sequence
from statistics import fmean

ORDER = 6
BETA = 2  # recall counts beta times as much as precision


def chrf_counts(prediction: str, reference: str | Sequence[str]) -> list[int]:
    """Return the 1- to 6-grams of characters that both have, all of the prediction's, and all of the reference's.

    These are 6 + 6 + 6 numbers. White space is left out, and so are the prediction's n-grams that are longer than the
    reference. Of several references, the one that gives the row the best chrF is taken.
    """
    references = [reference] if isinstance(reference, str) else reference
    return max((_counts(prediction, text) for text in references), key=chrf_score)


def _counts(prediction: str, reference: str) -> list[int]:
    from nltk.translate.chrf_score import chrf_precision_recall_fscore_support

    found, right = "".join(prediction.split()), "".join(reference.split())
    orders = range(1, ORDER + 1)
    matches = [chrf_precision_recall_fscore_support(right, found, n)[3] for n in orders]
    in_reference = [max(len(right) - n + 1, 0) for n in orders]
    in_prediction = [
        max(len(found) - n + 1, 0) if possible else 0 for n, possible in zip(orders, in_reference, strict=True)
    ]
    return [*matches, *in_prediction, *in_reference]


def chrf_score(counts: Sequence[int]) -> float:
    """Return the chrF2, from 0 to 1, of counts as `chrf_counts` gives them, of one row or summed over rows.

    Precision and recall are means over the orders that both texts are long enough for. No shared character is 0.
    """
    matches, found, right = counts[:ORDER], counts[ORDER : 2 * ORDER], counts[2 * ORDER :]
    if not any(matches):
        return 0.0
    orders = [n for n in range(ORDER) if found[n] and right[n]]
    precision = fmean(matches[n] / found[n] for n in orders)
    recall = fmean(matches[n] / right[n] for n in orders)
    return (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)


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
