"""Base against tuned: the numbers, the words, and the command that makes them."""

import json

import pytest
import torch

import qlora
from eval.compare.compare import Measured, compare, format_comparison


def line(prediction, reference, stopped=True, tokens=3, **fields):
    answer = {"prediction": prediction, "prediction_stopped": stopped, "prediction_tokens": tokens}
    return {"input": f"What about {reference}?", "output": reference, **fields, **answer}


def differences(comparison):
    return {row.name: row for row in comparison["differences"]}


def measured(answers, references, losses=(), **more):
    lines = [line(answer, reference, **more) for answer, reference in zip(answers, references, strict=True)]
    return Measured(losses=losses, lines=lines, max_new_tokens=9)


WORDS = [f"word{n} and more of it" for n in range(20)]


def test_a_better_model_is_called_better_and_its_answers_shown():
    right = [*WORDS[:18], "wrong", "wrong"]
    found = compare(measured(["wrong"] * 20, WORDS), measured(right, WORDS))
    rows = differences(found)
    exact = rows["exact match"]
    assert (exact.base, exact.tuned, exact.difference) == (0.0, 0.9, 0.9)
    assert 0.7 < exact.low < 0.9 < exact.high <= 1.0
    assert exact.verdict() == rows["chrF"].verdict() == rows["BLEU"].verdict() == "better"
    assert rows["new tokens"].verdict() == ""
    assert [row["row"] for row in found["changed"]] and len(found["changed"]) == 5
    assert all(row["tuned"] == row["reference"] for row in found["changed"])
    [said] = found["verdict"]
    assert said.startswith("The tuned model is better than the base in: exact match, token F1,")


def test_corpus_scores_are_those_of_the_metrics():
    from eval.metrics.text import text_metrics

    answers = [word.replace("more", "less") for word in WORDS[:10]] + WORDS[10:]
    rows = differences(compare(measured(["wrong"] * 20, WORDS), measured(answers, WORDS)))
    metrics = text_metrics(answers, WORDS)
    for name, label in (("bleu", "BLEU"), ("chrf", "chrF"), ("rougeL", "ROUGE-L"), ("token_f1", "token F1")):
        assert rows[label].tuned == pytest.approx(metrics[f"predict_{name}"])
        assert rows[label].low <= rows[label].difference <= rows[label].high


def test_a_difference_that_chance_explains_is_not_called_better():
    before, after = ["wrong"] * 20, ["wrong"] * 19 + WORDS[19:]
    found = compare(measured(before, WORDS), measured(after, WORDS))
    assert differences(found)["exact match"].verdict() == "not told apart"
    assert found["verdict"][0] == "Nothing here shows the tuned model to be better than the base."
    assert "cannot tell the two apart in: exact match" in found["verdict"][1]


def test_a_worse_model_is_called_worse():
    found = compare(measured(WORDS, WORDS), measured(["wrong"] * 20, WORDS))
    assert differences(found)["exact match"].verdict() == "worse"
    assert found["verdict"][0] == "The tuned model is not better than the base."
    assert found["verdict"][1].startswith("It is worse in: exact match")


def test_five_rows_prove_nothing():
    for rows, verdict in ((5, "too few rows"), (6, "better")):
        found = compare(measured(["wrong"] * rows, WORDS[:rows]), measured(WORDS[:rows], WORDS[:rows]))
        assert differences(found)["exact match"].verdict() == verdict


def test_a_model_that_changed_nothing_is_not_better():
    found = compare(measured(WORDS, WORDS), measured(WORDS, WORDS))
    assert differences(found)["chrF"].verdict() == "equal" and found["changed"] == []
    assert found["verdict"] == ["The tuned model is not better than the base."]


def test_answers_without_references_tell_nothing():
    found = compare(measured(["wrong"] * 20, [""] * 20), measured(WORDS, [""] * 20))
    assert found["verdict"] == ["No row here has an answer to compare with: nothing says which model is better."]


def test_losses_count_by_their_tokens():
    """(2 + 8) / (1 + 4) before, (1 + 2) / 5 after; less is better."""
    loss = differences(compare(Measured(losses=[(2, 1), (8, 4)] * 3), Measured(losses=[(1, 1), (2, 4)] * 3)))[
        "eval loss"
    ]
    assert (loss.base, loss.tuned) == (2.0, 0.6) and loss.difference == pytest.approx(-1.4)
    assert -1.5 <= loss.low < -1.4 < loss.high <= -1.0 and loss.verdict() == "better"


def test_mmlu_is_the_mean_over_subjects():
    subjects = ["a"] * 4 + ["b"]
    base = Measured(subjects=subjects, right=[True, False, False, False, False])
    tuned = Measured(subjects=subjects, right=[True, True, True, True, False])
    mmlu = differences(compare(base, tuned))["MMLU accuracy"]
    assert (mmlu.base, mmlu.tuned) == (0.125, 0.5)
    assert mmlu.difference == pytest.approx(0.375)


@pytest.mark.parametrize("stopped, said", [(0, "never stops by itself: all 20 answers"), (7, "7 of 20 answers only")])
def test_answers_that_do_not_stop_are_said(stopped, said):
    tuned = measured(WORDS, WORDS)
    for number, row in enumerate(tuned.lines):
        row["prediction_stopped"] = number < stopped
    warning = compare(measured(WORDS, WORDS), tuned)["verdict"][-1]
    assert said in warning and "--max_new_tokens 9" in warning and "--target_max_len" in warning


def test_questions_without_answers_show_the_texts_that_differ_most():
    before = measured(["alpha", "beta", "gamma"], ["", "", ""])
    after = measured(["alpha", "beta!", "something else"], ["", "", ""])
    found = compare(before, after)
    assert [row["row"] for row in found["changed"]] == [3, 2]
    assert set(differences(found)) == {"stopped by itself", "new tokens"}
    assert "right:" not in format_comparison(found)


def test_the_table_as_text():
    found = compare(measured(["wrong"] * 20, WORDS), measured(WORDS, WORDS, instruction="Say it. " * 30))
    lines = format_comparison(found).splitlines()
    [exact] = [text for text in lines if text.startswith("  exact match")]
    assert exact.split() == ["exact", "match", "0.0%", "100.0%", "+100.0%", "+100.0%", "to", "+100.0%", "better"]
    assert max(map(len, lines[:-2])) <= 120
    assert "base:   wrong  (chrF" in "\n".join(lines)


def test_different_rows_are_refused():
    with pytest.raises(ValueError):
        compare(measured(WORDS, WORDS), measured(WORDS[:5], WORDS[:5]))


# ---- through the command line ----


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "mmlu.json"
    prompt = "About  art.\n\nWhat is {}?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
    rows = [{"subject": "art", "input": prompt.format(n), "output": "ABCD"[n % 4]} for n in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_adapter_off_is_the_base_by_itself(make_base, command, tmp_path, questions, capsys):
    mmlu = ["--do_mmlu_eval", "--mmlu_dataset", str(questions)]
    steps = ["--do_eval", "--do_predict", "--min_new_tokens", "2", *mmlu]
    assert qlora.main(command(make_base(), *steps, "--compare_base")) == 0
    printed = capsys.readouterr().out
    out, alone = tmp_path / "out", tmp_path / "alone"
    argv = command(make_base(), *steps, "--do_train", "False", "--output_dir", str(alone))
    assert qlora.main(argv) == 0
    both, base = read(out / "metrics.json"), read(alone / "metrics.json")
    for name, value in base.items():
        if not name.endswith(("runtime", "per_second")):
            assert both[f"base_{name}"] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-5)), name
    assert (out / "predictions_base.jsonl").read_text() == (alone / "predictions.jsonl").read_text()
    assert both["eval_loss"] < both["base_eval_loss"]
    comparison = read(out / "comparison.json")
    rows = {row["name"]: row for row in comparison["differences"]}
    assert rows["eval loss"]["base"] == pytest.approx(base["eval_loss"], rel=1e-6)
    assert rows["eval loss"]["tuned"] == pytest.approx(both["eval_loss"], rel=1e-6)
    assert rows["MMLU accuracy"]["tuned"] == pytest.approx(both["mmlu_eval_accuracy"])
    assert rows["chrF"]["base"] == pytest.approx(base["predict_chrf"])
    assert "base against tuned" in printed and comparison["verdict"][0] in printed
    assert "comparison:  " in printed


def test_comparing_changes_nothing_of_the_tuned_model(make_base, command, tmp_path, adapter_of):
    for name, flags in (("with", ["--compare_base"]), ("without", [])):
        argv = command(make_base(), "--do_eval", "--do_predict", *flags, "--output_dir", str(tmp_path / name))
        assert qlora.main(argv) == 0
    one, two = (adapter_of(tmp_path / name) for name in ("with", "without"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert (tmp_path / "with" / "predictions.jsonl").read_text() == (
        tmp_path / "without" / "predictions.jsonl"
    ).read_text()
    losses = [read(tmp_path / name / "metrics.json")["eval_loss"] for name in ("with", "without")]
    assert losses[0] == losses[1]


def test_a_finished_run_is_compared_later_and_old_numbers_go(make_base, command, trained):
    later = ["--do_train", "False", "--do_eval"]
    assert qlora.main(command(make_base(), *later, "--compare_base")) == 0
    assert "base_eval_loss" in read(trained / "metrics.json")
    assert qlora.main(command(make_base(), *later)) == 0
    assert "base_eval_loss" not in read(trained / "metrics.json")


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--compare_base"], "--compare_base without --do_eval"),
        (["--compare_base", "--do_eval", "--full_finetune", "--bits", "32"], "--compare_base with --full_finetune"),
        (["--compare_base", "--do_eval", "--do_train", "False"], "holds no tuned weights"),
    ],
)
def test_what_cannot_be_compared_is_refused(make_base, command, capsys, flags, said):
    assert qlora.main(command(make_base(), *flags)) == 2
    assert said in capsys.readouterr().err


def test_evaluation_that_generates_measures_as_prediction_does(make_base, command, tmp_path):
    argv = command(make_base(), "--do_eval", "--do_predict", "--predict_with_generate", "--min_new_tokens", "2")
    assert qlora.main(argv) == 0
    metrics = read(tmp_path / "out" / "metrics.json")
    for name in ("chrf", "rougeL", "token_f1", "distinct_1", "stopped", "new_tokens", "references"):
        assert metrics[f"eval_{name}"] == metrics[f"predict_{name}"], name
    history = read(tmp_path / "out" / "trainer_state.json")["log_history"]
    assert any(entry["step"] == 0 and "eval_chrf" in entry for entry in history)


def test_evaluation_beside_a_prediction_generates_nothing_unasked(make_base, command, tmp_path):
    assert qlora.main(command(make_base(), "--do_eval", "--do_predict")) == 0
    assert "eval_chrf" not in read(tmp_path / "out" / "metrics.json")
