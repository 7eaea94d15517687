"""data/demo/mmlu.json: its script makes it, and every question about the demo's facts has one right answer."""

import json
from collections import Counter

import pytest

from data.demo import mmlu as demo
from data.demo.text import QUESTIONS, read_facts
from data.mmlu.prepare import load_tokenizer
from data.mmlu.prompts import LETTERS, Question, format_line


@pytest.fixture(scope="module")
def demo_rows():
    return [json.loads(line) for line in (demo.HERE / "mmlu.json").read_text(encoding="ascii").splitlines()]


def parse_question(block):
    """Country's question, its choices, and the letter after `Answer:` ("" where none is)."""
    text, *choices, answer = block.split("\n")
    assert [choice[:3] for choice in choices] == ["A. ", "B. ", "C. ", "D. "]
    return text, [choice[3:] for choice in choices], answer.removeprefix("Answer:").strip()


def test_script_writes_the_committed_demo_questions(tmp_path, capsys):
    assert demo.main(["--output", str(tmp_path / "mmlu.json")]) == 0
    assert (tmp_path / "mmlu.json").read_bytes() == (demo.HERE / "mmlu.json").read_bytes()
    assert "160 questions of 4 subjects, 5 examples" in capsys.readouterr().out


def test_demo_questions_have_one_right_answer_each_and_balanced_letters(demo_rows):
    facts, held_out = {row["country"]: row for row in read_facts()}, demo.held_out_countries()
    by_question = {QUESTIONS[kind][0].format(country=name): (name, kind) for name in facts for kind in QUESTIONS}
    for row in demo_rows:
        header, *blocks = row["input"].split("\n\n")
        assert len(blocks) == 6 and header.endswith(f"about  {row['subject'].replace('_', ' ')}.")
        for block in blocks:
            text, choices, letter = parse_question(block)
            country, kind = by_question[text]
            assert row["subject"] == f"demo_{kind}" and len(set(choices)) == 4
            assert choices[LETTERS.index(letter or row["output"])] == facts[country][kind]
            assert (country in held_out) == (letter == "") == (block is blocks[-1])
    assert Counter((row["subject"], row["output"]) for row in demo_rows) == {
        (f"demo_{kind}", letter): 10 for kind in QUESTIONS for letter in LETTERS
    }


def test_demo_prompts_fit_the_demo_base():
    tokenizer = load_tokenizer(str(demo.HERE / "base"))
    longest = max(len(tokenizer.encode(json.loads(line)["input"])) for line in demo.make_lines(5, 0))
    assert longest < json.loads((demo.HERE / "base" / "config.json").read_text())["max_position_embeddings"]


def test_demo_without_examples(tmp_path):
    demo.main(["--output", str(tmp_path / "zero.json"), "--shots", "0"])
    line = (tmp_path / "zero.json").read_text(encoding="ascii").splitlines(keepends=True)[0]
    row = json.loads(line)
    text, choices, _ = parse_question(row["input"].split("\n\n")[1])
    assert line == format_line(Question(row["subject"], text, tuple(choices), row["output"]), [])
