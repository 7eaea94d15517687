"""metrics.json over several commands: what a later one measures again replaces all of its kind."""

import json
from types import SimpleNamespace

import pytest

from training.report import next_command, refresh_model_card, save_metrics


@pytest.fixture
def save(tmp_path):
    """A function: split, metrics and whether the command trains → what metrics.json holds then."""
    trainer = SimpleNamespace(is_world_process_zero=lambda: True)

    def save_one(split, metrics, do_train=False):
        args = SimpleNamespace(output_dir=str(tmp_path), do_train=do_train, compare_base=False)
        save_metrics(trainer, split, dict(metrics), args)
        return json.loads((tmp_path / "metrics.json").read_text())

    return save_one


def test_a_later_measurement_leaves_nothing_of_its_kind(save):
    save("train", {"train_steps": 3, "eval_loss_before": 2.0}, do_train=True)
    first = {"eval_loss": 1.0, "eval_supervised_tokens": 9, "eval_chrf": 0.1, "base_eval_loss": 2.0}
    mmlu = {"mmlu_eval_accuracy": 0.3, "mmlu_eval_accuracy_virology": 0.3, "base_mmlu_eval_accuracy": 0.2}
    kept = save("eval", first | mmlu, do_train=True)
    assert kept == {"train_steps": 3, "eval_loss_before": 2.0, **first, **mmlu}
    alone = save("eval", {"mmlu_eval_accuracy": 0.5})  # MMLU of other questions
    assert alone == {"train_steps": 3, "eval_loss_before": 2.0, **first, "mmlu_eval_accuracy": 0.5}
    again = save("eval", {"eval_loss": 0.9, "eval_supervised_tokens": 9})
    assert again == {
        "train_steps": 3,
        "eval_loss_before": 2.0,
        "eval_loss": 0.9,
        "eval_supervised_tokens": 9,
        "mmlu_eval_accuracy": 0.5,
    }


def test_the_loss_before_training_goes_with_its_rows(save):
    save("train", {"eval_loss_before": 2.0}, do_train=True)
    assert "eval_loss_before" in save("eval", {"eval_loss": 1.0, "eval_supervised_tokens": 9}, do_train=True)
    assert "eval_loss_before" not in save("eval", {"eval_loss": 1.0, "eval_supervised_tokens": 8})


def test_predictions_of_other_rows_replace_those_of_earlier_ones(save):
    save("predict", {"predict_exact_match": 1.0, "base_predict_exact_match": 0.0, "predict_references": 3})
    assert save("predict", {"predict_references": 0}) == {"predict_references": 0}


def test_a_comparison_that_no_longer_holds_is_removed_and_said(save, tmp_path, capsys):
    (tmp_path / "comparison.json").write_text("{}")
    for _ in range(2):
        save("eval", {"eval_loss": 1.0})
    assert not (tmp_path / "comparison.json").exists()
    assert capsys.readouterr().out.count("comparison.json is removed") == 1


TABLE = b"# Mine, \xe9dit\xe9e\r\n## How good it is\n| metric | value |\n|---|---|\n"


def test_the_rows_of_the_card_are_replaced_and_nothing_else(save, tmp_path, capsys):
    """Whatever its encoding and line ends are."""
    card, below = tmp_path / "README.md", b"\r\nNot for production.\n| a | b |\n"
    card.write_bytes(TABLE + b"| eval_loss | 2 |\n| eval_samples | 9 |\n" + below)
    save("eval", {"eval_loss": 1.5})
    refresh_model_card(str(tmp_path))
    assert card.read_bytes() == TABLE + b"| eval_loss | 1.5 |\n" + below
    assert capsys.readouterr().out == "" and not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("page", ["# Mine\n", "## How good it is\nVery.\n"])
def test_a_page_without_our_table_is_left_as_it_is(save, tmp_path, page, capsys):
    save("eval", {"eval_loss": 1.0})
    (tmp_path / "README.md").write_text(page)
    refresh_model_card(str(tmp_path))
    assert (tmp_path / "README.md").read_text() == page
    assert "README.md has no table of metrics as this tool writes it, and stays as it is." in capsys.readouterr().out


def test_the_next_command_says_nothing_twice():
    args = SimpleNamespace(do_predict=False, do_eval=True, eval_dataset=None, do_train=False)
    command = ["--do_eval", "--do_train", "False"]
    assert next_command(args, command) == "python qlora.py --do_eval --do_train False --do_predict"
    args.do_train = True
    assert next_command(args, ["--do_eval"]) == "python qlora.py --do_eval --do_train False --do_predict"
