"""The steps of a run that evaluate: which model is measured when, under which names, and what is written of it."""

import contextlib
import json
from types import SimpleNamespace

import numpy
import pytest
from datasets import Dataset

from data.batches.collator import DataCollatorForCausalLM
from eval.compare.compare import Measured
from eval.steps import (
    answer_metrics,
    as_model,
    compare_models,
    end_ids,
    evaluate,
    new_measurements,
    predict,
    timeless,
)

ROWS = Dataset.from_list(
    [{"input": "Say a. ", "output": "a", "prompt_length": 3}, {"input": "Say b. ", "output": "b", "prompt_length": 3}]
)
SPEED = {"predict_runtime": 2.0, "predict_model_preparation_time": 0.1, "epoch": 3.0}


class Trainer:
    """What is used of a trainer; the base answers a wrong letter, the tuned model the right one."""

    def __init__(self, tokenizer, main: bool = True):
        self.tokenizer, self.main, self.base = tokenizer, main, False
        self.model, self.accelerator = self, self
        self.bars, self.generation = SimpleNamespace(label=None), SimpleNamespace(eos_token_id=tokenizer.eos_token_id)
        self.eval_dataset, self.data_collator = ROWS, None
        self.compute_metrics = SimpleNamespace(row_losses=None)
        self.seen = []  # (what it did, by which model, with which label, under which prefix)

    def unwrap_model(self, model):
        return model

    @contextlib.contextmanager
    def disable_adapter(self):
        self.base = True
        try:
            yield
        finally:
            self.base = False

    def note(self, what: str, prefix: str) -> None:
        self.seen.append((what, "base" if self.base else "tuned", self.bars.label, prefix))

    def evaluate(self, *, metric_key_prefix):
        self.note("evaluate", metric_key_prefix)
        self.compute_metrics.row_losses = [[2.0 if self.base else 1.0, 1]] * 2
        return {f"{metric_key_prefix}_loss": 2.0 if self.base else 1.0, "epoch": 1.0}

    def predict(self, rows, *, metric_key_prefix):
        self.note("predict", metric_key_prefix)
        texts = ["x", "x"] if self.base else rows["output"]
        ids = [self.tokenizer(text, add_special_tokens=False)["input_ids"] + [1] for text in texts]
        repeated = numpy.array([*ids, ids[0]])  # as processes do to fill their last batch
        names = ("loss", "perplexity", "supervised_tokens", "runtime")
        metrics = {f"{metric_key_prefix}_{name}": 1.0 for name in names} | {"epoch": 1.0}
        return SimpleNamespace(metrics=metrics, predictions=repeated)

    def is_world_process_zero(self):
        return self.main


class MMLU:
    """What is used of the MMLU callback."""

    prefix, split = "", "eval"

    def __init__(self):
        self.prefixes = []

    def score(self):
        self.prefixes.append(self.prefix)
        return {f"{self.prefix}mmlu_eval_accuracy": 0.5}

    def answers(self):
        return ["art", "law"], [True, self.prefix == ""]


@pytest.fixture
def trainer(tiny_tokenizer):
    return Trainer(tiny_tokenizer)


@pytest.fixture
def collator(tiny_tokenizer):
    return DataCollatorForCausalLM(tiny_tokenizer, 64, 16, False, True)


# ---- Which model ---------------------------------------------------------------------------------------------------


def test_the_base_is_measured_first_and_only_where_it_is_compared():
    assert list(new_measurements(True, 5)) == ["base", "tuned"]
    assert new_measurements(False, 5) == {"tuned": Measured(max_new_tokens=5)}


def test_the_adapter_is_off_for_the_base_alone(trainer):
    mmlu = MMLU()
    with as_model(trainer, "base", mmlu) as prefix:
        assert trainer.base and prefix == mmlu.prefix == "base_"
    assert not trainer.base and mmlu.prefix == ""
    with as_model(trainer, "tuned", mmlu) as prefix:
        assert not trainer.base and prefix == mmlu.prefix == ""


def test_the_adapter_is_on_again_after_an_error(trainer):
    mmlu = MMLU()
    with pytest.raises(KeyboardInterrupt), as_model(trainer, "base", mmlu):
        raise KeyboardInterrupt
    assert not trainer.base and mmlu.prefix == ""


# ---- Evaluation ----------------------------------------------------------------------------------------------------


def test_losses_of_both_models_have_their_own_names(trainer):
    measured = new_measurements(True, 5)
    metrics = evaluate(trainer, measured, None, do_eval=True, prompts="mmlu-fs")
    assert metrics == {"base_eval_loss": 2.0, "base_eval_samples": 2, "eval_loss": 1.0, "eval_samples": 2}
    assert trainer.seen == [
        ("evaluate", "base", "base_eval", "base_eval"),
        ("evaluate", "tuned", "eval", "eval"),
    ]
    assert measured["base"].losses == [[2.0, 1]] * 2 and measured["tuned"].losses == [[1.0, 1]] * 2


def test_mmlu_alone_is_scored_by_itself(trainer):
    measured, mmlu = new_measurements(True, 5), MMLU()
    metrics = evaluate(trainer, measured, mmlu, do_eval=False, prompts="mmlu-zs")
    assert metrics == {
        "base_mmlu_eval_accuracy": 0.5,
        "base_mmlu_eval_prompts": "mmlu-zs",
        "mmlu_eval_accuracy": 0.5,
        "mmlu_eval_prompts": "mmlu-zs",
    }
    assert mmlu.prefixes == ["base_", ""] and not trainer.seen
    assert measured["tuned"].subjects == ["art", "law"]
    assert measured["tuned"].right == [True, True]


def test_an_evaluation_brings_mmlu_with_it(trainer):
    """As a callback of the trainer, which is not asked a second time."""
    measured, mmlu = new_measurements(False, 5), MMLU()
    metrics = evaluate(trainer, measured, mmlu, do_eval=True, prompts="mmlu-fs")
    assert mmlu.prefixes == [] and metrics["mmlu_eval_prompts"] == "mmlu-fs"
    assert measured["tuned"].right == [True, True]


# ---- Prediction ----------------------------------------------------------------------------------------------------


def test_answers_of_both_models_are_written_and_measured(trainer, collator, tmp_path, capsys):
    measured = new_measurements(True, 5)
    loss_metrics = object()
    metrics = predict(trainer, measured, ROWS, collator, loss_metrics, str(tmp_path))
    assert trainer.data_collator is collator and trainer.compute_metrics is loss_metrics
    assert [seen[1:] for seen in trainer.seen] == [
        ("base", "base_predict", "base_predict"),
        ("tuned", "predict", "predict"),
    ]
    for name, model, answers in (("predictions_base", "base", ["x", "x"]), ("predictions", "tuned", ["a", "b"])):
        lines = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        assert [line["prediction"] for line in lines] == answers and measured[model].lines == lines
    assert (metrics["base_predict_exact_match"], metrics["predict_exact_match"]) == (0, 1)
    assert metrics["predict_samples"] == metrics["base_predict_samples"] == 2
    assert metrics["predict_loss"] == 1.0 and "epoch" not in metrics
    assert "WARNING" not in capsys.readouterr().out


def test_other_processes_write_nothing(collator, tiny_tokenizer, tmp_path):
    measured = new_measurements(False, 5)
    metrics = predict(Trainer(tiny_tokenizer, main=False), measured, ROWS, collator, None, str(tmp_path))
    assert not list(tmp_path.iterdir()) and not measured["tuned"].lines
    assert metrics["predict_samples"] == 2 and "predict_exact_match" not in metrics


def test_questions_without_answers_have_no_loss(trainer, collator, tmp_path):
    rows = Dataset.from_list(
        [{"input": "Say a. ", "output": "", "prompt_length": 3}, {"input": "Say b. ", "output": "", "prompt_length": 3}]
    )
    trainer.predict = lambda rows, metric_key_prefix: Trainer.predict(
        trainer, ROWS, metric_key_prefix=metric_key_prefix
    )
    metrics = predict(trainer, new_measurements(False, 5), rows, collator, None, str(tmp_path))
    assert metrics["predict_references"] == 0 and "predict_runtime" in metrics
    assert not {"predict_loss", "predict_perplexity", "predict_supervised_tokens"} & metrics.keys()


@pytest.mark.parametrize("compare_base", [False, True])
def test_answers_that_never_end_are_warned_of_unless_a_comparison_does(
    compare_base, trainer, collator, tmp_path, capsys
):
    trainer.generation.eos_token_id = 2
    predict(trainer, new_measurements(compare_base, 5), ROWS, collator, None, str(tmp_path))
    assert ("WARNING: the model never stops by itself" in capsys.readouterr().out) is not compare_base


def test_metrics_of_answers_have_names_without_a_prefix(collator, tiny_tokenizer):
    generated = numpy.array([tiny_tokenizer(text)["input_ids"] + [1] for text in ("a", "x")])
    metrics = answer_metrics(generated, ROWS, collator, [1])
    assert metrics["exact_match"] == 0.5 and metrics["stopped"] == 1
    assert not [name for name in metrics if name.startswith("_")]


def test_what_a_later_command_does_not_know_is_left_out():
    assert timeless({**SPEED, "predict_loss": 1.0}) == {"predict_runtime": 2.0, "predict_loss": 1.0}


@pytest.mark.parametrize(("ends", "ids"), [(1, [1]), ([1, 7], [1, 7])])
def test_an_answer_has_one_end_or_several(ends, ids):
    assert end_ids(SimpleNamespace(eos_token_id=ends)) == ids


# ---- Comparison ----------------------------------------------------------------------------------------------------


def test_the_comparison_is_printed_and_written(tmp_path, capsys):
    measured = {"base": Measured(losses=[[2.0, 1]] * 8), "tuned": Measured(losses=[[1.0, 1]] * 8)}
    compare_models(measured, str(tmp_path), seed=42)
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    [loss] = comparison["differences"]
    assert (loss["base"], loss["tuned"], loss["verdict"]) == (2.0, 1.0, "better")
    assert comparison["verdict"][0] in capsys.readouterr().out
