"""The numbers of the data report."""

import json

import pytest

from data.report.numbers import CONVERSATIONS, describe
from tests.support.flags import data_module
from tests.support.report_rows import NO_CUT, split_of


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
