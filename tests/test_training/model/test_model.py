"""Adapters on the base model at each width, what they compute, and the arithmetic of parameters."""

import math
import warnings

import pytest
import torch
from torch import nn

from common.errors import CheckpointError, ModelError
from qlora import find_all_linear_names, get_accelerate_model, print_trainable_parameters
from tests.conftest import ARCHITECTURES
from tests.support.rounding import assert_near
from training.model.counts import count_parameters
from training.model.lora import add_adapters

LLAMA_LAYERS = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
LINEAR_NAMES = {
    "llama": LLAMA_LAYERS,
    "qwen3": LLAMA_LAYERS,
    "gemma": LLAMA_LAYERS,
    "gpt_neox": ["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"],
    "gpt2": ["c_attn", "c_fc", "c_proj"],
}
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


def test_a_new_adapter_leaves_the_base_as_it_is(make_base, load):
    model = load(make_base(), "--bits", 32).eval()
    with model.disable_adapter():
        base = model(IDS).logits
    assert torch.equal(model(IDS).logits, base)


def test_same_seed_same_adapter(make_base, load):
    adapters = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        named = load(make_base()).named_parameters()
        adapters.append(torch.cat([p.flatten() for n, p in named if "lora_A" in n]))
    assert torch.equal(adapters[0], adapters[1]) and not torch.equal(adapters[0], adapters[2])


# ---- Which layers get LoRA -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_linear_layer_but_the_head_gets_lora(make_base, args_for, architecture, bits):
    args = args_for(make_base(architecture), "--bits", bits)
    model = get_accelerate_model(args, None)[0]
    assert sorted(model.peft_config["default"].target_modules) == LINEAR_NAMES[architecture]
    assert find_all_linear_names(args, model.unload()) == LINEAR_NAMES[architecture]
    counts = count_parameters(model)
    layers = 2 * len(LINEAR_NAMES[architecture])
    if architecture == "gpt2":
        layers += 2  # c_proj is in the attention and in the feed-forward part
    assert counts.layers == (layers + 1, layers if bits < 16 else 0)  # and the head, which stays as it is


def test_a_head_is_left_out_whatever_its_name(args_for, make_base):
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.mixer, self.embed_out = nn.Linear(2, 2), nn.Linear(2, 2)

    args, model = args_for(make_base(), "--bits", 32), Other()
    assert find_all_linear_names(args, model) == ["embed_out", "mixer"]
    model.get_output_embeddings = lambda: model.embed_out
    assert find_all_linear_names(args, model) == ["mixer"]
    model.lm_head = nn.Linear(2, 2)
    assert find_all_linear_names(args, model) == ["mixer"]


@pytest.mark.parametrize(("bits", "transposed"), [(4, False), (8, False), (16, True), (32, True)])
def test_transposed_layers_are_declared(make_base, load, bits, transposed):
    """GPT-2 keeps its weights transposed; quantized they are not."""
    assert load(make_base("gpt2"), "--bits", bits).peft_config["default"].fan_in_fan_out is transposed


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_forward_and_backward_of_each_architecture(make_base, load, architecture):
    model = load(make_base(architecture)).train()
    loss = model(IDS, labels=IDS).loss
    loss.backward()
    assert abs(loss.item() - math.log(384)) < 1
    adapters = [(n, p) for n, p in model.named_parameters() if "lora_B" in n]
    assert all(p.grad.abs().max() > 0 for _, p in adapters)


def test_lora_modules_as_a_list(make_base, load):
    model = load(make_base(), "--lora_modules", "q_proj, v_proj")
    assert model.peft_config["default"].target_modules == {"q_proj", "v_proj"}
    assert count_parameters(model).trainable == 2 * (4 * (64 + 64) + 4 * (64 + 32))


@pytest.mark.parametrize(("asked", "named"), [("q_proj,w_proj", "w_proj"), ("lm_head", "lm_head"), (",", "(nothing)")])
def test_lora_modules_that_match_nothing(make_base, load, asked, named):
    with pytest.raises(ModelError) as refused:
        load(make_base(), "--lora_modules", asked)
    assert f"called {named}." in str(refused.value)
    assert ", ".join(LLAMA_LAYERS) in str(refused.value) and "'all'" in str(refused.value)


def test_adapter_settings_arrive(make_base, load):
    flags = ("--lora_r", 8, "--lora_alpha", 32, "--lora_dropout", 0.1)
    config = load(make_base(), *flags).peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout, config.bias) == (8, 32, 0.1, "none")
    assert config.task_type == "CAUSAL_LM"


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


def test_adapter_comes_back_trainable_and_equal(make_base, args_for, tmp_path):
    args = args_for(make_base())
    model = get_accelerate_model(args, None)[0]
    randomize_adapters(model)
    model.save_pretrained(tmp_path)
    again = get_accelerate_model(args, str(tmp_path))[0]
    assert count_parameters(again) == count_parameters(model)
    assert torch.equal(again.train()(IDS).logits, model.train()(IDS).logits)


@pytest.mark.parametrize("change", ["other base", "missing weights", "damaged"])
def test_adapters_that_do_not_fit_are_refused(make_base, args_for, tmp_path, change):
    """Even where nothing is trained, half an adapter must never answer as if it were the whole."""
    from safetensors.torch import load_file, save_file

    model = get_accelerate_model(args_for(make_base()), None)[0]
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    weights = load_file(path)
    if change == "other base":
        save_file({n: torch.ones(4, 5) for n in weights}, path)
    elif change == "missing weights":
        save_file({n: w for n, w in weights.items() if "layers.1" not in n}, path)
    else:
        path.write_bytes(b"abc")
    args = args_for(make_base(), "--do_train", False, "--do_eval")
    with warnings.catch_warnings(), pytest.raises(CheckpointError, match="does not fit"):
        warnings.simplefilter("ignore")
        get_accelerate_model(args, str(tmp_path))


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
