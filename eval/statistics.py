"""How sure a number is: intervals of means over rows, and of scores of sums over rows.

    low, high = mean_interval([1, 0, 1, 1])
    difference, low, high = paired_difference(base_scores, tuned_scores)

Source of the percentile bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; of its
use on pairs of systems: https://aclanthology.org/W04-3250
"""

from collections.abc import Callable, Iterator, Sequence

import numpy

RESAMPLES = 10_000
CONFIDENCE = 0.95
BATCH_NUMBERS = 4_000_000  # resampled numbers in memory at a time: 32 MB


def mean(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """The mean, weighted where there are weights (a loss by its tokens); needs one value or more."""
    return float(numpy.average(numpy.asarray(values, dtype=float), weights=weights))


def mean_interval(
    values: Sequence[float], weights: Sequence[float] | None = None, seed: int = 42
) -> tuple[float, float]:
    """The 95 % interval of a mean over rows: the percentile bootstrap with 10,000 seeded resamples of the rows.

    Rows that are all alike, or fewer than two, tell nothing about the spread: both ends are the mean.
    """
    from scipy.stats import bootstrap

    rows = numpy.asarray(values, dtype=float)  # (rows,)
    if len(rows) < 2 or (rows == rows[0]).all():
        return mean(rows, weights), mean(rows, weights)
    weight = numpy.ones_like(rows) if weights is None else numpy.asarray(weights, dtype=float)
    found = bootstrap(
        (rows, weight),
        lambda row, by, axis: (row * by).sum(axis=axis) / by.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(BATCH_NUMBERS // len(rows), 1),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=numpy.random.default_rng(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def paired_difference(
    before: Sequence[float], after: Sequence[float], weights: Sequence[float] | None = None, seed: int = 42
) -> tuple[float, float, float]:
    """Mean of `after` − mean of `before`, and its 95 % interval where both resample the same rows.

    Raises:
        ValueError: the two do not hold the same number of rows.
    """
    check_paired(before, after)
    differences = numpy.asarray(after, dtype=float) - numpy.asarray(before, dtype=float)
    return mean(differences, weights), *mean_interval(differences, weights, seed)


def corpus_interval(
    counts: Sequence[Sequence[int]], score: Callable[[Sequence[float]], float], seed: int = 42
) -> tuple[float, float]:
    """The 95 % interval of a score of sums of counts over rows, such as a corpus BLEU, by the same bootstrap.

    Args:
        counts: (rows, counts), those of each row; there must be one row.
        score: of their sums.
    """
    if all(row == counts[0] for row in counts):  # which is the same score whatever is drawn
        only = score([len(counts) * count for count in counts[0]])
        return only, only
    return percentile_ends([score(sums) for [sums] in resampled_sums([counts], seed)])


def paired_corpus_difference(
    before: Sequence[Sequence[int]],
    after: Sequence[Sequence[int]],
    score: Callable[[Sequence[float]], float],
    seed: int = 42,
) -> tuple[float, float, float, float, float]:
    """Scores of sums of counts over rows before and after, and their paired difference.

    Args:
        before, after: (rows, counts), as for `corpus_interval`.
        score: of their sums.

    Returns:
        (score before, score after, difference, and the ends of its 95 % interval), as `paired_difference`.

    Raises:
        ValueError: the two do not hold the same number of rows.
    """
    check_paired(before, after)
    first, second = (score(numpy.asarray(counts, dtype=float).sum(axis=0).tolist()) for counts in (before, after))
    found = [score(b) - score(a) for a, b in resampled_sums([before, after], seed)]
    return first, second, second - first, *percentile_ends(found)


def resampled_sums(tables: Sequence[Sequence[Sequence[int]]], seed: int) -> Iterator[tuple[list[float], ...]]:
    """The sums of each table of counts, (rows, counts), over each of 10,000 seeded draws of the same rows."""
    generator = numpy.random.default_rng(seed)
    arrays = [numpy.asarray(counts, dtype=float) for counts in tables]
    rows = len(arrays[0])
    for start in range(0, RESAMPLES, size := max(BATCH_NUMBERS // rows, 1)):
        drawn = generator.multinomial(rows, numpy.full(rows, 1 / rows), size=min(size, RESAMPLES - start))
        yield from zip(*((drawn @ counts).tolist() for counts in arrays), strict=True)


def percentile_ends(found: Sequence[float]) -> tuple[float, float]:
    tail = 50 * (1 - CONFIDENCE)
    low, high = numpy.percentile(found, [tail, 100 - tail])
    return float(low), float(high)


def check_paired(before: Sequence, after: Sequence) -> None:
    if len(before) != len(after):
        raise ValueError(f"{len(before)} rows before, {len(after)} after: a paired comparison needs the same rows")


def macro_interval(right: Sequence[Sequence[bool]]) -> tuple[float, float]:
    """The 95 % interval of the mean of accuracies, each over questions of its own (subjects, say).

    The normal interval of a stratified sample. The variance of an accuracy is that of one success and one failure more
    than were seen, so that three right answers of three do not pass for certainty; it is over the questions that were
    seen, as the middle is what was seen too.

    Source: Cochran, Sampling Techniques, 1977, section 5.10; Agresti and Caffo, https://doi.org/10.1080/00031305.2000.10474560
    """
    counts = numpy.array([len(answers) for answers in right])
    share = (numpy.array([sum(answers) for answers in right]) + 1) / (counts + 2)
    half = 1.96 * float(numpy.sqrt((share * (1 - share) / counts).sum())) / len(right)
    middle = float(numpy.mean([numpy.mean(answers) for answers in right]))
    return max(middle - half, 0.0), min(middle + half, 1.0)
