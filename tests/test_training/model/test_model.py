"""The model that is trained, at each width: what it computes, its dtypes, and the arithmetic of parameters."""

import math

import pytest
import torch
from torch import nn

from common.errors import CheckpointError, ModelError
from qlora import get_accelerate_model, print_trainable_parameters
from tests.conftest import ARCHITECTURES
from tests.support.rounding import assert_near
from training.model.counts import count_parameters
from training.model.lora import add_adapters

IDS = torch.tensor([[0, 17, 42, 99, 7, 300], [0, 1, 2, 3, 4, 5]])  # (batch, length)


def randomize_adapters(model: nn.Module) -> None:
    """As if trained: B is no longer zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)


def dequantized_twin(model: nn.Module, base, training) -> nn.Module:
    """The base in fp32 with the weights that the 4-bit layers of `model` stand for, and adapters of the same shape."""
    import bitsandbytes as bnb
    from transformers import AutoModelForCausalLM

    twin = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    layers, replaced = dict(twin.named_modules()), 0
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            weight = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            with torch.no_grad():
                layers[name.removesuffix(".base_layer")].weight.copy_(weight)
            replaced += 1
    assert replaced == 14
    return add_adapters(twin.requires_grad_(False), training, "twin", None)


# ---- What a quantized layer computes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags", [[], ["--double_quant", "False"], ["--quant_type", "fp4"]], ids=["nf4+dq", "nf4", "fp4"]
)
def test_four_bits_compute_what_their_dequantized_weights_do(make_base, args_for, asked, flags):
    """Logits and LoRA gradients of the 4-bit model equal those of a plain fp32 model; only storage differs."""
    args = args_for(make_base(), *flags)
    model = get_accelerate_model(args, None)[0].train()
    twin = dequantized_twin(model, make_base(), asked(make_base(), "--bits", 32).training).train()
    for each in (model, twin):
        randomize_adapters(each)
        each(IDS, labels=IDS).loss.backward()
    assert_near(model(IDS).logits, twin(IDS).logits)
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert len(gradients) == 2 * 14
    assert_near(gradients, {n: p.grad for n, p in twin.named_parameters() if p.requires_grad})


def quant_states(model: nn.Module) -> list:
    return [p.quant_state for p in model.parameters() if getattr(p, "quant_state", None) is not None]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_forward_and_backward_of_each_architecture(make_base, load, architecture):
    model = load(make_base(architecture)).train()
    loss = model(IDS, labels=IDS).loss
    loss.backward()
    assert abs(loss.item() - math.log(384)) < 1
    adapters = [(n, p) for n, p in model.named_parameters() if "lora_B" in n]
    assert all(p.grad.abs().max() > 0 for _, p in adapters)


# ---- Widths and dtypes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "linear", "other"),
    [
        (["--bits", 4], torch.uint8, torch.float32),
        (["--bits", 4, "--bf16"], torch.uint8, torch.bfloat16),
        (["--bits", 8], torch.int8, torch.float32),
        (["--bits", 8, "--bf16"], torch.int8, torch.bfloat16),
        (["--bits", 16], torch.bfloat16, torch.bfloat16),
        (["--bits", 16, "--bf16"], torch.bfloat16, torch.bfloat16),
        (["--bits", 32], torch.float32, torch.float32),
        (["--bits", 32, "--bf16"], torch.float32, torch.float32),
    ],
)
def test_dtypes_and_a_frozen_base(make_base, load, flags, linear, other):
    model = load(make_base(), *flags)
    for name, weight in model.named_parameters():
        assert weight.requires_grad is ("lora_" in name)
        expected = torch.float32 if "lora_" in name else linear if "proj" in name else other
        assert weight.dtype is expected, name
    assert count_parameters(model).trainable == 2 * 4 * (
        2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128)  # q and o, k and v, gate and up and down
    )


@pytest.mark.parametrize(("flag", "dtype"), [([], torch.float32), (["--bf16"], torch.bfloat16)])
def test_compute_dtype(make_base, load, flag, dtype):
    modules = load(make_base(), *flag).modules()
    assert {m.compute_dtype for m in modules if hasattr(m, "compute_dtype")} == {dtype}


@pytest.mark.parametrize(("bits", "dtype"), [(16, torch.bfloat16), (32, torch.float32)])
def test_full_finetuning_trains_every_weight(make_base, load, bits, dtype):
    model = load(make_base(), "--full_finetune", "--bits", bits)
    assert not hasattr(model, "peft_config")
    assert all(p.requires_grad and p.dtype is dtype for p in model.parameters())
    counts = count_parameters(model)
    assert counts.trainable == counts.architecture == counts.stored == sum(p.numel() for p in model.parameters())


# ---- Counting ------------------------------------------------------------------------------------------------------


def four_bit_on_meta(model: nn.Module) -> nn.Module:
    """Each linear layer but the head as bitsandbytes packs it, without memory: two weights in a byte."""
    import bitsandbytes as bnb

    for name, module in list(model.named_modules()):
        if not isinstance(module, nn.Linear) or name == "lm_head":
            continue
        with torch.device("meta"):
            packed = bnb.nn.Linear4bit(module.in_features, module.out_features, bias=False, quant_type="nf4")
            data = torch.empty(module.weight.numel() // 2, 1, dtype=torch.uint8)
            scales = torch.empty(module.weight.numel() // 64)
        state = bnb.functional.QuantState(scales, shape=module.weight.shape, blocksize=64, quant_type="nf4")
        packed.weight = bnb.nn.Params4bit(data, requires_grad=False, quant_state=state, bnb_quantized=True)
        model.set_submodule(name, packed)
    return model.requires_grad_(False)


def test_parameters_of_llama_7b(asked, make_base):
    from transformers import AutoModelForCausalLM, LlamaConfig

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig())  # the defaults have the shape of the 7B model
    training = asked(make_base(), "--lora_r", 64).training
    counts = count_parameters(add_adapters(four_bit_on_meta(model), training, "llama-7b", None))
    assert counts.trainable == 159_907_840
    assert counts.stored == 3_660_320_768
    assert counts.architecture == 6_738_415_616
    assert counts.quantized == 6_476_005_376
    assert counts.layers == (32 * 7 + 1, 32 * 7)
    assert counts.dtypes["uint8"] == counts.quantized // 2 and sum(counts.dtypes.values()) == counts.stored


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_counts_agree_with_the_plain_model(make_base, load, bits):
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(make_base())
    linear = sum(p.numel() for n, p in plain.named_parameters() if "proj" in n)
    counts = count_parameters(load(make_base(), "--bits", bits))
    assert counts.architecture == plain.num_parameters()
    assert counts.quantized == (linear if bits < 16 else 0)
    assert counts.stored == plain.num_parameters() + counts.trainable - (linear // 2 if bits == 4 else 0)


def test_what_is_printed(make_base, args_for, capsys):
    args = args_for(make_base())
    model = get_accelerate_model(args, None)[0]
    counts = count_parameters(model)
    capsys.readouterr()
    assert print_trainable_parameters(args, model) is None
    printed = capsys.readouterr().out
    for number in (counts.trainable, counts.architecture, counts.stored):
        assert f"{number:,}" in printed
    assert "14 of 15 linear layers to 4 bits" in printed
    assert f"uint8 {counts.dtypes['uint8'] / counts.stored:.1%}" in printed


def test_fused_experts_that_stay_unquantized_are_said(args_for, make_base, capsys):
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig

    sizes = {"hidden_size": 32, "intermediate_size": 32, "moe_intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 64, "num_experts": 4}
    model = AutoModelForCausalLM.from_config(Qwen3MoeConfig(**sizes, **heads))
    assert count_parameters(model).experts == 4 * 3 * 32 * 32
    print_trainable_parameters(args_for(make_base()), model)
    assert "fused experts" in capsys.readouterr().out


def test_nothing_to_train_is_an_error(args_for, make_base, load):
    model = load(make_base()).requires_grad_(False)
    with pytest.raises(ModelError, match="nothing to train"):
        print_trainable_parameters(args_for(make_base()), model)


# ---- Going on from a checkpoint ------------------------------------------------------------------------------------


def test_full_finetuning_goes_on_from_the_whole_model(make_base, args_for, tmp_path):
    args = args_for(make_base(), "--full_finetune", "--bits", 32)
    model, tokenizer = get_accelerate_model(args, None)
    with torch.no_grad():
        model.get_input_embeddings().weight += 1
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = get_accelerate_model(args, str(tmp_path))[0]
    assert torch.equal(again(IDS).logits, model(IDS).logits)
    assert all(p.requires_grad for p in again.parameters())


def test_full_finetuning_does_not_go_on_from_an_adapter(make_base, args_for, tmp_path):
    get_accelerate_model(args_for(make_base()), None)[0].save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="--full_finetune with .*which holds an adapter"):
        get_accelerate_model(args_for(make_base(), "--full_finetune", "--bits", 16), str(tmp_path))
