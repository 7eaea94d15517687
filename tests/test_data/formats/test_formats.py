"""Each format with a record: what it gives, how it is found, what it drops; and what every real file gives."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from common.errors import DataError
from data import named
from data.formats import conversations
from data.formats import registry as formats
from data.formats.detection import as_question, detect_format, find_format
from data.formats.fields import SkipRow
from data.formats.instructions import ALPACA_PROMPT_DICT, extract_alpaca_dataset, extract_unnatural_instructions_data
from data.formats.layout import lay_out
from data.formats.registry import FORMATS
from data.named import NAMED_DATASETS, REFUSED_DATASETS
from tests.paths import REPOSITORY

PROMPT_WITH_INPUT = """\
Below is an instruction that describes a task, paired with an input that provides further context. \
Write a response that appropriately completes the request.

### Instruction:
Add.

### Input:
1 2

### Response: """
PROMPT_WITHOUT_INPUT = """\
Below is an instruction that describes a task. Write a response that appropriately completes the request.

### Instruction:
Add.

### Response: """
# As DataCollatorForNI of Tk-Instruct writes it with definition and two positive examples; every line that does not end
# in punctuation gets a full stop.
TASK_PROMPT = """\
Definition: Add the numbers.

 Positive Example 1 -
Input: 1 2.
 Output: 3.

 Positive Example 2 -
Input: 2 2?
 Output: 4!

Now complete the following example -
Input: 5 6.
Output: """
TASK = {
    "Categories": ["Arithmetic"],
    "Definition": ["Add the numbers\n"],
    "Positive Examples": [
        {"input": " 1 2\n", "output": "3", "explanation": "1 + 2 = 3"},
        {"input": "2 2?", "output": "4!", "explanation": "2 + 2 = 4"},
        {"input": "3 3", "output": "6", "explanation": "never shown"},
    ],
    "Negative Examples": [{"input": "1 2", "output": "12"}],
    "Instances": [{"id": "a", "input": "\n5 6 ", "output": ["11", "eleven"]}],
}
HI = [{"role": "user", "content": "hi", "supervised": False}]
HELLO = [{"role": "assistant", "content": "hello", "supervised": True}]

# format, record, what it becomes
RECORDS = [
    (
        "super-natural-instructions",
        TASK,
        [{"input": TASK_PROMPT, "output": "11"}, {"input": TASK_PROMPT, "output": "eleven"}],
    ),
    (
        "natural-instructions",
        {"task_name": "t", "id": "t-1", "definition": "Add.", "inputs": "5 6", "targets": "11"},
        {
            "input": "Definition: Add.\n\nNow complete the following example -\nInput: 5 6.\nOutput: ",
            "output": "11",
        },
    ),
    (
        "unnatural-instructions-full",
        {
            "instruction": "Add.",
            "instances": [{"instruction_with_input": "Add 1 2.", "input": "1 2", "output": "3"}],
            "reformulations": [{"instruction_with_input": "What is 1 + 2?", "output": "3"}],
        },
        [{"input": "Add 1 2.", "output": "3"}, {"input": "What is 1 + 2?", "output": "3"}],
    ),
    (
        "unnatural-instructions",
        {"instruction": "Add.", "instances": [{"instruction_with_input": "Add 1 2.", "input": "1 2", "output": "3"}]},
        [{"input": "Add 1 2.", "output": "3"}],
    ),
    (
        "seed-tasks",
        {"instruction": "Add.", "instances": [{"input": "1 2", "output": "3"}, {"input": "", "output": "What?"}]},
        [{"input": PROMPT_WITH_INPUT, "output": "3"}, {"input": PROMPT_WITHOUT_INPUT, "output": "What?"}],
    ),
    (
        "sharegpt-preference",
        {
            "conversations": [{"from": "human", "value": "hi"}],
            "chosen": {"from": "gpt", "value": "hello"},
            "rejected": {"from": "gpt", "value": "no"},
        },
        {"messages": HI + HELLO, "tools": None},
    ),
    (
        "messages-preference",
        {
            "messages": [{"role": "user", "content": "hi"}],
            "chosen": {"role": "assistant", "content": "hello"},
            "rejected": {"role": "assistant", "content": "no"},
        },
        {"messages": HI + HELLO, "tools": None},
    ),
    (
        "sharegpt",
        {"id": 1, "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
        {"messages": HI + HELLO, "tools": None},
    ),
    (
        "messages",
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}], "tools": "[{}]"},
        {"messages": HI + HELLO, "tools": [{}]},
    ),
    (
        "alpaca",
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"input": PROMPT_WITH_INPUT, "output": "3"},
    ),
    (
        "dolly",
        {"instruction": "Add.", "context": "1 2", "response": "3", "category": "closed_qa"},
        {"input": PROMPT_WITH_INPUT, "output": "3"},
    ),
    (
        "input-output",
        {"input": "1 + 2 =", "output": " 3"},
        {"input": "1 + 2 =", "output": " 3"},
    ),
    (
        "self-instruct",
        {"prompt": "1 + 2 =", "completion": " 3<|endoftext|>"},
        {"input": "1 + 2 =", "output": " 3"},
    ),
    (
        "prompt-target",
        {"prompt": "Add.\n\nOutput:", "instruction": "Add.", "input": "", "response": " 4", "target": "3"},
        {"input": "Add.\n\nOutput:", "output": "3"},
    ),
    (
        "flan",
        {"inputs": "1 + 2 =", "targets": "3", "_task_name": "math"},
        {"input": "1 + 2 =", "output": "3"},
    ),
    (
        "question-answer",
        {"question": "What is {1 + 2}?", "answer": "It is 3.\n#### 3"},
        {"input": "Question: What is {1 + 2}?\nAnswer: ", "output": "It is 3.\n#### 3"},
    ),
    (
        "alpaca-preference",
        {"instruction": "Add.", "input": "1 2", "chosen": "3", "rejected": "4"},
        {"input": PROMPT_WITH_INPUT, "output": "3"},
    ),
    (
        "preference",
        {"prompt": "1 + 2 =", "chosen": " 3", "rejected": " 4"},
        {"input": "1 + 2 =", "output": " 3"},
    ),
    (
        "question-preference",
        {"system": "", "question": "hi", "chosen": "hello", "rejected": "no"},
        {"messages": HI + HELLO, "tools": None},
    ),
    (
        "input-preference",
        {"input": "hi", "chosen": "hello", "rejected": "no"},
        {"messages": HI + HELLO, "tools": None},
    ),
    (
        "hh-rlhf",
        {"chosen": "\n\nHuman: hi\n\nAssistant: hello", "rejected": "\n\nHuman: hi\n\nAssistant: no"},
        {"input": "", "output": "\n\nHuman: hi\n\nAssistant: hello"},
    ),
    (
        "implicit-preference",
        {
            "chosen": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}],
            "rejected": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "no"}],
        },
        {"messages": HI + HELLO, "tools": None},
    ),
    (
        "chip2",
        {"text": "<human>: 1 + 2?\n<bot>: It is 3.", "metadata": ""},
        {"input": "1 + 2?", "output": "It is 3."},
    ),
    (
        "oasst1",
        {"text": "### Human: hi### Assistant: hello"},
        {"input": "", "output": "### Human: hi### Assistant: hello"},
    ),
    (
        "text",
        {"text": "It was a bright cold day in April.", "url": "x"},
        {"input": "", "output": "It was a bright cold day in April."},
    ),
]
RECORD = {name: record for name, record, _ in RECORDS}


def shown(made):
    """What `convert` returned, each SkipRow as its reason."""
    return [str(one) if isinstance(one, SkipRow) else one for one in made]


def published(made):
    """What a formatter made of a record, in the prompt that its format is published with."""
    return [lay_out(row, "alpaca") for row in made] if isinstance(made, list) else lay_out(made, "alpaca")


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


HISTORY = [["Add 1 1.", "2"], ["Add 2 2.", "4"]]


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


# Super-NaturalInstructions


def convert_task(**columns):
    return shown(FORMATS["super-natural-instructions"].convert(TASK | columns))


def test_task_files_of_2021_have_a_text_as_definition_and_tasks_without_references_one_output():
    assert convert_task(Definition="Add the numbers") == convert_task()
    assert convert_task(Instances=[{"input": "5 6", "output": "11"}]) == [{"input": TASK_PROMPT, "output": "11"}]


@pytest.mark.parametrize("examples", [[], None])
def test_task_without_positive_examples(examples):
    assert convert_task(**{"Positive Examples": examples})[0]["input"] == (
        "Definition: Add the numbers.\n\nNow complete the following example -\nInput: 5 6.\nOutput: "
    )


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


# Real records; tests/test_real_data.py loads every file


def read(path: Path) -> list[dict]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    if ".jsonl" in path.name:
        records = [json.loads(line) for line in text.split("\n") if line]
    else:
        records = json.loads(text)
        records = records if isinstance(records, list) else [records]
    return [{"messages": record} if isinstance(record, list) else record for record in records]


def test_real_conversations(shared_data):
    def converted(name):
        records = read(shared_data / "chat" / name)
        return [detect_format(records[0]).convert(record) for record in records]

    tools = converted("llamafactory_glaive_toolcall_en_demo.json")
    assert Counter(type(one["tools"]) for one in tools) == {list: 191, type(None): 109}
    assert [(message["role"], message["supervised"]) for message in tools[0]["messages"][2:6]] == [
        ("user", False),
        ("assistant", True),  # function_call
        ("tool", False),  # observation
        ("assistant", True),
    ]
    preferences = converted("llamafactory_dpo_en_demo.json")
    assert all([m["supervised"] for m in one["messages"]].count(True) == 1 for one in preferences)
    parts = converted("llamafactory_v1_sft_demo.jsonl")
    assert parts[0]["messages"][0] == {"role": "user", "content": "hi", "supervised": False}


def test_no_real_answer_ends_in_the_stop_token_of_another_model(shared_data):
    records = read(shared_data / "flan-t0" / "t0_train_sample.jsonl")
    assert all(record["completion"].endswith("<|endoftext|>") for record in records)
    rows = [FORMATS["self-instruct"].convert(record) for record in records]
    assert not any("<|endoftext|>" in row["output"] for row in rows)


def test_predictions_are_not_taken_for_answers(shared_data):
    records = read(shared_data / "self-instruct" / "davinci-self-instruct_predictions.jsonl")
    rows = [FORMATS["prompt-target"].convert(record) for record in records]
    assert [row["output"] for row in rows] == [record["target"] for record in records]


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
