"""The data report: exact numbers of small data sets, advice only where the numbers ask for it, text, file."""

import json

import pytest

from data.report.advice import advise, advise_limit
from data.report.numbers import CONVERSATIONS, build_report, describe
from data.report.text import format_report
from tests.flags import data_module

FLAGS = {
    "source_max_len": 1024,
    "target_max_len": 256,
    "train_on_source": False,
    "max_steps": 50,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "max_tokens_per_batch": None,
    "packing": False,
    "train_sampling_strategy": "random",
}
LIMITS = ("source_max_len", "target_max_len", "train_on_source", "max_steps")
NO_CUT = {"rows": 0, "rows_share": 0.0, "tokens": 0, "tokens_share": 0.0, "p99": 0, "max": 0}


def build(sources=(), splits=None, padding=None, duplicates=None, **flags):
    """The report of splits with these flags."""
    values = FLAGS | flags
    limits = {name: values[name] for name in LIMITS}
    batching = {name: value for name, value in values.items() if name not in LIMITS} | {"rows_per_step": 16}
    splits = {"train": None, "eval": None} | (splits or {})
    if values["train_sampling_strategy"] != "group_by_length":  # of which nothing is counted
        batching |= padding or {}
    return build_report(sources, splits, limits, batching, duplicates or {})


def split_of(pairs, source_max_len=1024, target_max_len=256, supervised=None):
    """A tokenized split from (source tokens, target tokens) before the cuts."""
    import datasets

    rows = []
    for number, (source, target) in enumerate(pairs, 1):
        kept = min(source, source_max_len), min(target, target_max_len)
        rows.append(
            {
                "length": sum(kept),
                "source_tokens": source,
                "target_tokens": target,
                "source_cut": source - kept[0],
                "target_cut": target - kept[1],
                "supervised": kept[1] if supervised is None else supervised,
                **dict.fromkeys(CONVERSATIONS, 0),
                "place": number,
            }
        )
    return datasets.Dataset.from_list(rows)


def report_of(pairs, padding=None, **flags):
    limits = FLAGS | flags
    split = split_of(pairs, limits["source_max_len"], limits["target_max_len"])
    return build(splits={"train": split}, padding=padding, **flags)


def test_numbers_of_three_rows():
    found = describe(split_of([(10, 2), (30, 5), (20, 9)], source_max_len=20, target_max_len=6))
    assert found == {
        "rows": 3,
        "tokens": 12 + 25 + 26,
        "source": {
            **{"p50": 20, "p90": 30, "p99": 30, "max": 30},
            "cut": {"rows": 1, "rows_share": 1 / 3, "tokens": 10, "tokens_share": 10 / 60, "p99": 10, "max": 10},
        },
        "target": {
            **{"p50": 5, "p90": 9, "p99": 9, "max": 9},
            "cut": {"rows": 1, "rows_share": 1 / 3, "tokens": 3, "tokens_share": 3 / 16, "p99": 3, "max": 3},
        },
        "whole": {
            **{"p50": 25, "p90": 26, "p99": 26, "max": 26},
            "cut": {"rows": 2, "rows_share": 2 / 3, "tokens": 13, "tokens_share": 13 / 76, "p99": 10, "max": 10},
        },
        "supervised": {"tokens": 13, "per_row": 13 / 3, "share": 13 / 63, "rows_without": 0},
        "conversations": dict.fromkeys(CONVERSATIONS, 0),
    }
    json.dumps(found)  # numpy's numbers would not do


@pytest.mark.parametrize("rows", [1, 2, 99, 100, 101, 1000])
def test_a_quantile_is_the_shortest_length_that_holds_its_share(rows):
    import random

    lengths = random.Random(rows).sample(range(1, 5 * rows + 1), rows)
    found = describe(split_of([(length, 1) for length in lengths], source_max_len=10**6))["source"]
    for name, percent in (("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)):
        held = [sum(other <= length for other in lengths) * 100 >= percent * rows for length in sorted(lengths)]
        assert found[name] == sorted(lengths)[held.index(True)]


def test_a_selection_is_described_not_what_it_was_taken_from():
    split = split_of([(10, 2), (30, 5), (20, 9)])
    found = describe(split.select([2, 0]))
    assert (found["rows"], found["tokens"], found["source"]["max"]) == (2, 29 + 12, 20)
    assert describe(split.shuffle(seed=1)) == describe(split)


def test_rows_without_supervision_and_no_rows():
    assert describe(split_of([(10, 2), (30, 5)], supervised=0))["supervised"] == {
        **{"tokens": 0, "per_row": 0.0, "share": 0.0, "rows_without": 2}
    }
    empty = describe(split_of([(10, 2)]).select([]))
    assert (empty["rows"], empty["tokens"], empty["whole"]) == (
        0,
        0,
        {"p50": 0, "p90": 0, "p99": 0, "max": 0} | {"cut": NO_CUT},
    )


def test_rows_are_not_read_one_by_one(monkeypatch):
    """Which takes seconds where a data set was selected from, as every split was; the columns take a moment."""
    import datasets

    split = split_of([(50, 20)] * 9).shuffle(seed=0)
    expected = describe(split)

    def refuse(*args):
        raise AssertionError("a row was read")

    for name in ("__getitem__", "__iter__", "__getitems__"):
        monkeypatch.setattr(datasets.Dataset, name, refuse)
    assert describe(split) == expected


def test_answers_that_lose_something_to_the_template_are_counted(tiny_tokenizer, tmp_path, capsys):
    """Answers before the last that nothing closes, and thoughts that are not shown: in the report, by split."""
    from tests.test_data.test_loading import flags

    turns = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello.", "reasoning_content": "Hm."}]
    system, tools = {"role": "system", "content": "Be brief."}, [{"name": "add"}]
    file, template = tmp_path / "chat.jsonl", tmp_path / "open.jinja"
    row = json.dumps({"messages": [system, *turns * 3], "tools": tools}) + "\n"
    file.write_text(row * 6, encoding="utf-8")
    template.write_text(
        "{% for m in messages if m.role != 'system' %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
        "{{ 'assistant:' if add_generation_prompt }}"
    )
    report = data_module(tiny_tokenizer, flags(file, chat_template=str(template))).report
    lost = {"unclosed": 4, "hidden_thoughts": 6, "hidden_turns": 2, "hidden_tools": 2}
    assert report["train"]["conversations"] == lost
    printed = capsys.readouterr().out
    assert "note: the chat template closes answers with nothing: </s> is put behind the last" in printed
    assert "template:    train: 4 answers before the last one are closed by nothing" in printed
    assert "train: 2 turns (system, user or tool) are left out by the chat template" in printed
    assert "eval: 4 tools are left out by the chat template" in printed
    assert "eval: 12 answers have a thought that the chat template leaves out: it is not learned" in printed


# Advice


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


def micro_batches(**found):
    counts = {"rows_per_process": 16, "steps": 10, "micro_batches": 16.0, "largest": 370}
    return {"padding_share": 0.0, "strategy": "split"} | counts | found


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


# The report, its text and its file

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
