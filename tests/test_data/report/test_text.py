"""The data report as text and as a file."""

import pytest

from data.report.numbers import describe
from data.report.text import format_report
from tests.support.report_rows import FLAGS, LIMITS, build, micro_batches, report_of, split_of

SOURCE = {
    **{"source": "rows.jsonl", "unit": "line", "format": "alpaca", "records": 1203, "rows": 1200},
    **{"dropped": {}, "unused": {}, "use": "train", "used": 1200},
}
DROPPED = {
    "no assistant turn": {"rows": 1, "places": [7]},
    "'output' is empty": {"rows": 2000, "places": list(range(1001, 1021))},
}


def test_keys_of_the_file():
    split = split_of([(10, 2)])
    report = build([SOURCE], {"train": split}, {"padding_share": 0.1}, {"both": 2})
    assert list(report) == ["sources", "train", "eval", "duplicates", "limits", "batching", "advice"]
    assert report["sources"] == [SOURCE]
    assert report["train"] == describe(split)
    assert report["eval"] is None
    assert report["duplicates"] == {"both": 2}
    assert report["limits"] == {name: FLAGS[name] for name in LIMITS}
    assert (report["batching"]["rows_per_step"], report["batching"]["padding_share"]) == (16, 0.1)


def test_text_of_a_clean_data_set():
    report = build(
        [SOURCE | {"records": 1200}],
        {"train": split_of([(1200, 60)] * 1100, 2048)},
        {"padding_share": 0.0, "strategy": "split", "steps": 69, "micro_batches": 4.0, "largest": 5040},
    )
    lines = [line.split() for line in format_report(report | {"advice": []}).split("\n")]
    for line in (
        "read: rows.jsonl (alpaca): 1,200 rows, 0 dropped, 1,200 kept",
        "split: 1,100 train",
        "tokens: p50 p90 p99 max rows cut tokens cut",
        "train source 1,200 1,200 1,200 1,200 0 0",
        "train target 60 60 60 60 0 0",
        "train whole 1,260 1,260 1,260 1,260 0 0",
        "supervised: train: 66,000 tokens, 60.0 per row, 4.8% of all",
    ):
        assert line.split() in lines
    assert "of 4 rows by length within a step: 0.0% padding, 4.0 of them a step" in " ".join(sum(lines, []))


def test_many_names_that_are_not_used_are_counted():
    unused = {f"column_{number}": 1200 for number in range(33)}
    text = " ".join(format_report(build([SOURCE | {"unused": unused}])).split())
    assert "not used: column_0 (1,200 rows), column_1" in text and "column_29 (1,200 rows) and 3 more" in text


def test_text_of_what_is_wrong():
    splits = {
        "train": split_of([(50, 20)] * 999 + [(50, 300)], target_max_len=64),
        "eval": split_of([(50, 20)], supervised=0),
    }
    source = SOURCE | {"source": "rows.parquet", "format": "chip2", "records": 9, "rows": 3000, "dropped": DROPPED}
    unused = {"id": 9, "messages[].name": 1}
    report = build(
        [source | {"weight": 0.5, "unit": "row", "used": 1500, "unused": unused}, SOURCE | {"use": "eval"}],
        splits,
        None,
        {"train": 1, "both": 2},
        target_max_len=64,
        max_steps=10000,
    )
    lines = format_report(report).split("\n")
    text = " ".join(" ".join(lines).split())
    for part in (
        "rows.parquet (chip2): 5,001 rows from 9 records, 2,001 dropped, 3,000 kept, 1,500 used (weight 0.5)",
        "not used: id (9 rows), messages[].name (1 row)",
        "1 row (row 7): no assistant turn",
        "2,000 rows (rows 1001, 1002, 1003, 1004, 1005 and 1,995 more): 'output' is empty",
        "rows.jsonl (alpaca): 1,200 rows from 1,203 records, 0 dropped, 1,200 kept; for evaluation",
        "1 row of train repeats an earlier one",
        "2 rows of eval are in train too: what is measured there flatters",
        "train target 20 20 20 300 1 (0.1%) 236 (1.2%)",
        "eval whole 70 70 70 70 0 0 source and target before the cuts, whole after them",
        "eval: 0 tokens, 0.0 per row, 0.0% of all; 1 row without any",
        "advice: look at rows.parquet: 40.0% of its rows were dropped, for the reasons above",
        "10,000 steps of 16 rows are 160 passes over 1,000 rows, which are then learned by heart",
    ):
        assert part in text
    assert all(len(line) <= 118 for line in lines)


@pytest.mark.parametrize(
    "found, flags, said",
    [
        (
            {"strategy": "random"},
            {},
            "of 4 rows as they come: 10.0% padding, 2.0 of them a step, the largest of 256 tokens",
        ),
        (
            {"strategy": "budget"},
            {"max_tokens_per_batch": 4096},
            "of up to 4,096 tokens by length within a step: 10.0%",
        ),
        (
            {"strategy": "packed"},
            {"packing": True},
            "packed from the rows of a step: 10.0% padding, 2.0 of them a step,",
        ),
        ({"strategy": "random"}, {"train_sampling_strategy": "group_by_length"}, "of 4 rows, group_by_length"),
    ],
)
def test_text_of_the_batching(found, flags, said):
    padding = micro_batches(padding_share=0.1, micro_batches=2.0, largest=256) | found
    text = format_report(report_of([(50, 20)] * 100, padding, **flags))
    assert f"  batching:    micro-batches {said}" in text
    assert ("padding" in text) == ("train_sampling_strategy" not in flags)


def test_a_small_share_is_not_shown_as_nothing():
    split = split_of([(50, 20)] * 2999 + [(50, 257)])
    text = format_report(build(splits={"train": split}))
    assert "1 (under 0.1%)" in text
