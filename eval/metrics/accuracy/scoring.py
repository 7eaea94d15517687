"""Accuracy of labels.

    accuracy(["A", "B"], ["A", "C"])      # 0.5

It is a plain function, of which the `evaluate.Metric` beside it is the other form.
"""

from collections.abc import Hashable, Sequence
from statistics import fmean


def accuracy(predictions: Sequence[Hashable], references: Sequence[Hashable]) -> float:
    """Return the share, from 0 to 1, of labels (numbers, letters, names) that are predicted right.

    Raises:
        ValueError: the two differ in length, are empty, or a row has no reference (None); says which.
    """
    for row, right in enumerate(references):
        if right is None:
            raise ValueError(f"references[{row}] is None: a label is needed")
    return fmean(float(label == right) for label, right in zip(predictions, references, strict=True))
