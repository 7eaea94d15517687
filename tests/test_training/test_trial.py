"""The trial of schedule and optimizer, and that what passes it trains."""

import json
from argparse import Namespace

import pytest
import torch
from transformers import training_args
from transformers.trainer_utils import SchedulerType

from arguments import settings as rules
from arguments.declare import ArgumentsError
from arguments.evaluation import ANSWER_METRICS, LOSSES
from arguments.parser import parse
from data.loading import make_data_module
from eval.metrics.text import text_metrics
from training.loop.arguments import library_arguments
from training.loop.evaluation import EvaluationMetrics
from training.loop.train import build_trainer, generation_config
from training.model.build import build_model, read_base
from training.trial import planned_steps, try_out, try_schedule

SCHEDULES = [kind.value for kind in SchedulerType]
OPTIMIZERS = [kind.value for kind in training_args.OptimizerNames]
EVALUATED = ["--eval_strategy", "steps", "--eval_steps", "1"]


@pytest.fixture(scope="module")
def shared(make_base, rows_file, tmp_path_factory):
    """A tiny model with an adapter and its rows, loaded once: `trainer(flags)` makes a trainer of it."""
    out = tmp_path_factory.mktemp("out")
    plain = ["--model_name_or_path", str(make_base()), "--dataset", str(rows_file), "--output_dir", str(out)]
    plain += ["--bits", "32", "--lora_r", "64", "--use_cpu", "--disable_tqdm", "--source_max_len", "64"]
    plain += ["--target_max_len", "32", "--max_steps", "2", "--per_device_train_batch_size", "2"]
    plain += ["--save_strategy", "no"]
    plain += ["--gradient_accumulation_steps", "1", "--logging_strategy", "no", "--eval_dataset_size", "4"]
    plain += ["--gradient_checkpointing", "False"]
    arguments = parse([*plain, "--do_eval"])
    base = read_base(arguments.model, arguments.data, arguments.training, 8, None)
    model = build_model(arguments.model, arguments.training, base, None)
    module = make_data_module(base.tokenizer, arguments.data, arguments.training)

    def trainer(*flags: str):
        asked = parse([*plain, *flags])
        generation = generation_config(asked.generation, model, base.tokenizer, ())
        batching = module.step_collator if asked.training.step_batching else None
        rows = {"train": module.train, "evaluated": module.eval, "collator": module.collator}
        settings = library_arguments(asked.training)
        metrics = EvaluationMetrics(len(module.eval))
        how = {"step_collator": batching, "trial": [], "largest": None, "metrics": metrics}
        return build_trainer(model, base.tokenizer, settings, generation, **rows, **how)

    return Namespace(plain=plain, model=model, trainer=trainer)


def settings_of(argv):
    """Our flags of training, and transformers' of them."""
    training = parse(argv).training
    return training, library_arguments(training)


def assert_trains(shared, *flags: str) -> None:
    trainer = shared.trainer(*flags)
    weights = {
        name: weight.detach().clone() for name, weight in shared.model.named_parameters() if weight.requires_grad
    }
    trainer.train()
    assert trainer.state.global_step == trainer.args.max_steps
    moved = [not torch.equal(weight, dict(shared.model.named_parameters())[name]) for name, weight in weights.items()]
    assert any(moved) and all(weight.isfinite().all() for weight in shared.model.parameters())


SETTINGS = {
    "cosine_with_min_lr": {"min_lr": 1e-5},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1, "warmup_lr_rate": 0.5},
    "cosine_with_restarts": {"num_cycles": 2},
    "warmup_stable_decay": {"num_decay_steps": 1},
    "polynomial": {"power": 2},
    "reduce_lr_on_plateau": {"patience": 0},
    "greedy": {"min_lr": 1e-5},
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_each_schedule_trains(kind, shared, make_args):
    flags = ["--lr_scheduler_type", kind, *(EVALUATED if kind in rules.FOLLOWING_SCHEDULES else [])]
    flags += ["--lr_scheduler_kwargs", json.dumps(SETTINGS[kind])] if kind in SETTINGS else []
    try_schedule(*settings_of([*shared.plain, *flags]), steps=2)
    assert_trains(shared, *flags)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_each_optimizer_trains_or_is_refused(kind, shared, make_args):
    try:
        try_out(*settings_of([*shared.plain, "--optim", kind]))
    except ArgumentsError as refused:
        assert f"--optim {kind}" in str(refused)
        missing = rules.OPTIMIZER_PACKAGES.keys() | set(rules.UPDATING_IN_BACKWARD)
        assert kind in missing, refused
    else:
        steps = "7" if kind == "schedule_free_radam" else "2"  # RAdam's first five change nothing
        assert_trains(shared, "--optim", kind, "--max_steps", steps)


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--optim", "sgd", "--optim_args", "nesterov=true"], ["--optim sgd --optim_args nesterov=true", "momentum"]),
        (["--torch_compile_backend", "nosuch"], ["--torch_compile_backend nosuch", "NOSUCH"]),
        (["--torch_compile_backend", "eager", "--torch_compile_mode", "nosuch"], None),  # eager reads no mode
    ],
)
def test_what_cannot_be_made_is_refused(make_args, argv, parts):
    args = settings_of(["--use_cpu", *argv])
    if parts is None:
        return try_out(*args)
    with pytest.raises(ArgumentsError) as refused:
        try_out(*args)
    for part in parts:
        assert part in str(refused.value), part


@pytest.mark.parametrize(
    ("kind", "settings", "more", "parts"),
    [
        (
            "cosine_with_min_lr",
            {"min_lr": 1},
            [],
            ["cosine_with_min_lr", "at step 4 of 100 is 0.00046", "to --learning_rate 0.0002"],
        ),
        ("polynomial", {"lr_end": 1}, [], ["polynomial", '{"lr_end": 1}', "smaller than initial"]),
        ("polynomial", {}, ["--warmup_steps", "100"], ["polynomial", "step 100 of 100", "division by zero"]),
        ("warmup_stable_decay", {"num_decay_steps": 98}, [], ["warmup_stable_decay", "101 steps", "has 100"]),
        ("greedy", {}, EVALUATED, ["greedy", "to 0.001 at least", "--learning_rate is 0.0002", "min_lr"]),
    ],
)
def test_impossible_learning_rates_are_refused(make_args, kind, settings, more, parts):
    args = settings_of(["--use_cpu", "--lr_scheduler_type", kind, "--lr_scheduler_kwargs", json.dumps(settings), *more])
    with pytest.raises(ArgumentsError) as refused:
        try_schedule(*args, steps=100)
    for part in parts:
        assert part in str(refused.value), part


@pytest.mark.parametrize("drop_last", ["True", "False"])
@pytest.mark.parametrize("grouped", ["True", "False"])
@pytest.mark.parametrize(("rows", "accumulation", "epochs"), [(2, 2, 1), (3, 4, 2), (1, 1, 0.3), (20, 4, 1.5)])
def test_planned_steps_are_those_that_are_trained(shared, make_args, drop_last, grouped, rows, accumulation, epochs):
    flags = ["--max_steps", "-1", "--num_train_epochs", str(epochs), "--per_device_train_batch_size", str(rows)]
    flags += ["--gradient_accumulation_steps", str(accumulation), "--dataloader_drop_last", drop_last]
    flags += ["--group_by_length", grouped]
    trainer = shared.trainer(*flags)
    batches = trainer.get_train_dataloader()
    if len(batches):  # else the run says that not one step can be trained
        *_, total = trainer.set_initial_training_values(trainer.args, batches)
        training, settings = settings_of([*shared.plain, *flags])
        assert planned_steps(settings, len(trainer.train_dataset), training.step_batching) == total


def test_best_metrics_are_those_that_are_measured(shared):
    answers = text_metrics(["a"], ["a"], tokens=[1], stopped=[True], prefix="eval")
    assert {f"eval_{name}" for name in ANSWER_METRICS} == answers.keys() - {"eval_references"}
    trainer = shared.trainer("--do_eval")
    assert {f"eval_{name}" for name in LOSSES} < trainer.evaluate().keys()
