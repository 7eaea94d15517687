"""metrics.json is what the last training, evaluation and prediction measured."""

import json

import pytest

from eval.report.metrics import forget_comparison, forget_results, read_metrics, save_results


@pytest.fixture
def save(tmp_path):
    """A function: split and metrics → what metrics.json holds then."""

    def save_one(split, metrics):
        save_results(str(tmp_path), split, metrics)
        return json.loads((tmp_path / "metrics.json").read_text())

    return save_one


def test_the_numbers_are_those_of_the_last_commands(save):
    train, first = {"train_steps": 3, "eval_loss_before": 2.0}, {"eval_loss": 1.0, "base_eval_loss": 2.0}
    assert save("train", train) == train
    assert save("eval", first) == train | first
    assert save("predict", {"predict_exact_match": 1.0}) == train | first | {"predict_exact_match": 1.0}
    assert save("eval", {"eval_loss": 0.9}) == train | {"eval_loss": 0.9, "predict_exact_match": 1.0}
    assert save("predict", {"predict_references": 0}) == train | {"eval_loss": 0.9, "predict_references": 0}


def test_each_file_holds_its_own(save, tmp_path):
    save("train", {"train_steps": 3})
    save("eval", {"eval_loss": 1.0})
    assert json.loads((tmp_path / "eval_results.json").read_text()) == {"eval_loss": 1.0}


def test_a_file_that_cannot_be_read_is_named(save, tmp_path, capsys):
    save("eval", {"eval_loss": 1.0})
    (tmp_path / "eval_results.json").write_text("{")
    assert save("train", {"train_steps": 3}) == {"train_steps": 3}
    assert f"{tmp_path / 'eval_results.json'} cannot be read" in capsys.readouterr().out


def test_training_begins_without_numbers(save, tmp_path):
    save("eval", {"eval_loss": 1.0})
    (tmp_path / "comparison.json").write_text("{}")
    forget_results(str(tmp_path))
    assert read_metrics(str(tmp_path)) == {} and not list(tmp_path.iterdir())


@pytest.mark.parametrize("predicts", [True, False])
def test_a_comparison_that_no_longer_holds_is_removed_and_said(tmp_path, capsys, predicts):
    for name in ("comparison.json", "predictions_base.jsonl"):
        (tmp_path / name).write_text("{}")
    for _ in range(2):
        forget_comparison(str(tmp_path), predicts)
    assert not (tmp_path / "comparison.json").exists()
    assert (tmp_path / "predictions_base.jsonl").exists() is not predicts
    assert capsys.readouterr().out.count("comparison.json is removed") == 1
