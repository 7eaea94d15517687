"""Marks of good and bad answers, in every format."""

import pytest

from data.formats.fields import SkipRow
from data.formats.registry import FORMATS
from tests.support.format_records import RECORD

# Marks of good and bad answers


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("mark", ["label", "kto_tag"])
def test_an_answer_that_is_marked_as_bad_is_dropped_in_every_format(name, mark):
    row = FORMATS[name]
    for good in (True, "true", "True", None, ""):
        assert row.convert(RECORD[name] | {mark: good}) == row.convert(RECORD[name])
    for bad in (False, "false", "False"):
        with pytest.raises(SkipRow) as skipped:
            row.convert(RECORD[name] | {mark: bad})
        assert str(skipped.value) == f"{mark} is false: an answer marked as bad"


@pytest.mark.parametrize(
    ("name", "mark"), [("self-instruct", "label"), ("self-instruct", "kto_tag"), ("alpaca", "kto_tag")]
)
def test_where_only_a_mark_can_stand_it_may_be_a_number(name, mark):
    row = FORMATS[name]
    for good in (1, 1.0, "1"):
        assert row.convert(RECORD[name] | {mark: good}) == row.convert(RECORD[name])
    for bad in (0, 0.0, "0"):
        with pytest.raises(SkipRow, match=f"{mark} is false"):
            row.convert(RECORD[name] | {mark: bad})
    for neither in (2, 0.5, "good", [True], float("nan")):
        with pytest.raises(SkipRow) as skipped:
            row.convert(RECORD[name] | {mark: neither})
        assert (
            str(skipped.value)
            == f"'{mark}' is neither true nor false; rename the column if it does not mark bad answers"
        )


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "self-instruct"])
@pytest.mark.parametrize("label", [0, 1, "0", 7, "sports", [0]])
def test_the_id_of_a_class_is_no_mark_and_is_named(name, label):
    row, record = FORMATS[name], RECORD[name] | {"label": label}
    assert row.convert(record) == row.convert(RECORD[name])
    assert "label" in row.unused(record, True)
