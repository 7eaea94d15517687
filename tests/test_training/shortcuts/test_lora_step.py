"""LoRA layers in one step of autograd: PEFT's outputs and gradients, and PEFT itself where more is asked."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from tests.support.flags import trainer_of
from tests.support.rounding import assert_near
from tests.test_training.loop.test_trainer import batch_of
from training.shortcuts import lora_step
from training.shortcuts.lora_step import ONE_STEP, LoraStep, OneStep, OneStepLinear, join_steps


class Small(nn.Module):
    """Two linear layers with biases."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(6, 10), nn.Linear(10, 4)

    def forward(self, states):
        return self.two(torch.tanh(self.one(states)))


def small(**options):
    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["one", "two"], init_lora_weights=False, **options)
    return get_peft_model(Small(), config)


def results_of(model, states):
    """The outputs of a model, and the gradients of its input and weights."""
    states = states.clone().requires_grad_()
    output = model(states)
    model.zero_grad()
    (output**2).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return gradients | {"output": output.detach(), "states": states.grad}


@pytest.fixture
def steps(monkeypatch):
    """How many layers were computed in one step."""
    count = []
    apply = LoraStep.apply
    monkeypatch.setattr(LoraStep, "apply", lambda *args: count.append(1) or apply(*args))
    return count


@pytest.mark.parametrize("shape", [(6,), (5, 6), (2, 5, 6)], ids=str)
@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"rank_pattern": {"one": 1}}], ids=str)
def test_outputs_and_gradients_are_those_of_peft(shape, options, steps):
    model, states = small(**options), torch.randn(shape)
    plain = results_of(model, states)
    assert not steps
    join_steps(model)
    assert_near(results_of(model, states), plain)
    assert len(steps) == 2


@pytest.mark.parametrize(
    "options",
    [{"lora_dropout": 0.5}, {"use_dora": True}, {"lora_bias": True}],
    ids=str,
)
def test_what_is_more_than_a_product_is_computed_by_peft(options, steps):
    model, states = small(**options), torch.randn(5, 6)
    join_steps(model)
    results_of(model, states)
    assert not steps


def test_adapters_that_are_off_merged_or_several_are_left_to_peft(steps):
    model, states = small(), torch.randn(5, 6)
    plain = model(states)
    join_steps(model)
    with model.disable_adapter():
        assert torch.equal(model(states), Small.forward(model.get_base_model(), states))
    model.merge_adapter()
    torch.testing.assert_close(model(states), plain)
    model.unmerge_adapter()
    model.add_adapter("other", LoraConfig(r=2, target_modules=["one"], init_lora_weights=False))
    model.base_model.set_adapter(["default", "other"])
    assert not torch.allclose(model(states), plain)
    assert not steps


def test_other_dtypes_are_left_to_peft(steps):
    """PEFT adds float32 adapters to what a bfloat16 layer gives."""
    model = small()
    model.get_base_model().one.base_layer.to(torch.bfloat16)
    join_steps(model)
    layer = model.get_base_model().one
    assert layer(torch.randn(5, 6).bfloat16()).dtype == torch.bfloat16 and not steps


def test_weights_names_and_classes_stay_those_of_peft():
    model = small()
    names = [name for name, _ in model.named_parameters()]
    join_steps(model)
    join_steps(model)
    assert names == [name for name, _ in model.named_parameters()]
    layers = [layer for layer in model.modules() if isinstance(layer, OneStep)]
    assert [type(layer) for layer in layers] == [OneStepLinear] * 2
    assert all(isinstance(layer, tuple(ONE_STEP)) for layer in layers)


def test_no_gradient_is_computed_that_nobody_needs(monkeypatch):
    """The input of the first layer has none: the product with the base's weight is left out."""
    model = small()
    join_steps(model)
    asked = []
    weight = lora_step.base_weight
    monkeypatch.setattr(lora_step, "base_weight", lambda base, dtype: asked.append(base) or weight(base, dtype))
    model(torch.randn(5, 6)).sum().backward()
    assert asked == [model.get_base_model().two.base_layer]


@pytest.mark.parametrize(
    "flags", [[], ["--gradient_checkpointing"], ["--bf16"], ["--bits", "16", "--bf16"], ["--bits", "32"]], ids=str
)
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])
def test_a_training_step_is_the_step_of_peft(architecture, flags, make_base, command, steps):
    """Through the trainer, in 4 bits with autocast and recomputation, too; GPT-2 at 16 and 32 bits has other layers."""
    trainer, module = trainer_of(command(make_base(architecture), *flags))
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    for layer in trainer.model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    inputs = batch_of(module)
    joined = one_step(trainer, inputs)
    assert bool(steps) == (architecture != "gpt2" or "--bits" not in flags)
    for layer in trainer.model.modules():
        if isinstance(layer, OneStep):
            layer.__class__ = type(layer).__mro__[2]
    plain = one_step(trainer, inputs)
    for name, gradient in plain.items():
        # bfloat16 has 8 bits: each of some ten roundings of a layer moves a value by up to 1/256.
        limit = 0.05 if "--bf16" in flags else 1e-5
        assert (joined[name] - gradient).norm() <= limit * gradient.norm(), name


def one_step(trainer, inputs):
    """The gradients of a batch."""
    trainer.model.zero_grad()
    with trainer.accelerator.autocast():
        trainer.training_step(trainer.model, trainer.prepared(inputs), torch.tensor(7))
    return {name: p.grad.float().clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
