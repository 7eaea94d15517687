"""Every format: its record, its row in the README, what it uses and what it drops."""

import json
import re
from collections import Counter

import pytest

from data import named
from data.formats import conversations
from data.formats import registry as formats
from data.formats.detection import detect_format
from data.formats.fields import SkipRow
from data.formats.registry import FORMATS
from data.named import NAMED_DATASETS, REFUSED_DATASETS
from tests.support.format_records import HISTORY, RECORD, RECORDS, published, shown
from tests.support.paths import REPOSITORY


@pytest.mark.parametrize(("name", "record", "expected"), RECORDS, ids=[name for name, *_ in RECORDS])
def test_record_is_detected_and_formatted(name, record, expected):
    before = json.dumps(record)
    assert detect_format(record).name == name
    assert published(FORMATS[name].convert(record)) == expected
    assert json.dumps(record) == before


def test_every_format_has_a_record_here():
    assert [name for name, *_ in RECORDS] == list(FORMATS)


# README


def readme() -> str:
    return (REPOSITORY / "data" / "README.md").read_text(encoding="utf-8")


def format_rows() -> dict[str, list[str]]:
    """The cells of the table of formats, by the name in the first."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in readme().splitlines() if line.startswith("| ")]
    return {cells[0].split(" ")[0]: cells for cells in rows if len(cells) == 5 and cells[1].startswith("`{")}


def test_readme_has_a_row_for_every_format_alias_and_name():
    rows = format_rows()
    assert list(rows) == list(FORMATS)
    for name, row in FORMATS.items():
        assert set(row.aliases) <= set(re.findall(r"[\w-]+", rows[name][0])[1:]), name
    for name, data_set in NAMED_DATASETS.items():
        assert name in rows[data_set.format][4].split(", ")
    assert all(name in readme() for name in REFUSED_DATASETS)


def test_readme_has_a_row_for_every_field_of_other_tools():
    table = readme().partition("## Columns and fields of other tools")[2].partition("\n## ")[0]
    named = {
        name
        for row in table.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    known = {*formats.MARKS, *conversations.BESIDE_MESSAGES, *conversations.REASONING, *conversations.CALLS}
    known |= {*conversations.LEARNED, *conversations.LEARNED_IN_PART, "history", "rejected"}
    assert known <= named


@pytest.mark.parametrize("name", FORMATS)
def test_record_in_the_readme_is_of_its_format(name):
    record = json.loads(re.match(r"`(\{.*?\})`(?:;|$)", format_rows()[name][1])[1])
    assert detect_format(record).name == name
    made = FORMATS[name].convert(record)
    assert made and not any(isinstance(one, SkipRow) for one in (made if isinstance(made, list) else [made]))


def test_code_in_the_readme_adds_a_format():
    code = re.search(r"```python\n(.*?)```", readme(), re.DOTALL)[1]
    function, in_formats, in_datasets = re.split(r"^# in .*\n", code, flags=re.MULTILINE)
    names = vars(formats) | vars(named)
    exec(function, names)
    (row,), data_sets = eval(f"[{in_formats}]", names), eval(f"{{{in_datasets}}}", names)
    assert row.convert({"riddle": "What has keys but no locks?", "solution": "A piano."}) == {
        "input": "Riddle: What has keys but no locks?\nSolution: ",
        "output": "A piano.",
    }
    assert data_sets[row.name].format == row.name


# What is not used


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("system", "Be short."),
        ("history", HISTORY),
        ("tools", [{"type": "function", "function": {"name": "now"}}]),
        ("functions", [{"name": "now"}]),
        ("label", False),
        ("label", 3),
        ("kto_tag", "false"),
        ("rejected", [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]),
        ("chat_template_kwargs", {"enable_thinking": False}),
        ("input", "x"),
        ("context", "x"),
        ("response", "x"),
        ("reformulations", [{"instruction_with_input": "x", "output": "y"}]),
        ("id", 7),
    ],
)
def test_every_column_decides_something_or_is_named(name, column, value):
    row, record = FORMATS[name], RECORD[name]
    if column in row.columns:
        return
    without, record = row.convert({c: v for c, v in record.items() if c != column}), record | {column: value}
    try:
        made = row.convert(record)
    except SkipRow:
        made = None
    rows = made if isinstance(made, list) else [made]
    changed = made != without
    if made is not None:
        is_conversation = any("messages" in one for one in rows)
        assert (column in row.unused(record, is_conversation)) != (changed or column in row.uses)
    assert changed or column in row.unused(record, any("messages" in one for one in rows)) or column in row.uses


@pytest.mark.parametrize("nothing", [None, "", " ", [], {}])
def test_empty_columns_are_not_named(nothing):
    assert FORMATS["messages"].unused(RECORD["messages"] | {"id": nothing}, True) == []
    assert FORMATS["alpaca"].unused(RECORD["alpaca"] | {"id": nothing}, False) == []


# What is dropped


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("alpaca", {"output": ...}, "column 'output' is missing or null"),
        ("alpaca", {"input": 3}, "column 'input' holds a number, not a text"),
        ("alpaca", {"instruction": None}, "column 'instruction' is missing or null"),
        ("alpaca", {"output": []}, "column 'output' holds an empty list"),
        ("alpaca", {"output": ["3", 3]}, "column 'output' holds a number, not a text"),
        ("dolly", {"context": ["c"]}, "column 'context' holds a list, not a text"),
        ("dolly", {"response": None}, "column 'response' is missing or null"),
        ("input-output", {"input": None}, "column 'input' is missing or null"),
        ("input-output", {"output": ["o"]}, "column 'output' holds a list, not a text"),
        ("self-instruct", {"completion": 0.5}, "column 'completion' holds a number, not a text"),
        ("self-instruct", {"completion": True}, "column 'completion' holds true or false, not a text"),
        ("prompt-target", {"target": {}}, "column 'target' holds an object, not a text"),
        ("flan", {"targets": ...}, "column 'targets' is missing or null"),
        ("question-answer", {"question": ...}, "column 'question' is missing or null"),
        ("hh-rlhf", {"chosen": None}, "column 'chosen' is missing or null"),
        ("oasst1", {"text": "ab\ud83d"}, "column 'text' holds half of a character (\\ud800 to \\udfff alone)"),
        ("text", {"text": ...}, "column 'text' is missing or null"),
        ("chip2", {"text": "<human>: hi"}, "not exactly one answer that starts with '\\n<bot>: '"),
        (
            "chip2",
            {"text": "<human>: a\n<bot>: b\n<human>: c\n<bot>: d"},
            "not exactly one answer that starts with '\\n<bot>: '",
        ),
        ("unnatural-instructions", {"instances": "none"}, "column 'instances' holds a text, not a list"),
        ("unnatural-instructions", {"instances": []}, "column 'instances' holds an empty list"),
        ("unnatural-instructions-full", {"reformulations": "x"}, "column 'reformulations' holds a text, not a list"),
        ("seed-tasks", {"instruction": ...}, "column 'instruction' is missing or null"),
        ("sharegpt", {"conversations": None}, "column 'conversations' is missing or null"),
        ("messages", {"messages": [{"role": "user", "content": "hi"}]}, "no assistant turn"),
        ("super-natural-instructions", {"Definition": []}, "column 'Definition' holds an empty list"),
        ("super-natural-instructions", {"Instances": None}, "column 'Instances' is missing or null"),
        (
            "super-natural-instructions",
            {"Positive Examples": "-"},
            "column 'Positive Examples' holds a text, not a list",
        ),
        ("super-natural-instructions", {"Positive Examples": [{}]}, "'input' of a positive example is missing or null"),
        ("natural-instructions", {"definition": 1}, "column 'definition' holds a number, not a text"),
    ],
)
def test_records_that_cannot_be_trained_on(name, change, reason):
    record = {column: value for column, value in (RECORD[name] | change).items() if value is not ...}
    with pytest.raises(SkipRow) as skipped:
        FORMATS[name].convert(record)
    assert str(skipped.value) == reason


@pytest.mark.parametrize(
    ("name", "column", "prompt", "good"),
    [
        ("super-natural-instructions", "Instances", "input", {"input": "5 6", "output": "11"}),
        (
            "unnatural-instructions",
            "instances",
            "instruction_with_input",
            {"instruction_with_input": "i", "output": "o"},
        ),
        ("seed-tasks", "instances", "input", {"input": "i", "output": "o"}),
    ],
)
def test_one_bad_instance_does_not_lose_the_others(name, column, prompt, good):
    bad = [3, {prompt: "i"}, {prompt: "i", "output": None}, {prompt: 3, "output": "o"}]
    made = shown(FORMATS[name].convert(RECORD[name] | {column: [good, *bad, good]}))
    assert made[0] == made[-1] and made[0]["output"] == good["output"]
    assert made[1:-1] == [
        "an instance is a number, not an object",
        "'output' of an instance is missing or null",
        "'output' of an instance is missing or null",
        f"{prompt!r} of an instance holds a number, not a text",
    ]


def variants(value, wrong):
    """Every copy of a JSON value in which one place holds one of the wrong values instead, or nothing."""
    yield from wrong
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            for other in variants(value[key], wrong):
                copy = value.copy()
                copy[key] = other
                yield copy
            copy = value.copy()
            del copy[key]
            yield copy


@pytest.mark.parametrize("name", FORMATS)
def test_whatever_stands_anywhere_is_a_row_or_a_reason(name):
    wrong = [None, True, 3, 0.5, float("nan"), "", "x", "\ud83d", [], [3], ["x"], [[]], [None], {}, {"a": 1}]
    extras = {"tools": "[]", "system": "s", "label": True} if "messages" in FORMATS[name].consumed else {}
    calls = {"role": "assistant", "content": "c", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    record = RECORD[name] | extras
    record = record | {"messages": [*record["messages"], calls]} if extras else record
    seen = Counter()
    for variant in variants(record, wrong):
        if not isinstance(variant, dict):
            continue
        try:
            made = FORMATS[name].convert(variant)
        except SkipRow as skip:
            made = skip
        for one in made if isinstance(made, list) else [made]:
            seen["reason" if isinstance(one, SkipRow) else "row"] += 1
            (str(one) if isinstance(one, SkipRow) else json.dumps(one, ensure_ascii=False)).encode()
    assert seen["row"] and seen["reason"]


def test_a_bad_reformulation_is_named_as_one():
    record = RECORD["unnatural-instructions-full"] | {"reformulations": [{"output": "o"}]}
    assert shown(FORMATS["unnatural-instructions-full"].convert(record)) == [
        {"input": "Add 1 2.", "output": "3"},
        "'instruction_with_input' of a reformulation is missing or null",
    ]


def test_only_a_stop_token_at_the_end_goes():
    convert = FORMATS["self-instruct"].convert
    for completion, answer in (
        ("a<|endoftext|>", "a"),
        ("a<|endoftext|>b", "a<|endoftext|>b"),
        ("<|endoftext|>", ""),
        ("a", "a"),
    ):
        assert convert({"prompt": "p<|endoftext|>", "completion": completion}) == {
            "input": "p<|endoftext|>",
            "output": answer,
        }
