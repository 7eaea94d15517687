"""Alpaca, Unnatural Instructions, and what stands beside an instruction."""

import json

import pytest

from data.formats.detection import detect_format
from data.formats.fields import SkipRow
from data.formats.instructions import ALPACA_PROMPT_DICT, extract_alpaca_dataset, extract_unnatural_instructions_data
from data.formats.registry import FORMATS
from tests.support.format_records import HISTORY, PROMPT_WITH_INPUT, PROMPT_WITHOUT_INPUT, RECORD, published

# Alpaca and Unnatural Instructions


@pytest.mark.parametrize("nothing", [{}, {"input": ""}, {"input": None}])
def test_alpaca_without_input(nothing):
    record = {"instruction": "Add.", "output": "3", **nothing}
    assert extract_alpaca_dataset(record) == {"input": PROMPT_WITHOUT_INPUT}
    assert published(FORMATS["alpaca"].convert(record)) == {"input": PROMPT_WITHOUT_INPUT, "output": "3"}


@pytest.mark.parametrize("nothing", [{}, {"context": ""}, {"context": None}])
def test_dolly_without_context(nothing):
    record = {"instruction": "Add.", "response": "3", **nothing}
    assert published(FORMATS["dolly"].convert(record)) == {"input": PROMPT_WITHOUT_INPUT, "output": "3"}


def test_published_alpaca_prompts():
    assert set(ALPACA_PROMPT_DICT) == {"prompt_input", "prompt_no_input"}
    assert extract_alpaca_dataset({"instruction": "Add.", "input": "1 2"}) == {"input": PROMPT_WITH_INPUT}


def test_braces_in_a_record_are_text():
    assert "{x} {0}" in extract_alpaca_dataset({"instruction": "{x} {0}", "input": "{instruction}"})["input"]


def test_alpaca_with_several_answers_is_a_row_for_each():
    record = {"instruction": "Add.", "input": "1 2", "output": ["3", "three"]}
    assert published(FORMATS["alpaca"].convert(record)) == [
        {"input": PROMPT_WITH_INPUT, "output": "3"},
        {"input": PROMPT_WITH_INPUT, "output": "three"},
    ]


def test_unnatural_instructions_batch_has_instances_first():
    def made(text):
        return {"instruction_with_input": text, "input": "unused", "output": text.upper(), "constraints": "None."}

    batch = {
        "instances": [[made("a")], [made("b"), made("c")]],
        "reformulations": [[made("d")], None],
    }
    assert extract_unnatural_instructions_data(batch) == {"input": ["a", "b", "c"], "output": ["A", "B", "C"]}
    assert extract_unnatural_instructions_data(batch, extract_reformulations=True) == {
        "input": ["a", "b", "c", "d"],
        "output": ["A", "B", "C", "D"],
    }


@pytest.mark.parametrize("without", [{"reformulations": None}, {"reformulations": []}])
def test_full_unnatural_instructions_without_reformulations(without):
    record = RECORD["unnatural-instructions-full"] | without
    assert detect_format(record).name == "unnatural-instructions-full"
    assert FORMATS["unnatural-instructions-full"].convert(record) == [{"input": "Add 1 2.", "output": "3"}]


def test_core_takes_no_reformulations():
    full = RECORD["unnatural-instructions-full"]
    assert FORMATS["unnatural-instructions"].convert(full) == [{"input": "Add 1 2.", "output": "3"}]


# System texts, earlier turns and tools beside an instruction


def turns(row):
    return [(one["role"], one["content"], one["supervised"]) for one in row["messages"]]


def test_alpaca_with_system_and_history_is_a_conversation():
    record = RECORD["alpaca"] | {"system": "Be short.", "history": HISTORY}
    earlier = [("user", "Add 1 1.", False), ("assistant", "2", False)]
    earlier += [("user", "Add 2 2.", False), ("assistant", "4", False)]
    asked = [("user", "Add.\n1 2", False), ("assistant", "3", True)]
    convert = FORMATS["alpaca"].convert
    assert turns(convert(record)) == [("system", "Be short.", False), *earlier, *asked]
    assert turns(convert(record | {"system": None, "input": ""})) == [*earlier, ("user", "Add.", False), asked[1]]
    assert turns(convert(record | {"history": json.dumps(HISTORY), "system": ""})) == [*earlier, *asked]  # as in CSV
    assert turns(convert(record | {"history": []})) == [("system", "Be short.", False), *asked]
    assert convert(RECORD["alpaca"] | {"tools": "[{}]"})["tools"] == [{}]
    several = convert(record | {"output": ["3", "three"]})
    assert [turns(one)[-1] for one in several] == [("assistant", "3", True), ("assistant", "three", True)]


@pytest.mark.parametrize("name", ["alpaca", "dolly", "alpaca-preference"])
@pytest.mark.parametrize("nothing", [None, "", " ", [], "[]"])
def test_without_system_and_history_an_instruction_stays_a_pair(name, nothing):
    system = nothing if nothing != "[]" and not isinstance(nothing, list) else ""
    columns = {"system": system, "history": nothing, "tools": nothing}
    assert published(FORMATS[name].convert(RECORD[name] | columns)) == {"input": PROMPT_WITH_INPUT, "output": "3"}


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"system": 3}, "column 'system' holds a number, not a text"),
        ({"history": "["}, "column 'history' holds a text that is not JSON"),
        ({"history": "hi"}, "column 'history' holds a text that is not JSON"),
        ({"history": {"a": 1}}, "column 'history' holds an object, not a list"),
        ({"history": ["hi"]}, "column 'history' holds something other than lists of a question and its answer"),
        ({"history": [["q"]]}, "column 'history' holds something other than lists of a question and its answer"),
        ({"history": [["q", 3]]}, "'content' of a message holds a number, not a text"),
    ],
)
def test_history_that_cannot_be_read(columns, reason):
    with pytest.raises(SkipRow) as skipped:
        FORMATS["alpaca"].convert(RECORD["alpaca"] | columns)
    assert str(skipped.value) == reason
