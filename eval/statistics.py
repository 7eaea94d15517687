"""How sure a number is: intervals of means over rows, and of scores of sums over rows.

    low, high = mean_interval([1, 0, 1, 1])
    difference, low, high = paired_difference(base_scores, tuned_scores)

All of them are one bootstrap, `interval`, of a score of the rows' sums: a mean is the sum of the values over that of
their weights. Sources: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; of its use on pairs of
systems: https://aclanthology.org/W04-3250
"""

from collections.abc import Callable, Sequence

import numpy

RESAMPLES = 10_000
CONFIDENCE = 0.95
STANDARD_ERRORS = 1.96  # to either side of a normal mean: its interval of that confidence
BATCH_NUMBERS = 4_000_000  # resampled numbers in memory at a time: 32 MB

Score = Callable[[Sequence[float]], float]


def mean(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """Return the mean, weighted where there are weights (a loss by its tokens); there must be one value."""
    return float(numpy.average(numpy.asarray(values, dtype=float), weights=weights))


def interval(table: Sequence[Sequence[float]], score: Score, seed: int = 42) -> tuple[float, float]:
    """Return the 95 % interval of a score: the percentile bootstrap with 10,000 seeded resamples of the rows.

    Rows that are all alike, or only one, say nothing about the spread: both ends are their score.

    Args:
        table: (rows, numbers), the numbers of each row; there must be one row.
        score: of the sums of these numbers over rows.
    """
    from scipy.stats import bootstrap

    numbers = numpy.asarray(table, dtype=float)
    if (numbers == numbers[0]).all():
        alike = score(numbers.sum(axis=0).tolist())
        return alike, alike
    ends = bootstrap(
        (numpy.arange(len(numbers)),),
        lambda drawn, axis: [score(sums) for sums in numbers[drawn].sum(axis=axis - 1).tolist()],  # (resamples, rows)
        n_resamples=RESAMPLES,
        batch=max(BATCH_NUMBERS // numbers.size, 1),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=numpy.random.default_rng(seed),
    ).confidence_interval
    return float(ends.low), float(ends.high)


def mean_interval(
    values: Sequence[float], weights: Sequence[float] | None = None, seed: int = 42
) -> tuple[float, float]:
    """Return the `interval` of a mean over rows."""
    rows = numpy.asarray(values, dtype=float)
    weight = numpy.ones_like(rows) if weights is None else numpy.asarray(weights, dtype=float)
    if (rows == rows[0]).all():  # whatever their weights
        return mean(rows), mean(rows)
    return interval(numpy.stack([rows * weight, weight], axis=1), lambda sums: sums[0] / sums[1], seed)


def paired_difference(
    before: Sequence[float], after: Sequence[float], weights: Sequence[float] | None = None, seed: int = 42
) -> tuple[float, float, float]:
    """Return the mean of `after` − the mean of `before`, and its interval where both resample the same rows.

    Raises:
        ValueError: the two do not hold the same number of rows.
    """
    check_paired(before, after)
    differences = numpy.asarray(after, dtype=float) - numpy.asarray(before, dtype=float)
    return mean(differences, weights), *mean_interval(differences, weights, seed)


def paired_corpus_difference(
    before: Sequence[Sequence[int]], after: Sequence[Sequence[int]], score: Score, seed: int = 42
) -> tuple[float, float, float, float, float]:
    """Return the scores of sums of counts over rows, such as a corpus BLEU, before and after, and their difference.

    Args:
        before, after: (rows, counts), the counts of each row.
        score: of their sums.

    Returns:
        (score before, score after, difference, and the ends of its interval), as `paired_difference`.

    Raises:
        ValueError: the two do not hold the same number of rows.
    """
    check_paired(before, after)
    table = numpy.concatenate([before, after], axis=1)  # (rows, 2 × counts)
    counts = table.shape[1] // 2
    first, second = (score(sums.tolist()) for sums in numpy.split(table.sum(axis=0), 2))
    ends = interval(table, lambda sums: score(sums[counts:]) - score(sums[:counts]), seed)
    return first, second, second - first, *ends


def check_paired(before: Sequence, after: Sequence) -> None:
    """Refuse rows that are no pairs."""
    if len(before) != len(after):
        raise ValueError(f"{len(before)} rows before, {len(after)} after: a paired comparison needs the same rows")


def macro_interval(right: Sequence[Sequence[bool]]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of accuracies, each over questions of its own (subjects, say).

    The normal interval of a stratified sample. The variance of an accuracy is that of one success and one failure more
    than were seen, so that three right answers of three do not pass for certainty; it is over the questions that were
    seen, as the middle is what was seen too.

    Source: Cochran, Sampling Techniques, 1977, section 5.10; Agresti and Caffo, https://doi.org/10.1080/00031305.2000.10474560
    """
    counts = numpy.array([len(answers) for answers in right])
    share = (numpy.array([sum(answers) for answers in right]) + 1) / (counts + 2)
    half = STANDARD_ERRORS * float(numpy.sqrt((share * (1 - share) / counts).sum())) / len(right)
    middle = float(numpy.mean([numpy.mean(answers) for answers in right]))
    return max(middle - half, 0.0), min(middle + half, 1.0)
