"""Exact match of answers.

    exact_match([" Paris"], ["Paris"])      # 1.0

It is a plain function, of which the `evaluate.Metric` beside it is the other form.
"""

from collections.abc import Sequence
from statistics import fmean


def is_exact_match(prediction: str, reference: str | Sequence[str]) -> bool:
    """Return whether an answer is its reference, or one of several, but for outer white space."""
    references = [reference] if isinstance(reference, str) else reference
    return any(prediction.strip() == text.strip() for text in references)


def exact_match(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> float:
    """Return the share, from 0 to 1, of answers that are their reference, or one of several, but for outer white space.

    Case and punctuation count; `token_f1` is the measure that leaves them out.

    Raises:
        ValueError: the two differ in length, are empty, or a row has no reference; says which.
    """
    _refuse_missing(references)
    return fmean(float(is_exact_match(*pair)) for pair in zip(predictions, references, strict=True))


def _refuse_missing(references: Sequence[str | Sequence[str]]) -> None:
    for row, reference in enumerate(references):
        if not isinstance(reference, str) and (not reference or None in reference):
            raise ValueError(f"references[{row}] is {reference}: a text is needed, or a list of one or more")
