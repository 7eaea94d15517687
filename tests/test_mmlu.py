"""MMLU scoring on prompts made here."""

import json

import pytest
import torch

import qlora
from data.formats import DataError
from eval import mmlu

QUESTION = "The following are multiple choice questions (with answers) about  {subject}.\n\nWhat is {n}?\nA. 1\nB. 2\n"
QUESTION += "C. 3\nD. 4\nAnswer:"


@pytest.fixture
def prompts(tmp_path, monkeypatch):
    """Eight questions of two subjects in a five-shot validation file."""
    rows = [
        {"subject": f"s{n % 2}", "input": QUESTION.format(subject=f"s{n % 2}", n=n), "output": "ABCD"[n % 4]}
        for n in range(8)
    ]
    monkeypatch.setattr(mmlu, "MMLU_DIRECTORY", tmp_path)
    (tmp_path / "five_shot_mmlu_val.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def test_rows_and_a_seeded_sample_of_them(prompts):
    assert mmlu.load_mmlu("mmlu-fs", "eval") == prompts
    sample = mmlu.load_mmlu("mmlu-fs", "eval", limit=3, seed=1)
    assert len(sample) == 3 and sample == mmlu.load_mmlu("mmlu-fs", "eval", limit=3, seed=1)
    assert [prompts.index(row) for row in sample] == sorted(prompts.index(row) for row in sample)


@pytest.mark.parametrize("line", ["{", '{"subject": "s"}', "[1]", '{"subject": "s", "input": "i", "output": "E"}'])
def test_bad_lines_are_named(prompts, tmp_path, line):
    with (tmp_path / "five_shot_mmlu_val.json").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match="line 9"):
        mmlu.load_mmlu("mmlu-fs", "eval")


def test_letters_and_the_cut_from_the_left(tiny_tokenizer):
    ids = mmlu.letter_ids(tiny_tokenizer)
    assert [tiny_tokenizer.decode([token]).strip() for token in ids] == ["A", "B", "C", "D"]
    whole = mmlu.prompt_ids(tiny_tokenizer, "one two three four", 100)
    cut = mmlu.prompt_ids(tiny_tokenizer, "one two three four", 5)
    assert cut == [tiny_tokenizer.bos_token_id, *whole[-4:]]


class Oracle(torch.nn.Module):
    """Gives letter `answer(prompt length)` the highest logit at the last position."""

    def __init__(self, letters, rows_right):
        super().__init__()
        self.letters, self.rows_right, self.calls = letters, rows_right, 0
        self.device = torch.device("cpu")

    def forward(self, input_ids, attention_mask):
        logits = torch.zeros(1, input_ids.shape[1], 384)
        logits[0, -1, self.letters[self.rows_right[self.calls]]] = 5.0
        self.calls += 1
        return type("Output", (), {"logits": logits})


def test_scores_against_known_answers(prompts, tiny_tokenizer):
    """Subject s0 is answered right throughout, of s1 every other question: 1.0, 0.5, macro 0.75."""
    right = ["ABCD".index(row["output"]) for row in prompts]
    for wrong in (1, 5):
        right[wrong] = (right[wrong] + 1) % 4
    model = Oracle(mmlu.letter_ids(tiny_tokenizer), right).train()
    scores = mmlu.score_mmlu(model, tiny_tokenizer, prompts, "eval", 2048)
    assert scores["mmlu_eval_accuracy_s0"] == 1.0 and scores["mmlu_eval_accuracy_s1"] == 0.5
    assert scores["mmlu_eval_accuracy"] == 0.75
    assert scores["mmlu_loss"] > 1.0
    assert model.training


def test_during_a_run_and_alone(prompts, make_base, command, tmp_path):
    argv = command(make_base(), "--do_mmlu_eval", "--do_eval", "--max_mmlu_samples", "4")
    assert qlora.main(argv) == 0
    out = tmp_path / "out"
    metrics = json.loads((out / "metrics.json").read_text())
    logged = json.loads((out / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in logged if "mmlu_loss" in entry] == [0]  # the last one comes after training
    alone = command(make_base(), "--do_mmlu_eval", "--do_train", "False", "--max_mmlu_samples", "4")
    assert qlora.main(alone) == 0
    again = json.loads((out / "metrics.json").read_text())
    assert again["mmlu_loss"] == metrics["mmlu_loss"] and "mmlu_eval_accuracy" in again
