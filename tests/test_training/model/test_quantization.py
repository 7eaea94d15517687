"""In how many bits weights are held: dtypes, settings, checkpoints stored in few bits, and layers as training needs
them."""

import logging

import pytest
import torch
from torch import nn
from transformers import BitsAndBytesConfig, PretrainedConfig

from arguments.training import TrainingArguments
from common.errors import ModelError
from tests.support.rounding import assert_near
from training.model.quantization import (
    check_shapes,
    compute_dtype,
    quantization_config,
    quiet_8bit_layers,
    settle_4bit_layers,
    stored_quantized,
    weight_dtype,
    wrong_shape,
)

IDS = torch.tensor([[0, 17, 42, 99, 7, 300], [0, 1, 2, 3, 4, 5]])  # (batch, length)


def quant_states(model: nn.Module) -> list:
    return [p.quant_state for p in model.parameters() if getattr(p, "quant_state", None) is not None]


# ---- Types ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "weights", "compute"),
    [
        ({"bits": 4}, torch.float32, torch.float32),
        ({"bits": 4, "bf16": True}, torch.bfloat16, torch.bfloat16),
        ({"bits": 4, "fp16": True}, torch.float32, torch.float16),
        ({"bits": 8, "bf16": True}, torch.bfloat16, torch.bfloat16),
        ({"bits": 16}, torch.bfloat16, torch.float32),
        ({"bits": 16, "fp16": True}, torch.float16, torch.float16),
        # The gradient scaler cannot unscale fp16 gradients.
        ({"bits": 16, "fp16": True, "full_finetune": True}, torch.float32, torch.float16),
        ({"bits": 32, "fp16": True, "full_finetune": True}, torch.float32, torch.float16),
        ({"bits": 32, "bf16": True}, torch.float32, torch.bfloat16),
    ],
)
def test_what_weights_are_held_and_products_computed_in(flags, weights, compute):
    training = TrainingArguments(**flags)
    assert weight_dtype(training) is weights
    assert compute_dtype(training) is compute


# ---- Settings ------------------------------------------------------------------------------------------------------


def test_four_bits_are_nf4_with_constants_quantized_unless_asked_otherwise():
    config = quantization_config(TrainingArguments(bits=4, bf16=True))
    assert config.load_in_4bit and not config.load_in_8bit
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == ("nf4", True)
    assert config.bnb_4bit_compute_dtype is torch.bfloat16
    config = quantization_config(TrainingArguments(bits=4, quant_type="fp4", double_quant=False))
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == ("fp4", False)
    assert config.bnb_4bit_compute_dtype is torch.float32


def test_eight_bits_are_quantized_and_more_are_not():
    config = quantization_config(TrainingArguments(bits=8))
    assert config.load_in_8bit and not config.load_in_4bit
    assert quantization_config(TrainingArguments(bits=16)) is None
    assert quantization_config(TrainingArguments(bits=32)) is None


@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_quantization_is_the_kind_asked_for(make_base, load, quant_type, double_quant):
    states = quant_states(load(make_base(), "--quant_type", quant_type, "--double_quant", double_quant))
    assert len(states) == 14
    assert {(state.quant_type, state.nested) for state in states} == {(quant_type, double_quant)}


# ---- Checkpoints that are quantized already ------------------------------------------------------------------------


def stored(**settings) -> PretrainedConfig:
    """The config of a checkpoint that bitsandbytes quantized."""
    return PretrainedConfig(quantization_config=BitsAndBytesConfig(**settings).to_dict())


NF4 = stored(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)


def test_a_checkpoint_that_is_stored_as_asked_needs_no_other_config():
    assert stored_quantized(TrainingArguments(bits=4), NF4, "mine") is True
    assert stored_quantized(TrainingArguments(bits=8), stored(load_in_8bit=True), "mine") is True
    assert stored_quantized(TrainingArguments(bits=4), PretrainedConfig(), "mine") is False
    as_object = PretrainedConfig()
    as_object.quantization_config = BitsAndBytesConfig(load_in_8bit=True)
    assert stored_quantized(TrainingArguments(bits=8), as_object, "mine") is True


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ({"bits": 8}, ["--bits 8", "--bits 4"]),
        ({"bits": 16}, ["--bits 16", "--bits 4"]),
        ({"bits": 16, "full_finetune": True}, ["--bits 16 --full_finetune", "4-bit weights", "original"]),
        ({"quant_type": "fp4"}, ["--quant_type fp4", "--quant_type nf4"]),
        ({"double_quant": False}, ["--double_quant False", "--double_quant True"]),
    ],
)
def test_a_checkpoint_that_is_stored_otherwise_than_asked_is_refused(flags, parts):
    with pytest.raises(ModelError) as refused:
        stored_quantized(TrainingArguments(**flags), NF4, "mine")
    for part in (*parts, "with mine"):
        assert part in str(refused.value)


def test_a_checkpoint_that_does_not_say_its_kind_has_the_library_s_default():
    config = PretrainedConfig(quantization_config={"load_in_4bit": True})
    assert stored_quantized(TrainingArguments(quant_type="fp4", double_quant=False), config, "mine") is True
    with pytest.raises(ModelError, match="--quant_type nf4 with mine"):
        stored_quantized(TrainingArguments(double_quant=False), config, "mine")


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8"])
def test_other_quantizations_are_refused(method):
    config = PretrainedConfig(quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(ModelError, match=f"holds {method} weights: use the original"):
        stored_quantized(TrainingArguments(bits=4), config, "mine")


# ---- Layers --------------------------------------------------------------------------------------------------------


def four_bit_layer(inputs: int = 64, outputs: int = 32) -> nn.Module:
    from bitsandbytes.nn import Linear4bit

    torch.manual_seed(0)
    return Linear4bit(inputs, outputs, bias=False, quant_type="nf4").to("cpu")


def test_every_4_bit_layer_computes_in_the_type_asked_for():
    model = nn.Sequential(four_bit_layer(), nn.Linear(32, 2))
    model[0].compute_dtype = torch.bfloat16  # as a stored checkpoint has it
    settle_4bit_layers(model, torch.float32)
    assert model[0].compute_dtype is torch.float32
    assert model[0].support_avx512bf16_for_cpu is False
    assert not hasattr(model[1], "compute_dtype")


def test_shapes_of_quantized_layers_are_those_of_the_config():
    from bitsandbytes.nn import Linear8bitLt

    model = nn.Sequential(four_bit_layer(), Linear8bitLt(4, 2, bias=False), nn.Linear(2, 2))
    check_shapes(model, "mine")
    model[1].out_features = 3
    with pytest.raises(ModelError, match=r"mine: 1 is \(2, 4\), by config.json \(3, 4\)"):
        check_shapes(model, "mine")
    model[0].in_features = 128
    with pytest.raises(ModelError, match=r"mine: 0 is \(32, 64\), by config.json \(32, 128\)"):
        check_shapes(model, "mine")


def test_a_wrong_shape_is_named_with_the_one_that_was_expected():
    assert r"mine: lm_head is (2, 3), by config.json (4, 3)" in str(wrong_shape("mine", "lm_head", [2, 3], (4, 3)))


def test_8_bit_layers_do_not_say_what_they_compute_in(caplog):
    log = logging.getLogger("bitsandbytes.autograd._functions")
    caplog.set_level(logging.WARNING, logger=log.name)
    quiet_8bit_layers()
    log.warning("MatMul8bitLt: inputs will be cast")
    log.error("out of luck")
    assert caplog.messages == ["out of luck"]


def test_an_evaluation_leaves_the_layers_as_training_needs_them(load, make_base, monkeypatch):
    """bitsandbytes repacks 4-bit layers at their first evaluation where the CPU has AVX512-BF16, and then gives the
    layers before them no gradient."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    model = load(make_base())
    assert not any(getattr(state, "packing_format_for_cpu", False) for state in quant_states(model))
    with torch.no_grad():
        evaluated = model.eval()(IDS).logits
    assert not any(getattr(state, "packing_format_for_cpu", False) for state in quant_states(model))
    trained = model.train()(IDS).logits
    # The kernel of inference may sum in another order than that of training; bfloat16 would differ by 4e-3.
    assert_near(trained, evaluated)
    trained.square().mean().backward()
    gradients = [p.grad for name, p in model.named_parameters() if "lora_B" in name]
    assert len(gradients) == 14 and all(gradient.any() for gradient in gradients)
