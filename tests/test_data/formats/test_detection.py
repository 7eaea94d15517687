"""Which format rows are of, by their columns and by name, and questions that have no answer."""

import pytest

from common.errors import DataError
from data.formats import registry as formats
from data.formats.detection import as_question, detect_format, find_format
from data.formats.fields import SkipRow
from data.formats.registry import FORMATS
from data.named import NAMED_DATASETS, REFUSED_DATASETS
from tests.support.format_records import PROMPT_WITH_INPUT, PROMPT_WITHOUT_INPUT, published

# Names and detection


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"instruction": "i", "input": "", "output": "o", "text": "t"}, "alpaca"),
        ({"topic": "t", "instruction": "i", "input": "", "output": "o", "prompt": "p"}, "alpaca"),
        ({"instruction": "i", "output": ["o"]}, "alpaca"),
        ({"input": "i", "output": "o", "prompt": "p", "text": "t"}, "input-output"),
        ({"chosen": "a", "rejected": "b", "prompt": "p"}, "preference"),
        ({"text": "### Human: hi### Assistant: x", "meta": {}}, "oasst1"),
        ({"text": " <human>: hi"}, "text"),
        ({"text": None}, "text"),
        ({"messages": [], "prompt": "p", "completion": "c"}, "messages"),
        ({"instruction": "i", "instances": [{"instruction_with_input": "i", "output": "o"}]}, "unnatural-instructions"),
    ],
)
def test_detection_prefers_what_asks_for_more(record, name):
    assert detect_format(record).name == name


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"chosen": {"from": "gpt", "value": "v"}, "rejected": {}},
        {"instances": [3]},
        {"instances": []},
    ],
)
def test_unknown_columns_are_refused_with_the_formats(record):
    with pytest.raises(DataError) as refused:
        detect_format(record)
    message = str(refused.value)
    assert all(repr(column) in message for column in record)
    assert all(f"  {row.name}: {', '.join(row.columns)}" in message for row in FORMATS.values())
    assert "  hh-rlhf: chosen (chosen is a text)\n" in message
    assert "--dataset_format" in message


@pytest.mark.parametrize(
    ("record", "hint"),
    [
        ({"question": "q", "answers": "a"}, "rename 'answers' to 'answer' (format question-answer)"),
        (
            {"instruction": "i", "response": "r"},
            "there is no 'output' (format alpaca): rename the column that holds the",
        ),
        ({"instances": [{"input": "i", "output": "o"}]}, "are the rows the list in 'instances'?"),
        ({"Prompt": "p", " completion": "c"}, "rename 'Prompt' to 'prompt' and ' completion' to 'completion'"),
    ],
)
def test_columns_that_are_nearly_right_get_a_hint_instead(record, hint):
    with pytest.raises(DataError) as refused:
        detect_format(record)
    assert str(refused.value).splitlines()[1].startswith(hint) and "formats and the columns" not in str(refused.value)


def test_a_format_that_looks_at_values_says_for_what():
    always = formats.Format("x", (), dict).looks_right
    assert all((row.looks_right is always) == (not row.looks) for row in FORMATS.values())


def test_format_names():
    assert find_format("alpaca-clean") is find_format("alpaca-gpt4") is FORMATS["alpaca"]
    assert find_format("longform") is FORMATS["input-output"]
    assert find_format("guanaco") is FORMATS["oasst1"]
    assert find_format("prompt-completion") is FORMATS["self-instruct"]
    assert find_format("gsm8k") is FORMATS["question-answer"]
    assert find_format("unnatural-instructions-core") is FORMATS["unnatural-instructions"]
    assert find_format("flan-v2") is FORMATS["flan"]
    # the alias of a format comes before the data set of that name, which is the hub's flat copy
    assert find_format("supernatural-instructions") is FORMATS["super-natural-instructions"]
    assert NAMED_DATASETS["supernatural-instructions"].format == "natural-instructions"
    with pytest.raises(DataError, match="did you mean input-output") as refused:
        find_format("input_output")
    assert all(name in str(refused.value) for name in FORMATS)


def test_names_stand_for_one_thing():
    aliases = [alias for row in FORMATS.values() for alias in row.aliases]
    assert len(set(aliases)) == len(aliases) and not set(aliases) & set(FORMATS)
    assert {data_set.format for data_set in NAMED_DATASETS.values()} <= set(FORMATS)
    for name in set(NAMED_DATASETS) & set(FORMATS):
        assert NAMED_DATASETS[name].format == name


def test_named_datasets_are_those_of_the_published_runs():
    assert set(NAMED_DATASETS) == {
        "alpaca",
        "alpaca-clean",
        "alpaca-gpt4",
        "chip2",
        "dolly",
        "flan-v2",
        "guanaco",
        "hh-rlhf",
        "longform",
        "oasst1",
        "self-instruct",
        "supernatural-instructions",
        "unnatural-instructions",
        "unnatural-instructions-core",
        "unnatural-instructions-full",
    }
    assert all("path" in data_set.source for data_set in NAMED_DATASETS.values())
    assert set(REFUSED_DATASETS) == {"vicuna"}


# Questions without answers


@pytest.mark.parametrize(
    ("record", "name", "prompt"),
    [
        ({"instruction": "Add.", "input": "1 2"}, "alpaca", PROMPT_WITH_INPUT),
        ({"instruction": "Add.", "output": None}, "alpaca", PROMPT_WITHOUT_INPUT),
        ({"input": "1 + 2 ="}, "input-output", "1 + 2 ="),
        ({"question": "1 + 2?"}, "question-answer", "Question: 1 + 2?\nAnswer: "),
        ({"prompt": "1 + 2 =", "id": 7}, "self-instruct", "1 + 2 ="),
    ],
)
def test_a_question_has_an_empty_answer(record, name, prompt):
    row = detect_format(record, questions=True)
    assert row.name == name
    assert published(row.convert(as_question(record, row))) == {"input": prompt, "output": ""}


def test_a_conversation_that_waits_for_its_answer():
    for record in (
        {"messages": [{"role": "user", "content": "hi"}]},
        {"conversations": [{"from": "human", "value": "hi"}]},
    ):
        row = detect_format(record, questions=True)
        turns = row.convert(as_question(record, row))["messages"]
        assert [(turn["role"], turn["content"]) for turn in turns] == [("user", "hi"), ("assistant", "")]
    answered = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
    assert as_question(answered, FORMATS["messages"]) is answered


def test_a_turn_of_an_odd_kind_is_left_to_the_checks():
    for turn in ({"role": ["assistant"]}, {"role": None}, {}):
        record = {"messages": [turn]}
        assert as_question(record, FORMATS["messages"]) is record
        with pytest.raises(SkipRow):
            FORMATS["messages"].convert(record)


def test_to_train_on_a_question_is_refused():
    with pytest.raises(DataError, match="no format fits its columns: 'input'"):
        detect_format({"input": "1 + 2 ="})
