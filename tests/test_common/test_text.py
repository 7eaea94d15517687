"""Tables, shares, counted words and shortened lines."""

from common.text import counted, first_of, percent, shortened, table

ROWS = [["", "base", "tuned"], ["eval loss", "1.73", "0.27"], ["BLEU", "2", "46"]]


def test_a_table_stands_in_columns():
    assert table(ROWS).splitlines() == ["           base  tuned", "eval loss  1.73   0.27", "BLEU          2     46"]


def test_columns_that_stand_to_the_left():
    rows = [["who", "verdict"], ["a", "better"], ["b", "no"]]
    assert table(rows, left=(0, 1)).splitlines()[-1] == "b    no"


def test_a_cell_may_be_indented():
    assert table([["all"], ["  one"]]).splitlines() == ["all", "  one"]


def test_a_table_of_a_header_alone():
    assert table([["a", "b"]]).split() == ["a", "b"]
    assert table([["a", "b"]], markdown=True).startswith("| a")


def test_a_bar_in_a_cell_of_markdown_is_text():
    cells = table([["name", "n"], ["a|b", "1"]], markdown=True).splitlines()[-1].replace(r"\|", "").split("|")
    assert [cell.strip() for cell in cells] == ["", "ab", "1", ""]


def test_numbers_that_are_text_stay_as_they_are():
    assert "1.730" in table([["a"], ["1.730"]]) and "007" in table([["a"], ["007"]], markdown=True)


def test_a_share_is_never_rounded_to_nothing():
    assert [percent(share) for share in (0, 0.0001, 0.0005, 0.25, 1)] == [
        "0.0%",
        "under 0.1%",
        "0.1%",
        "25.0%",
        "100.0%",
    ]


def test_counted_words():
    assert (counted(1, "row"), counted(0, "row"), counted(2000, "row")) == ("1 row", "0 rows", "2,000 rows")


def test_the_first_of_many():
    assert first_of("abc") == "a, b, c" and first_of([]) == ""
    assert first_of(map(str, range(2000)), 2) == "0, 1 and 1,998 more"
    assert first_of(["a", "b"], 2, total=9) == "a, b and 7 more"


def test_a_long_text_keeps_both_ends_on_one_line():
    assert shortened("a\n b") == "a b"
    text = shortened("begin " + "x" * 200 + " end", 20)
    assert len(text) <= 20 and text.startswith("begin") and text.endswith("end") and "…" in text
