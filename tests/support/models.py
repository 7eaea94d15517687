"""Tiny random models of an architecture, and what a whole run of a command line leaves."""

import json
import signal
from pathlib import Path

import torch

import qlora


def tiny_model(architecture: str):
    """Two layers, random, with a window shorter than the rows where the architecture has one."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    if architecture in ("gpt2", "gpt_bigcode", "gptj"):
        sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4}
    elif architecture in ("bloom", "mpt"):
        sizes = {"hidden_size": 64, "n_layer": 2, "n_head": 4, "d_model": 64, "n_layers": 2, "n_heads": 4}
    elif architecture not in ("gpt_neox", "phi", "falcon", "opt"):
        sizes["num_key_value_heads"] = 2
    more = {
        "gptj": {"rotary_dim": 8},
        "opt": {"ffn_dim": 128, "word_embed_proj_dim": 64},
        **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "glm4", "qwen3"), {"head_dim": 16}),
    }
    windows = ("mistral", "gemma2", "gemma3_text", "phi3", "starcoder2")
    sizes |= more.get(architecture, {}) | ({"sliding_window": 6} if architecture in windows else {})
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 3}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[architecture](vocab_size=300, **sizes, **ids)).eval()


def train(argv, adapter_of, out: Path):
    assert qlora.main([*argv, "--output_dir", str(out)]) == 0
    history = json.loads((out / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return adapter_of(out), [entry["loss"] for entry in history if "loss" in entry]


def train_in_two(argv, adapter_of, out: Path, stop_after, monkeypatch):
    """Run a command line that SIGTERM stops after five steps, and run it again to its end."""
    with monkeypatch.context() as context:
        stop_after(5)
        assert qlora.main([*argv, "--output_dir", str(out)]) == 128 + signal.SIGTERM
        context.undo()
    monkeypatch.undo()
    return train(argv, adapter_of, out)
