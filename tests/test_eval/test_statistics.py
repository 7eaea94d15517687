"""Intervals against their formulas, and on rows that say nothing about a spread."""

import numpy
import pytest

from eval.statistics import interval, macro_interval, mean, mean_interval, paired_difference


def test_a_mean_and_its_interval():
    """Of 400 rows the bootstrap's interval is the normal one, 1.96 standard errors to each side."""
    rows = numpy.random.default_rng(0).normal(3, 2, 400)
    low, high = mean_interval(rows)
    error = rows.std() / 20
    assert low == pytest.approx(rows.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(rows.mean() + 1.96 * error, abs=0.1 * error)
    assert (low, high) == mean_interval(rows) != mean_interval(rows, seed=1)


def test_weights_count_a_row_that_often():
    rows, weights = [1.0, 2.0, 6.0], [2, 1, 1]
    assert mean(rows, weights) == 2.5
    low, high = mean_interval(rows, weights)
    assert 1 <= low < 2.5 < high <= 6


@pytest.mark.parametrize("rows", [[0.5], [1, 1, 1]])
def test_rows_that_are_all_alike_have_no_spread(rows):
    assert mean_interval(rows) == (rows[0], rows[0])


def test_the_interval_of_a_score_of_sums():
    """Hits over tries, of rows that have as many tries each, are a mean; of one row there is no spread."""
    hits = numpy.random.default_rng(0).integers(0, 5, 300)
    low, high = interval([[hit, 4] for hit in hits], lambda sums: sums[0] / sums[1])
    assert (low, high) == pytest.approx(mean_interval(hits / 4), rel=1e-9)  # of the same draws
    assert low < hits.mean() / 4 < high
    assert interval([[3, 4]], lambda sums: sums[0] / sums[1]) == (0.75, 0.75)


def test_a_paired_difference_is_surer_than_two_means():
    """Rows differ widely from each other, but each is 0.1 better afterwards, give or take a little."""
    generator = numpy.random.default_rng(0)
    before = generator.normal(0, 1, 100)
    after = before + 0.1 + generator.normal(0, 0.01, 100)
    difference, low, high = paired_difference(before, after)
    assert low < difference < high and difference == pytest.approx(0.1, rel=0.1)
    assert high - low < 0.01
    with pytest.raises(ValueError, match="3 rows before, 2 after"):
        paired_difference([1, 2, 3], [1, 2])


def test_the_interval_of_a_macro_average_by_hand():
    """Accuracies 3/4 and 2/8: shares 4/6 and 3/10, variances (2/9)/4 and 0.21/8, over 2 squared."""
    low, high = macro_interval([[True, True, True, False], [True, True] + 6 * [False]])
    half = 1.96 * ((2 / 9 / 4 + 0.21 / 8) ** 0.5) / 2
    assert (low, high) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = numpy.random.default_rng(0)
    truth, sizes = numpy.linspace(0.2, 0.95, 20), numpy.arange(5, 25)
    inside = 0
    for _ in range(400):
        low, high = macro_interval([generator.random(n) < p for n, p in zip(sizes, truth, strict=True)])
        inside += low <= truth.mean() <= high
    assert 0.92 <= inside / 400 <= 0.99


def test_it_stays_within_0_and_1():
    assert macro_interval([[True]])[1] == 1.0 and macro_interval([[False]])[0] == 0.0
