"""Which rows are held out and how many rows each part of a mix gives: seeded, whole, and refused where none is left."""

import pytest

from common.errors import DataError
from data.splits import count_held_out, mix_counts, shuffled, split_indices


@pytest.mark.parametrize(
    ("size", "rows", "held_out"), [(1, 20, 1), (1.0, 20, 1), (19, 20, 19), (0.5, 20, 10), (0.01, 20, 1), (0.26, 20, 6)]
)
def test_held_out_rows_are_a_count_or_a_fraction(size, rows, held_out):
    assert count_held_out(size, rows, "f") == held_out


@pytest.mark.parametrize(
    ("size", "what"),
    [
        (1024, "holds 1,024 rows out, but f has 20"),
        (20, "holds 20 rows out, but f has 20"),
        (0.99, "holds 20 rows out, but f has 20"),
    ],
)
def test_impossible_sizes_are_refused_with_the_numbers(size, what):
    with pytest.raises(DataError) as refused:
        count_held_out(size, 20, "f")
    assert what in str(refused.value)


def test_split_is_seeded_ordered_and_whole():
    train, held_out = split_indices(100, 30, seed=1)
    assert train == sorted(train)
    assert held_out == sorted(held_out)
    assert sorted(train + held_out) == list(range(100))
    assert split_indices(100, 30, seed=1) == (train, held_out)
    assert split_indices(100, 30, seed=2) != (train, held_out)
    assert set(split_indices(100, 10, seed=1)[1]) < set(held_out)


@pytest.mark.parametrize(
    ("rows", "weights", "counts"),
    [
        ([10, 20], [None, None], [10, 20]),
        ([1000, 1000], [0.7, 0.3], [1000, 429]),
        ([1000, 1000], [7, 3], [1000, 429]),
        ([10, 1000], [0.5, 0.5], [10, 10]),
        ([3, 1000], [0.999, 0.001], [3, 1]),
        ([100, 50, 50], [2, 1, 1], [100, 50, 50]),
    ],
)
def test_mix_takes_no_row_twice_and_keeps_the_proportions(rows, weights, counts):
    assert mix_counts(rows, weights) == counts


def test_order_is_that_of_the_seed_and_holds_every_row_once():
    order = shuffled(100, seed=1)
    assert sorted(order) == list(range(100)) != order
    assert order == shuffled(100, seed=1) != shuffled(100, seed=2)
    assert shuffled(0, seed=1) == []


def test_order_stays_the_same_from_version_to_version():
    """Rows held out of an adapter trained long ago must not come back as rows it was trained on."""
    assert shuffled(8, seed=42) == [3, 4, 6, 7, 2, 5, 0, 1]
