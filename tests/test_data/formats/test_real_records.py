"""Real records in their formats; tests/test_data/test_real_data.py loads every file."""

import gzip
import json
from collections import Counter
from pathlib import Path

from data.formats.detection import detect_format
from data.formats.registry import FORMATS

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
