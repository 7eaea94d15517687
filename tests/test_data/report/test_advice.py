"""What the data report advises."""

import pytest

from data.report.advice import advise, advise_limit
from tests.support.report_rows import build, micro_batches, report_of, split_of


def test_data_that_fits_needs_no_advice():
    assert report_of([(50, 20)] * 100)["advice"] == []
    # Nor do limits far above the lengths, rows cut by next to nothing in a few cases, or a split without rows.
    assert report_of([(50, 20)] * 995 + [(50, 900)] * 5)["advice"] == []
    assert build(splits={"train": split_of([(1, 1)]).select([])})["advice"] == []
    assert build()["advice"] == []


def test_longer_targets():
    assert report_of([(50, 20)] * 90 + [(50, 300)] * 9 + [(50, 900)])["advice"] == [
        "--target_max_len 320 (now 256): 10.0% of the rows lose the end of an answer, 19.3% of all answer text; "
        "320 keeps 99% whole, at more memory"
    ]
    # All of them, where that is little more.
    (line,) = report_of([(50, 20)] * 90 + [(50, 300)] * 9 + [(50, 380)])["advice"]
    assert line.startswith("--target_max_len 384 (now 256): 10.0%") and "; 384 keeps all of them whole" in line


def test_longer_sources():
    assert report_of([(50, 60)] * 90 + [(1200, 60)] * 10)["advice"] == [
        "--source_max_len 1216 (now 1024): 10.0% of the rows lose the end of the prompt, 10.7% of all prompt text; "
        "1216 keeps all of them whole, at more memory"
    ]


def test_the_advised_limit_holds_what_it_says():
    import random

    draw = random.Random(7)
    pairs = [(20, int(draw.paretovariate(1.2) * 40)) for _ in range(3000)]
    (line,) = (line for line in report_of(pairs)["advice"] if line.startswith("--target_max_len"))
    limit = int(line.split()[1])
    assert "keeps 99% whole" in line and limit % 64 == 0
    assert sum(target <= limit for _, target in pairs) >= 0.99 * len(pairs)
    assert sum(target <= limit - 64 for _, target in pairs) < 0.99 * len(pairs)


@pytest.mark.parametrize(
    "share, strategy, order, said",
    [
        (0.15, "split", "random", None),
        (0.312, "split", "random", "--packing True: 31.2% of what is computed is padding, though rows of a step are"),
        (0.312, "budget", "random", "--packing True: 31.2% of what is computed"),
        (0.312, "random", "sequential", "--group_by_length True: 31.2% of what is computed is padding; rows of a step"),
        (0.312, "random", "group_by_length", None),
        (0.0, "packed", "random", None),
    ],
)
def test_padding(share, strategy, order, said):
    padding = micro_batches(padding_share=share, strategy=strategy, micro_batches=1.0)
    advice = report_of([(50, 20)] * 100, padding, train_sampling_strategy=order)["advice"]
    assert advice == [] if said is None else len(advice) == 1 and advice[0].startswith(said)


def test_micro_batches_filled_with_tokens():
    # 10 steps of 1,000 tokens, each in 16 micro-batches.
    assert report_of([(80, 20)] * 100, micro_batches())["advice"] == [
        "--max_tokens_per_batch 384: the same steps in about 4 micro-batches each, not 16; the largest has 370 tokens "
        "now, a row 100 on average, so memory stays as it is"
    ]
    assert len(report_of([(80, 20)] * 100, micro_batches(micro_batches=8.0))["advice"]) == 1


@pytest.mark.parametrize(
    "found, order",
    [
        ({"micro_batches": 7.9}, "random"),
        ({"largest": 100}, "random"),
        ({"strategy": "budget"}, "random"),
        ({"strategy": "packed", "micro_batches": 8.0}, "random"),
        ({"strategy": "random"}, "group_by_length"),
    ],
)
def test_micro_batches_that_stay_as_they_are(found, order):
    assert report_of([(80, 20)] * 100, micro_batches(**found), train_sampling_strategy=order)["advice"] == []


def test_shares_of_the_batching_module_are_understood():
    from data.batches.steps import StepCollator, padding_share

    padding = padding_share([100] * 160 + [300], 1, 16, StepCollator(None, 1))
    (line,) = report_of([(80, 20)] * 160 + [(280, 20)], padding)["advice"]
    assert line.startswith("--max_tokens_per_batch 320: the same steps in about 5 micro-batches each, not 15;")
    assert padding_share([100] * 160 + [300], 1, 16, StepCollator(None, 1, max_tokens=320))["micro_batches"] < 6


def test_many_passes():
    assert report_of([(50, 20)] * 100, max_steps=62)["advice"] == []
    assert len(report_of([(50, 20)] * 100, max_steps=63)["advice"]) == 1
    assert report_of([(50, 20)] * 100, max_steps=-1)["advice"] == []
    assert report_of([(50, 20)] * 100, max_steps=10000)["advice"] == [
        "--max_steps -1 --num_train_epochs 3: 10,000 steps of 16 rows are 1,600 passes over 100 rows, which are then "
        "learned by heart"
    ]
    (line,) = report_of([(50, 20)] * 100, {"rows_per_step": 32}, max_steps=62)["advice"]
    assert "62 steps of 32 rows are 20 passes" in line


def test_few_supervised_tokens():
    (line,) = report_of([(96, 4)] * 100)["advice"]
    assert line.startswith("--train_on_source True: only 4.0% of the tokens are supervised")
    assert report_of([(95, 5)] * 100)["advice"] == report_of([(96, 4)] * 100, train_on_source=True)["advice"] == []


def test_a_prediction_run_is_told_of_cuts_only():
    pairs = [(96, 4)] * 90 + [(1200, 4)] * 10
    report = build(splits={"eval": split_of(pairs)}, max_steps=10000)
    assert [line.split(" (")[0] for line in report["advice"]] == ["--source_max_len 1216"]


def test_advice_says_where_the_model_was_made_for_less():
    limits = {"source_max_len": 256, "target_max_len": 128, "context": 512}
    cut = {"rows": 5, "rows_share": 0.5, "tokens_share": 0.25, "p99": 700, "max": 700}
    assert advise_limit("target", cut, limits) == (
        "50.0% of the rows lose the end of an answer, 25.0% of all answer text: with --target_max_len 832 (now 128) "
        "all of them would be whole, but this model was made for 512 tokens in all"
    )
    assert advise_limit("target", cut, limits | {"context": 4096}).startswith("--target_max_len 832 (now 128): 50.0%")


def test_advice_on_what_was_lost_and_on_packing_that_packs_nothing():
    cut = {"rows": 0, "rows_share": 0, "tokens_share": 0, "p99": 0, "max": 0}
    split = {"rows": 40, "tokens": 4000, "source": {"cut": cut}, "target": {"cut": cut}, "supervised": {"share": 0.5}}
    batching = {"strategy": "packed", "micro_batches": 12.0, "rows_per_process": 16, "rows_per_step": 16}
    limits = {"max_steps": -1, "source_max_len": 64, "target_max_len": 64, "train_on_source": False}
    source = {
        "source": "my.jsonl",
        "rows": 40,
        "dropped": {"column 'output' holds a number": {"rows": 10, "places": []}},
    }
    report = {"sources": [source], "train": split, "eval": None, "limits": limits, "batching": batching}
    assert advise(report) == [
        "look at my.jsonl: 20.0% of its rows were dropped, for the reasons above",
        "--max_tokens_per_batch 448: packing puts 1.3 rows in a sequence as it is; that long, a sequence holds about 4",
    ]
    report["batching"] = batching | {"micro_batches": 8.0}
    report["sources"] = [source | {"dropped": {}}]
    assert advise(report) == []


def test_an_outlier_is_no_reason_for_a_limit():
    cut = {"rows": 1, "rows_share": 0.02, "tokens_share": 0.9, "p99": 90_000, "max": 90_000}
    assert advise_limit("target", cut, {"target_max_len": 64, "source_max_len": 64}) == (
        "2.0% of the rows lose the end of an answer, 90.0% of all answer text; the longest would need --target_max_len "
        "90112 (now 64): look whether it belongs there"
    )
