"""predictions.jsonl."""

import json

import numpy
import pytest

from data.collator import IGNORE_INDEX, DataCollatorForCausalLM
from eval.generation import write_predictions


@pytest.fixture
def collator(tiny_tokenizer):
    return DataCollatorForCausalLM(tiny_tokenizer, 64, 16, False, True)


def ids_of(tokenizer, *texts):
    """Generated ids as the trainer gives them: EOS where the text is marked with |, then padding and -100."""
    rows = []
    for text in texts:
        ids = tokenizer(text.rstrip("|"), add_special_tokens=False)["input_ids"]
        rows.append(ids + [tokenizer.eos_token_id, tokenizer.pad_token_id] * text.endswith("|"))
    longest = max(map(len, rows)) + 1
    return numpy.array([row + [IGNORE_INDEX] * (longest - len(row)) for row in rows])


def test_lines_and_metrics(collator, tmp_path):
    rows = [
        {"input": "What is it? ", "output": "It is so. ", "id": 7, "length": 3},
        {"input": "And é?", "output": "no"},
        {"input": "It is so.", "output": "yes"},
    ]
    generated = ids_of(collator.tokenizer, "It is so.|", "yes", "It is so. yes|")
    metrics = write_predictions(tmp_path / "p.jsonl", rows, generated, collator, [collator.tokenizer.eos_token_id])
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[0] == {
        "input": "What is it? ",
        "output": "It is so. ",
        "id": 7,
        "length": 3,
        "prediction_with_input": "What is it? It is so.",
        "prediction": "It is so.",
    }
    assert lines[1]["prediction_with_input"] == "And é?yes"
    # The prompt is cut off by tokens: an answer that repeats the prompt keeps it.
    assert lines[2]["prediction"] == "It is so. yes"
    assert metrics["predict_exact_match"] == pytest.approx(1 / 3)
    assert metrics["predict_stopped"] == pytest.approx(2 / 3)
    lengths = [len(collator.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in ("It is so.", "yes")]
    whole = len(collator.tokenizer("It is so. yes", add_special_tokens=False)["input_ids"])
    assert metrics["predict_new_tokens"] == pytest.approx((lengths[0] + 1 + lengths[1] + whole + 1) / 3)


def test_nothing_is_left_where_rows_and_predictions_differ_in_number(collator, tmp_path):
    with pytest.raises(ValueError):
        write_predictions(tmp_path / "p.jsonl", [], ids_of(collator.tokenizer, "a"), collator, [1])
    assert not (tmp_path / "p.jsonl").exists()
