"""LoRA on the linear layers of a base model: which layers get it, fresh adapters, and saved ones that fit or not."""

import warnings

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from arguments.training import TrainingArguments
from common.errors import CheckpointError, ModelError
from qlora import find_all_linear_names, get_accelerate_model
from tests.conftest import ARCHITECTURES, tiny_config
from tests.test_training.model.test_model import randomize_adapters
from training.model.counts import count_parameters
from training.model.lora import (
    add_adapters,
    check_optimizer_targets,
    does_not_fit,
    linear_classes,
    linear_layers,
    linear_names,
    load_adapters,
    lora_targets,
)

IDS = torch.tensor([[0, 17, 42, 99, 7, 300], [0, 1, 2, 3, 4, 5]])  # (batch, length)
LLAMA_LAYERS = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
LINEAR_NAMES = {
    "llama": LLAMA_LAYERS,
    "qwen3": LLAMA_LAYERS,
    "gemma": LLAMA_LAYERS,
    "gpt_neox": ["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"],
    "gpt2": ["c_attn", "c_fc", "c_proj"],
}


def tiny(architecture: str = "llama") -> nn.Module:
    """A random model of two layers, in fp32."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(tiny_config(architecture, vocab_size=300))


def adapted(model: nn.Module, checkpoint=None, **flags) -> nn.Module:
    flags = {"bits": 32, "lora_r": 4} | flags
    return add_adapters(model, TrainingArguments(**flags), "tiny", checkpoint and str(checkpoint))


# ---- Which layers get LoRA -----------------------------------------------------------------------------------------


def test_linear_layers_are_those_of_the_width():
    from bitsandbytes.nn import Linear4bit, Linear8bitLt
    from transformers.pytorch_utils import Conv1D

    kinds = {"four": Linear4bit(2, 2), "eight": Linear8bitLt(2, 2), "plain": nn.Linear(2, 2), "conv": Conv1D(2, 2)}
    model = nn.ModuleDict(kinds)
    assert linear_classes(4) == (Linear4bit,) and linear_classes(8) == (Linear8bitLt,)
    assert list(linear_layers(model, 4)) == ["four"] and list(linear_layers(model, 8)) == ["eight"]
    assert {"plain", "conv"} <= linear_layers(model, 16).keys() == linear_layers(model, 32).keys()


def test_linear_layers_have_full_names_and_one_last_part_each():
    model = tiny()
    layers = linear_layers(model, 32)
    assert len(layers) == 2 * len(LLAMA_LAYERS) and "lm_head" not in layers
    assert all(model.get_submodule(name) is layer for name, layer in layers.items())
    assert linear_names(model, 32) == LLAMA_LAYERS


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


def test_targets_are_all_layers_or_the_ones_that_are_named():
    model = tiny()
    assert lora_targets(model, 32, " all ", "tiny") == LLAMA_LAYERS
    assert lora_targets(model, 32, "v_proj, q_proj,", "tiny") == ["v_proj", "q_proj"]
    with pytest.raises(ModelError, match="tiny has no linear layer at 4 bits"):
        lora_targets(model, 4, "all", "tiny")


def test_layers_of_an_optimizer_are_matched_as_the_library_matches_them():
    check_optimizer_targets(tiny(), r".*\.(q|v)_proj")
    with pytest.raises(ModelError, match=r"--optim_target_modules (?s:.*)model.layers.0.self_attn.q_proj.*all-linear"):
        check_optimizer_targets(tiny(), "w_proj")


# ---- A fresh adapter -----------------------------------------------------------------------------------------------


def test_adapters_are_held_in_fp32_and_train_alone():
    model = adapted(tiny().to(torch.bfloat16).requires_grad_(False), bits=16)
    weights = dict(model.named_parameters())
    assert {weight.dtype for name, weight in weights.items() if "lora_" in name} == {torch.float32}
    assert {name for name, weight in weights.items() if weight.requires_grad} == {n for n in weights if "lora_" in n}


def test_a_new_adapter_leaves_the_base_as_it_is(make_base, load):
    model = load(make_base(), "--bits", 32).eval()
    with model.disable_adapter():
        base = model(IDS).logits
    assert torch.equal(model(IDS).logits, base)


def test_same_seed_same_adapter(make_base, load):
    base, adapters = make_base(), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        named = load(base).named_parameters()
        adapters.append(torch.cat([p.flatten() for n, p in named if "lora_A" in n]))
    assert torch.equal(adapters[0], adapters[1]) and not torch.equal(adapters[0], adapters[2])


@pytest.mark.parametrize(("bits", "transposed"), [(4, False), (8, False), (16, True), (32, True)])
def test_transposed_layers_are_declared(make_base, load, bits, transposed):
    """GPT-2 keeps its weights transposed; quantized they are not."""
    assert load(make_base("gpt2"), "--bits", bits).peft_config["default"].fan_in_fan_out is transposed


def test_adapter_settings_arrive(make_base, load):
    flags = ("--lora_r", 8, "--lora_alpha", 32, "--lora_dropout", 0.1)
    config = load(make_base(), *flags).peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout, config.bias) == (8, 32, 0.1, "none")
    assert config.task_type == "CAUSAL_LM"


# ---- A saved adapter -----------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """Directory of an adapter of rank 4 on `tiny()`, as if trained."""
    model = adapted(tiny())
    randomize_adapters(model)
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_saved_adapter_comes_back_whole_to_be_trained_or_used(saved):
    for model in (adapted(tiny(), saved), load_adapters(tiny(), str(saved), "tiny")):
        weights = {name: weight for name, weight in model.named_parameters() if "lora_" in name}
        assert len(weights) == 2 * 14 and all(weight.any() and weight.requires_grad for weight in weights.values())


def test_an_adapter_is_trained_further_in_the_shape_that_it_has(saved):
    with pytest.raises(CheckpointError, match=r"--lora_r 8 \(saved: 4\)"):
        adapted(tiny(), saved, lora_r=8)
    used = adapted(tiny(), saved, lora_r=8, do_train=False, do_eval=True)
    assert used.peft_config["default"].r == 4


def test_the_error_names_the_directory_the_base_and_what_to_do():
    message = str(does_not_fit("out", "gpt2", "it is damaged"))
    assert "the adapter in out does not fit gpt2: it is damaged" in message and "--model_name_or_path" in message


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
