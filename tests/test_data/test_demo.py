"""The demo's facts, texts and base model in data/demo are what their script makes and what the README says."""

import json
from pathlib import Path

import pytest

from data.demo import base_model, prepare, text

DEMO = Path(prepare.__file__).parent
SEED = 0  # of the committed files


@pytest.fixture(scope="module")
def rows():
    return text.read_facts()


@pytest.fixture(scope="module")
def instructions():
    return {name: read_lines(DEMO / f"{name}.jsonl") for name in ("train", "eval")}


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_facts_are_a_full_table_of_distinct_countries(rows):
    assert len(rows) >= 150
    assert len(text.WORDINGS) >= 4
    for column in ("code", "country", "capital"):
        assert len({row[column] for row in rows}) == len(rows), column
    for row in rows:
        assert set(row) == {"code", "country", *text.WORDINGS}
        assert all(value and value == value.strip() for value in row.values()), row


@pytest.mark.parametrize("kind", text.WORDINGS)
def test_wordings_differ_and_ask_nothing(kind):
    wordings = text.WORDINGS[kind]
    assert len(set(wordings)) == len(wordings) >= 8
    assert all(wording.count("{country}") == wording.count("{value}") == 1 for wording in wordings)
    assert not any("?" in wording for wording in wordings)
    assert len(set(text.QUESTIONS[kind])) >= 3
    assert text.ANSWERS[kind] in wordings


def test_text_holds_every_wording_of_every_fact(rows):
    documents = (DEMO / "text.txt").read_text(encoding="utf-8")
    for row in rows:
        for kind, sentences in text.sentences_about(row).items():
            assert len(set(sentences)) >= 8
            missing = [sentence for sentence in sentences if sentence not in documents]
            assert not missing, (row["country"], kind, missing)


def test_script_writes_the_committed_text_and_instructions(tmp_path):
    prepare.main(["--text_only", "--seed", str(SEED), "--output", str(tmp_path)])
    for name in ("text.txt", "train.jsonl", "eval.jsonl"):
        assert (tmp_path / name).read_bytes() == (DEMO / name).read_bytes(), name
    assert not (tmp_path / "base").exists()


def test_no_country_is_in_both_halves(rows, instructions):
    countries = {name: {record["country"] for record in records} for name, records in instructions.items()}
    assert not countries["train"] & countries["eval"]
    assert countries["train"] | countries["eval"] == {row["country"] for row in rows}


def test_every_answer_is_the_fact_of_the_table(rows, instructions):
    facts = {row["country"]: row for row in rows}
    for record in instructions["train"] + instructions["eval"]:
        assert set(record) == {"instruction", "input", "output", "country", "fact"}
        row, kind = facts[record["country"]], record["fact"]
        assert row["country"] in record["instruction"] and record["input"] == ""
        assert record["output"] == text.fill(text.ANSWERS[kind], row["country"], row[kind])


def test_held_out_answers_cannot_be_read_off_the_questions(instructions):
    questions = {record["instruction"] for record in instructions["train"]}
    assert not questions & {record["instruction"] for record in instructions["eval"]}
    kinds = [record["fact"] for record in instructions["eval"]]
    assert {kinds.count(kind) for kind in text.WORDINGS} == {text.HELD_OUT_COUNTRIES}


def test_base_model_is_small_and_bf16():
    from safetensors import safe_open

    assert sum(path.stat().st_size for path in (DEMO / "base").iterdir()) <= 6_000_000
    with safe_open(DEMO / "base" / "model.safetensors", framework="pt") as weights:
        names = list(weights.keys())
        assert {weights.get_slice(name).get_dtype() for name in names} == {"BF16"}


@pytest.fixture(scope="module")
def base():
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(DEMO / "base", dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(DEMO / "base")


def test_tokenizer_starts_with_bos_and_pads_with_a_token_of_its_own(base):
    model, tokenizer = base
    assert [tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token] == base_model.SPECIAL_TOKENS
    assert len(tokenizer) == base_model.VOCABULARY == model.config.vocab_size
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        assert getattr(tokenizer, name) == getattr(model.config, name) == getattr(model.generation_config, name)
    text = "The capital of Brazil is Brasília."
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids[1:]


def test_base_completes_a_fact_that_it_read(base):
    model, tokenizer = base
    inputs = tokenizer("The capital of Peru is", return_tensors="pt", return_token_type_ids=False)
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert tokenizer.decode(output[0], skip_special_tokens=True).startswith("The capital of Peru is Lima.")


def test_base_knows_the_answers_to_the_held_out_questions(base, rows, instructions):
    held_out = {record["country"] for record in instructions["eval"]}
    rows = [row for row in rows if row["country"] in held_out]
    pairs = []
    for kind, wording in text.ANSWERS.items():
        opening = wording.removesuffix(" {value}.")
        pairs += [(text.fill(opening, row["country"], ""), f" {row[kind]}.") for row in rows]
    known = base_model.value_is_greedy(*base, pairs)
    assert sum(known) / len(known) >= 0.98
