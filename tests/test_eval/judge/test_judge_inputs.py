"""Question and answer files that are refused, each with the file, the line and the reason; and those that are taken."""

import json

import pytest

from eval.judge.inputs import read_player, read_players, read_questions, safe_name
from eval.judge.judge import main

QUESTIONS = [
    {"question_id": 1, "text": "Why is the sky blue?", "category": "science"},
    {"question_id": 2, "text": "What is 2 + 2?"},
]


@pytest.fixture
def write(tmp_path):
    """A function: name of a file and its rows → its path."""

    def lines(name, rows):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return lines


@pytest.fixture
def questions(write):
    return read_questions(write("questions.jsonl", QUESTIONS))


def refused(capsys, *flags):
    """Run the command line; gives the message."""
    assert main(["--base_url", "http://127.0.0.1:9/v1", "--model", "m", *map(str, flags)]) == 2
    return capsys.readouterr().err


def test_questions(questions):
    assert [(q.id, q.text, q.category) for q in questions] == [
        (1, "Why is the sky blue?", "science"),
        (2, "What is 2 + 2?", "generic"),
    ]


@pytest.mark.parametrize(
    "rows, said",
    [
        ([{"question_id": 1}], "questions.jsonl, line 1: text is missing; the question, a text, is needed"),
        ([{"text": "a"}], "line 1: question_id is missing (it has text)"),
        ([*QUESTIONS, {"question_id": "2", "text": "a"}], "line 3: question_id 2 stands on line 2 already"),
        ([{"question_id": 1.5, "text": "a"}], "question_id is 1.5; a whole number or a text is needed"),
        ([{"question_id": True, "text": "a"}], "question_id is True"),
        ([{"question_id": 1, "text": " "}], "text is empty"),
        ([{"question_id": 1, "text": "a", "category": 3}], "category holds a number"),
        ([], "empty"),
        ([[1]], "line 1"),
    ],
)
def test_questions_that_are_refused(rows, said, write, capsys, tmp_path):
    path = write("questions.jsonl", rows)
    answers = [write(f"{name}.jsonl", [{"question_id": 1, "text": "x"}]) for name in "ab"]
    message = refused(capsys, "--questions", path, "--answers", *answers, "--output", tmp_path / "out")
    assert said in message and message.startswith("eval.judge: error: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "rows, said",
    [
        ([{"question_id": 1, "text": "x"}], "b has no answer to 1 of 2 questions: 2\n--allow_missing"),
        ([{"question_id": 1, "text": "x"}] * 2, "b.jsonl, line 2: question_id 1 stands on line 1 already"),
        ([{"question_id": 1, "answer": "x"}], "b.jsonl, line 1: text is missing; the answer, a text, is needed"),
        ([{"question_id": 1, "text": None}], "b.jsonl, line 1: text holds null"),
        ([{"question_id": 1, "text": "x"}, {"text": "y"}], "1 of 2 lines have no question_id (line 2)"),
        ([{"prediction": "x"}], "no question_id, and 1 lines for 2 questions"),
        ([{"prediction": "x"}, {"text": "y"}], "b.jsonl, line 2: prediction is missing"),
        (
            [{"input": "What is 2 + 2?", "prediction": "4"}, {"input": "Why is the sky blue?", "prediction": "x"}],
            "b.jsonl, line 1: no question_id, and its input does not hold the question of that place (1:",
        ),
        (
            [{"question_id": 1, "text": "x", "model_id": "m"}, {"question_id": 2, "text": "y", "model_id": "n"}],
            "answers of 2 models (m, n)",
        ),
        ([{"question_id": 1, "text": "x", "model_id": "a"}], "would both be 'a'"),
    ],
)
def test_answers_that_are_refused(rows, said, write, capsys, tmp_path):
    good = write("a.jsonl", [{"question_id": 1, "text": "x"}, {"question_id": 2, "text": "y"}])
    answers = [good, write("b.jsonl", rows)]
    path = write("questions.jsonl", QUESTIONS)
    assert said in refused(capsys, "--questions", path, "--answers", *answers, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fastchat_answers(write, questions):
    rows = [
        {"answer_id": "x", "question_id": "2", "text": "4", "model_id": "org/vicuna-13b", "metadata": {}},
        {"answer_id": "y", "question_id": 1, "text": "", "model_id": "org/vicuna-13b", "metadata": {}},
    ]
    player = read_player(write("a.jsonl", rows), questions, None)
    assert player.name == "org/vicuna-13b" and player.answers == {"2": "4", "1": ""}
    assert read_player(write("a.jsonl", rows), questions, "mine").name == "mine"


def test_predictions_by_order_and_by_id(write, questions):
    """`text` of a prediction is a field of its row, such as the question; the answer is `prediction`."""
    rows = [
        {"input": "### Human: Why is the  sky\nblue? ### Assistant:", "output": "", "prediction": "Rayleigh."},
        {"input": "### Human: What is 2 + 2? ### Assistant:", "output": "4", "prediction": "4", "text": "no"},
    ]
    player = read_player(write("tuned.jsonl", rows), questions, None)
    assert player.name == "tuned" and player.answers == {"1": "Rayleigh.", "2": "4"}
    with_ids = [{**row, "question_id": 2 - number} for number, row in enumerate(rows)]
    assert read_player(write("p.jsonl", with_ids), questions, None).answers == {"2": "Rayleigh.", "1": "4"}


def test_names(write, questions):
    rows = [{"question_id": 1, "text": "x"}, {"question_id": 2, "text": "y"}]
    path = write("a.jsonl", rows)
    assert [player.name for player in read_players([path, path], questions, ["x", "y"])] == ["x", "y"]
    with pytest.raises(ValueError, match="--names has 1 names"):
        read_players([path, path], questions, ["x"])
    with pytest.raises(ValueError, match="would both be 'A:B'"):
        read_players([path, path], questions, ["a/b", "A:B"])
    with pytest.raises(ValueError, match="two or more"):
        read_players([path], questions, None)
    assert safe_name("../org/my model:1") == "_._org_my_model_1"


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--base_url", "localhost:8000"], "--base_url 'localhost:8000': a URL such as"),
        (["--base_url", "http://a:b/v1"], "a URL such as"),
        (["--names", "a,"], "--names: a name is empty"),
        (["--model", ""], "--model (or OPENAI_MODEL) is needed"),
        (["--concurrency", "0"], "0 is out of range; at least 1 is needed"),
        (["--concurrency", "1.5"], "invalid whole number value"),
        (["--timeout", "inf"], "inf is out of range"),
        (["--temp", "1"], "unrecognized arguments: --temp"),
        (["--prompt", "both"], "invalid choice: 'both'"),
    ],
)
def test_flags_that_are_refused(flags, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--questions", "q", "--answers", "a", "b", "--output", "o", "--model", "m", *flags])
    assert said in capsys.readouterr().err
