"""Loading the base model: bases that cannot be used, and bases stored in few bits."""

import json
import shutil

import pytest
import torch
from torch import nn

from common.errors import FailedRunError, ModelError
from qlora import get_accelerate_model

IDS = torch.tensor([[0, 17, 42, 99, 7, 300], [0, 1, 2, 3, 4, 5]])  # (batch, length)


def quant_states(model: nn.Module) -> list:
    return [p.quant_state for p in model.parameters() if getattr(p, "quant_state", None) is not None]


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


def test_a_model_stored_in_4_bits_is_not_loaded_in_others(stored_4bit, load):
    with pytest.raises(ModelError, match=f"--bits 8 with {stored_4bit}, .* --bits 4"):
        load(stored_4bit, "--bits", 8)
