"""The trainer of a run, and training with it: to the end, from where it was, or until a signal."""

import os
import signal
from types import SimpleNamespace

import pytest
from torch import nn
from transformers import GenerationConfig, TrainerCallback, TrainerState

from arguments.generation import GenerationArguments
from common.errors import FailedRunError
from tests.support.flags import trainer_of
from training.loop.evaluation import EvaluationMetrics
from training.loop.train import build_trainer, generation_config, learning_curve, train_model

ENDS = SimpleNamespace(generation_config=GenerationConfig(eos_token_id=[1, 7]))  # all that is asked of a model


# ---- How answers are written ---------------------------------------------------------------------------------------


def test_answers_end_where_the_model_ends_them(tiny_tokenizer):
    config = generation_config(GenerationArguments(max_new_tokens=9), ENDS, tiny_tokenizer, ())
    assert (config.max_new_tokens, config.eos_token_id) == (9, [1, 7])
    assert (config.bos_token_id, config.pad_token_id) == (0, 3)
    assert config.stop_strings is None


def test_answers_end_at_texts_too_where_the_template_has_no_token():
    tokenizer = SimpleNamespace(pad_token_id=3, bos_token_id=None)
    config = generation_config(GenerationArguments(do_sample=True, top_p=0.5), ENDS, tokenizer, ("<|im_end|>",))
    assert config.stop_strings == ["<|im_end|>"] and config.top_p == 0.5 and config.bos_token_id is None


# ---- The trainer ---------------------------------------------------------------------------------------------------


@pytest.fixture
def parts(make_base, command):
    """A function: flags → the trainer of a tiny run."""
    return lambda *flags: trainer_of(command(make_base(), "--save_strategy", "no", *flags))[0]


def rebuilt(trainer, settings, step_collator):
    """A trainer of the same model and rows, with other settings."""
    rows = {"train": trainer.train_dataset, "evaluated": None, "collator": trainer.data_collator}
    how = {"step_collator": step_collator, "trial": [], "largest": None, "metrics": EvaluationMetrics(0)}
    return build_trainer(trainer.model, trainer.processing_class, settings, trainer.generation, **rows, **how)


def test_a_step_is_one_batch_to_the_library_where_it_is_collated_whole(parts):
    trainer = parts("--group_by_length", "False")
    settings = trainer.args
    whole, plain = (rebuilt(trainer, settings, collator) for collator in (lambda rows: [rows], None))
    assert (whole.args.per_device_train_batch_size, whole.args.gradient_accumulation_steps) == (4, 1)
    assert (plain.args.per_device_train_batch_size, plain.args.gradient_accumulation_steps) == (2, 2)
    assert (settings.per_device_train_batch_size, settings.gradient_accumulation_steps) == (2, 2)


def test_processes_look_for_weights_without_gradient_only_where_there_are_experts(parts):
    trainer = parts()
    settings = trainer.args
    assert settings.ddp_find_unused_parameters is False
    settings.ddp_find_unused_parameters = True
    assert rebuilt(trainer, settings, None).args.ddp_find_unused_parameters is True
    settings.ddp_find_unused_parameters = None
    trainer.model.experts = nn.Linear(2, 2)
    assert rebuilt(trainer, settings, None).args.ddp_find_unused_parameters is None


# ---- Training ------------------------------------------------------------------------------------------------------


def test_training_to_the_end_gives_its_metrics_and_no_signal(parts):
    trainer = parts("--logging_steps", "2")
    metrics, signum = train_model(trainer, None)
    assert signum is None
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3  # the first step, the second, and the last, which no --logging_steps would log
    assert metrics["train_steps"] == 3 and "train_runtime" in metrics
    assert (metrics["train_loss_first"], metrics["train_loss_last"]) == (losses[0], losses[-1])


def test_a_signal_ends_the_step_in_hand_and_the_handlers_come_back(parts):
    class Terminate(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            os.kill(os.getpid(), signal.SIGTERM)

    trainer, before = parts(), signal.getsignal(signal.SIGTERM)
    trainer.add_callback(Terminate())
    metrics, signum = train_model(trainer, None)
    assert (metrics["train_steps"], signum) == (1, signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_checkpoint_of_the_last_step_is_trained_no_further(parts, tmp_path, monkeypatch):
    trainer = parts()
    monkeypatch.setattr(trainer, "train", lambda **flags: pytest.fail("it was trained"))
    history = [{"step": 0, "eval_loss": 5.0}, {"step": 1, "loss": 4.0}, {"step": 3, "loss": 3.0}]
    TrainerState(global_step=3, log_history=history).save_to_json(str(tmp_path / "trainer_state.json"))
    metrics, signum = train_model(trainer, str(tmp_path))
    assert signum is None and metrics == {
        "train_steps": 3,
        "train_loss_first": 4.0,
        "train_loss_last": 3.0,
        "eval_loss_before": 5.0,
    }


def test_an_earlier_checkpoint_is_gone_on_from(parts, tmp_path, monkeypatch):
    trainer, given = parts(), []
    monkeypatch.setattr(trainer, "train", lambda **flags: given.append(flags) or SimpleNamespace(metrics={"a": 1}))
    TrainerState(global_step=2).save_to_json(str(tmp_path / "trainer_state.json"))
    metrics, _ = train_model(trainer, str(tmp_path))
    assert given == [{"resume_from_checkpoint": str(tmp_path)}]
    assert metrics == {"a": 1, "train_steps": 2}


def test_rows_that_fill_no_batch_are_a_failed_run(parts):
    trainer = parts("--dataloader_drop_last", "True", "--max_train_samples", "3")
    with pytest.raises(FailedRunError, match="not one step was trained.*--dataloader_drop_last"):
        train_model(trainer, None)


# ---- What is told of it --------------------------------------------------------------------------------------------


def test_the_curve_is_the_first_and_the_last_loss():
    history = [{"step": 0, "eval_loss": 9.0}, {"step": 1, "loss": 4.0}, {"step": 2, "eval_loss": 8.0}]
    state = TrainerState(global_step=2, log_history=[*history, {"step": 2, "loss": 3.0}, {"step": 2, "train_loss": 1}])
    assert learning_curve(state) == {
        "train_steps": 2,
        "train_loss_first": 4.0,
        "train_loss_last": 3.0,
        "eval_loss_before": 9.0,
    }


def test_the_curve_tells_only_what_was_logged():
    assert learning_curve(TrainerState(global_step=1)) == {"train_steps": 1}
    later = TrainerState(global_step=1, log_history=[{"step": 1, "eval_loss": 8.0}])
    assert learning_curve(later) == {"train_steps": 1}
