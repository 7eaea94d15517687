"""What `rounding` takes for equal."""

import pytest

from tests.support.rounding import assert_near


def test_rounding_counts_by_the_size_of_all_numbers():
    assert_near([1e6, 1.0], [1e6, 2.0])
    assert_near({"a": [1.0], "b": [1e-9, 0.0]}, {"a": [1.0], "b": [1e-9, 1e-15]})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1.0, 2.0], [1.0, 2.0001]),
        ({"a": [1e6], "b": [1.0]}, {"a": [1e6], "b": [1.0001]}),
        ({"a": [1.0]}, {"a": [1.0], "b": [1.0]}),
        ({}, {}),
        ([0.0], [0.0]),  # nothing was trained
        ([float("nan")], [1.0]),
        ([1.0, 1.0], [1.0]),
    ],
)
def test_what_differs_by_more_is_seen(one, other):
    with pytest.raises(AssertionError):
        assert_near(one, other)
