"""The tables of settings say what the libraries take."""

import dataclasses
import inspect
import re

import pytest
import torch
from accelerate.utils import GradientAccumulationPlugin
from transformers import optimization, trainer_optimizer, training_args
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_pt_utils import AcceleratorConfig
from transformers.trainer_utils import SchedulerType

from arguments import settings as rules
from arguments.checks import TRACKERS

SCHEDULES = [kind.value for kind in SchedulerType]
OPTIMIZERS = [kind.value for kind in training_args.OptimizerNames]


def parameters(function) -> set[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name for name, value in inspect.signature(function).parameters.items() if value.kind in kinds}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_settings_of_schedules_are_those_of_their_functions(kind):
    makers = {"reduce_lr_on_plateau": torch.optim.lr_scheduler.ReduceLROnPlateau, "greedy": optimization.GreedyLR}
    maker = makers.get(kind) or optimization.TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(kind)]
    given = {"self", "optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    assert rules.SCHEDULES[kind].keys() == parameters(maker) - given


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_settings_of_optimizers_are_those_that_the_library_reads(kind):
    source = inspect.getsource(trainer_optimizer._OPTIMIZER_HANDLERS[kind])
    read = set(re.findall(r'optim_args(?:\.get|\.pop)?[(\[]"(\w+)"', source))
    read |= {name for names in re.findall(r"for key in \((.*?)\)", source) for name in re.findall(r'"(\w+)"', names)}
    read |= set(re.findall(r'"(\w+)" in ctx\.optim_args', source))
    if "ademamix" not in kind:  # one function reads those of ademamix alone, for all of bitsandbytes
        read -= rules.ADEMAMIX.keys() if "bitsandbytes" in source else set()
    read -= {"weight_decay", "block_size", "kahan_sum", "decouple_lr"}
    assert rules.OPTIMIZERS.get(kind, {}).keys() == (set() if kind in rules.UPDATING_IN_BACKWARD else read)


def test_settings_in_json_are_those_of_their_classes():
    assert rules.ACCELERATOR.keys() == {f.name for f in dataclasses.fields(AcceleratorConfig)}
    assert rules.ACCUMULATION.keys() == {f.name for f in dataclasses.fields(GradientAccumulationPlugin)}
    of_torch = parameters(torch.utils.checkpoint.checkpoint) - {"function", "context_fn"}  # a function is no JSON
    assert rules.CHECKPOINTING.keys() == of_torch | {"preserve_rng_state", "every_n_layers", "offload"}
    source = inspect.getsource(training_args.TrainingArguments._process_fsdp_args)
    read = re.findall(r'self\.fsdp_config(?:\.get\(|\.setdefault\(|\[)"(\w+)"', source)
    assert rules.FSDP.keys() == set(read)


def test_trackers_are_those_of_the_library():
    turned_on_by_itself = {"kubeflow"}
    assert TRACKERS.keys() - {"none", "all"} == INTEGRATION_TO_CALLBACK.keys() - turned_on_by_itself
