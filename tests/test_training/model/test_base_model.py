"""Loading the base model: devices, dtypes, bases that cannot be used, and bases stored in few bits."""

import json
import shutil

import pytest
import torch
from torch import nn

from common.errors import FailedRunError, ModelError
from qlora import get_accelerate_model
from tests.support.rounding import assert_near
from training.model.quantization import compute_dtype, weight_dtype

IDS = torch.tensor([[0, 17, 42, 99, 7, 300], [0, 1, 2, 3, 4, 5]])  # (batch, length)


def quant_states(model: nn.Module) -> list:
    return [p.quant_state for p in model.parameters() if getattr(p, "quant_state", None) is not None]


# ---- Devices and dtypes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "fp16", "full", "weights", "compute"),
    [
        (4, True, False, torch.float32, torch.float16),
        (16, True, False, torch.float16, torch.float16),
        (16, True, True, torch.float32, torch.float16),  # the gradient scaler cannot unscale fp16 gradients
        (32, True, True, torch.float32, torch.float16),
    ],
)
def test_dtypes_of_fp16(make_base, asked, bits, fp16, full, weights, compute):
    flags = ["--bits", bits, "--fp16", fp16, "--full_finetune", full]
    training = asked(make_base(), *flags).training
    assert weight_dtype(training) is weights
    assert compute_dtype(training) is compute


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


# ---- Bases that cannot be used -------------------------------------------------------------------------------------


@pytest.fixture
def broken(make_base, tmp_path):
    """A function: (file to change, its new content or None) … → a copy of the base model with these changes."""

    def build(**changes):
        folder = tmp_path / "broken"
        shutil.copytree(make_base(), folder)
        for name, content in changes.items():
            path = folder / name.replace("_json", ".json").replace("_safetensors", ".safetensors")
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return folder

    return build


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"config_json": None}, "it has no config.json"),
        ({"config_json": None, "adapter_config_json": {}}, "it holds a LoRA adapter: give the base model"),
        ({"config_json": b'{"a":'}, "config.json is not JSON"),
        ({"config_json": {"model_type": "no_such_type"}}, "no_such_type"),
        ({"config_json": {"model_type": "t5"}}, "AutoModelForCausalLM"),
        ({"model_safetensors": None}, "model.safetensors"),
        ({"model_safetensors": b"abc"}, "header too small"),
        ({"model_safetensors": None, "pytorch_model.bin": b"abc"}, "holds its weights as pickles"),
        ({"tokenizer_json": None, "tokenizer_config_json": None}, "cannot load the tokenizer"),
        ({"tokenizer_json": b"{"}, "cannot load the tokenizer"),
    ],
)
def test_directories_that_hold_no_usable_model(load, broken, changes, part):
    folder = broken(**changes)
    with pytest.raises(ModelError) as refused:
        load(folder)
    assert part in str(refused.value) and str(folder) in str(refused.value)


def test_truncated_weights(load, make_base, broken):
    whole = (make_base() / "model.safetensors").read_bytes()
    with pytest.raises(ModelError, match="cannot load the base model"):
        load(broken(model_safetensors=whole[: len(whole) // 2]))


@pytest.mark.parametrize(("change", "part"), [("missing", "lacks 1 weights"), ("shape", "cannot load the base model")])
def test_weights_that_would_be_left_random(load, make_base, broken, change, part):
    from safetensors.torch import load_file, save

    weights = load_file(make_base() / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights = (
        {n: w for n, w in weights.items() if n != name} if change == "missing" else weights | {name: torch.ones(2)}
    )
    with pytest.raises(ModelError, match=part):
        load(broken(model_safetensors=save(weights, metadata={"format": "pt"})))


def test_a_name_that_is_not_in_the_cache(load, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="cannot load the base model nobody/nothing") as refused:
        load("nobody/nothing")
    assert "hf download nobody/nothing" in str(refused.value)


def test_code_of_a_checkpoint_is_not_run(load, make_base, broken):
    config = json.loads((make_base() / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}}
    with pytest.raises(ModelError, match="--trust_remote_code"):
        load(broken(config_json=config))


def test_too_little_memory_is_a_failed_run(load, make_base, monkeypatch):
    from transformers import AutoModelForCausalLM

    def no_memory(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 90 GiB.")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", no_memory)
    with pytest.raises(FailedRunError, match="at 4 bits: CUDA out of memory.*\n.*--max_memory_MB"):
        load(make_base())


# ---- Bases stored in few bits --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored_4bit(make_base, make_args, tmp_path_factory):
    """Directory of the tiny base model, saved as NF4 with double quantization, computed in bf16."""
    folder = tmp_path_factory.mktemp("stored") / "nf4"
    args = make_args(["--model_name_or_path", str(make_base()), "--bf16", "--use_cpu"])[0]
    model, tokenizer = get_accelerate_model(args, None)
    model.unload().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_model_stored_in_4_bits_gives_the_same_logits(stored_4bit, make_base, load):
    reloaded, quantized = load(stored_4bit, "--bf16").train(), load(make_base(), "--bf16").train()
    assert len(quant_states(reloaded)) == 14
    assert torch.equal(reloaded(IDS).logits, quantized(IDS).logits)


def test_a_stored_model_computes_in_the_dtype_asked_for(stored_4bit, load):
    modules = load(stored_4bit).modules()
    assert {m.compute_dtype for m in modules if hasattr(m, "compute_dtype")} == {torch.float32}


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--bits", 8], ["--bits 8", "--bits 4"]),
        (["--bits", 16], ["--bits 16", "--bits 4"]),
        (["--bits", 16, "--full_finetune"], ["--bits 16 --full_finetune", "original"]),
        (["--quant_type", "fp4"], ["--quant_type fp4", "--quant_type nf4"]),
        (["--double_quant", False], ["--double_quant False", "--double_quant True"]),
    ],
)
def test_stored_otherwise_than_asked(stored_4bit, load, flags, parts):
    with pytest.raises(ModelError) as refused:
        load(stored_4bit, *flags)
    for part in (*parts, str(stored_4bit)):
        assert part in str(refused.value)


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8"])
def test_other_quantizations_are_refused(load, make_base, broken, method):
    config = json.loads((make_base() / "config.json").read_text())
    folder = broken(config_json=config | {"quantization_config": {"quant_method": method, "bits": 4}})
    with pytest.raises(ModelError, match=f"holds {method} weights: use the original"):
        load(folder)
