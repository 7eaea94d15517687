"""Each format with a record: what it gives, how it is found, what it refuses."""

from pathlib import Path

import pytest

from data.formats import (
    ALPACA_PROMPT_DICT,
    FORMATS,
    NAMED_DATASETS,
    DataError,
    SkipRow,
    Table,
    detect_format,
    extract_alpaca_dataset,
    extract_unnatural_instructions_data,
    find_format,
    format_table,
)

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

# format, record, what it becomes
RECORDS = [
    (
        "alpaca",
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"input": PROMPT_WITH_INPUT, "output": "3"},
    ),
    (
        "input-output",
        {"input": "1 + 2 =", "output": " 3"},
        {"input": "1 + 2 =", "output": " 3"},
    ),
    (
        "self-instruct",
        {"prompt": "1 + 2 =", "completion": " 3"},
        {"input": "1 + 2 =", "output": " 3"},
    ),
    (
        "hh-rlhf",
        {"chosen": "\n\nHuman: hi\n\nAssistant: hello", "rejected": "\n\nHuman: hi\n\nAssistant: no"},
        {"input": "", "output": "\n\nHuman: hi\n\nAssistant: hello"},
    ),
    (
        "unnatural-instructions",
        {"instruction": "Add.", "instances": [{"instruction_with_input": "Add 1 2.", "input": "1 2", "output": "3"}]},
        [{"input": "Add 1 2.", "output": "3"}],
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
]


@pytest.mark.parametrize(("name", "record", "expected"), RECORDS, ids=[name for name, *_ in RECORDS])
def test_record_is_detected_and_formatted(name, record, expected):
    before = dict(record)
    assert detect_format(record).name == name
    assert FORMATS[name].convert(record) == expected
    assert record == before


def test_every_format_has_a_record_here():
    assert {name for name, *_ in RECORDS} == set(FORMATS)


def test_readme_has_a_row_for_every_format_and_name():
    readme = (Path(__file__).resolve().parent.parent / "data" / "README.md").read_text(encoding="utf-8")
    rows = {
        cells[1].strip(): cells[-2] for cells in (line.split("|") for line in readme.splitlines()) if len(cells) > 5
    }
    assert set(FORMATS) <= set(rows)
    for name, data_set in NAMED_DATASETS.items():
        assert name in rows[data_set.format]


@pytest.mark.parametrize("nothing", [{}, {"input": ""}, {"input": None}])
def test_alpaca_without_input(nothing):
    record = {"instruction": "Add.", "output": "3", **nothing}
    assert extract_alpaca_dataset(record) == {"input": PROMPT_WITHOUT_INPUT}
    assert FORMATS["alpaca"].convert(record) == {"input": PROMPT_WITHOUT_INPUT, "output": "3"}


def test_published_alpaca_prompts():
    assert set(ALPACA_PROMPT_DICT) == {"prompt_input", "prompt_no_input"}
    assert extract_alpaca_dataset({"instruction": "Add.", "input": "1 2"}) == {"input": PROMPT_WITH_INPUT}


def test_braces_in_a_record_are_text():
    assert "{x} {0}" in extract_alpaca_dataset({"instruction": "{x} {0}", "input": "{instruction}"})["input"]


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


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"instruction": "i", "input": "", "output": "o", "text": "t"}, "alpaca"),
        ({"input": "i", "output": "o", "prompt": "p", "text": "t"}, "input-output"),
        ({"chosen": "a", "rejected": "b", "prompt": "p"}, "hh-rlhf"),
    ],
)
def test_detection_prefers_what_asks_for_more(record, name):
    assert detect_format(record).name == name


@pytest.mark.parametrize(
    "record",
    [
        {"question": "q", "answer": "a"},
        {"chosen": {"from": "gpt", "value": "v"}, "rejected": {}},
        {"instances": [{"input": "i", "output": "o"}]},
        {"instances": [3]},
    ],
)
def test_unknown_columns_are_refused_with_the_formats(record):
    with pytest.raises(DataError) as refused:
        detect_format(record)
    message = str(refused.value)
    assert all(repr(column) in message for column in record)
    assert all(f"{row.name}: {', '.join(row.columns)}" in message for row in FORMATS.values())
    assert "--dataset_format" in message


def test_format_names():
    assert find_format("alpaca-clean") is FORMATS["alpaca"]
    assert find_format("longform") is FORMATS["input-output"]
    assert {row.format for row in NAMED_DATASETS.values()} <= set(FORMATS)
    with pytest.raises(DataError, match="did you mean input-output") as refused:
        find_format("input_output")
    assert "unnatural-instructions" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "record", "what"),
    [
        (
            "alpaca",
            {"instruction": "i", "input": ""},
            "column 'output' is missing; columns found: 'instruction', 'input'",
        ),
        ("alpaca", {"instruction": "i", "input": 3, "output": "o"}, "column 'input' holds 3 (int); a string is needed"),
        ("alpaca", {"instruction": None, "output": "o"}, "column 'instruction' holds null; a string is needed"),
        ("input-output", {"input": None, "output": "o"}, "column 'input' holds null"),
        ("input-output", {"input": "i", "output": ["o"]}, "column 'output' holds ['o'] (list); a string is needed"),
        ("self-instruct", {"prompt": "p", "completion": 0.5}, "column 'completion' holds 0.5 (float)"),
        ("oasst1", {"text": "ab\ud83d"}, "column 'text' holds '\\ud83d' at character 2; that is half of a character"),
        ("unnatural-instructions", {"instances": "none"}, "column 'instances' is not a list of objects"),
        (
            "unnatural-instructions",
            {"instances": [{"instruction_with_input": "i", "output": "o"}, {"instruction_with_input": "i"}]},
            "instance 2: column 'output' is missing",
        ),
    ],
)
def test_wrong_fields_are_refused_with_column_and_type(name, record, what):
    with pytest.raises(DataError) as refused:
        FORMATS[name].convert(record)
    assert what in str(refused.value)


@pytest.mark.parametrize("text", ["<human>: hi", "<human>: a\n<bot>: b\n<human>: c\n<bot>: d"])
def test_chip2_needs_one_answer(text):
    with pytest.raises(SkipRow, match="answers that start with"):
        FORMATS["chip2"].convert({"text": text})


def test_table_keeps_the_other_fields_and_an_account():
    table = Table("f.jsonl", [RECORDS[0][1] | {"id": 7}, {"instruction": "i", "output": " \n"}], [1, 4])
    examples = format_table(table)
    assert examples.rows == [{"instruction": "Add.", "input": PROMPT_WITH_INPUT, "output": "3", "id": 7}]
    assert examples.dropped == {"an empty output": [4]}
    assert examples.report().splitlines() == [
        "f.jsonl (alpaca): 2 rows read, 1 dropped, 1 kept",
        "f.jsonl: 1 dropped for an empty output: line 4",
    ]


def test_table_of_records_with_several_examples():
    instances = [{"instruction_with_input": text, "output": text} for text in ("a", "b", " ")]
    records = [{"id": 1, "instances": instances}, {"id": 2, "instances": []}, {"id": 3, "instances": instances[:1]}]
    examples = format_table(Table("f.jsonl", records, [1, 2, 3]), FORMATS["unnatural-instructions"])
    assert examples.rows == [
        {"id": 1, "input": "a", "output": "a"},
        {"id": 1, "input": "b", "output": "b"},
        {"id": 3, "input": "a", "output": "a"},
    ]
    assert examples.report().splitlines()[0] == (
        "f.jsonl (unnatural-instructions): 5 rows from 3 records read, 2 dropped, 3 kept"
    )
    assert examples.dropped == {"an empty output": [1], "an empty list of instances": [2]}
