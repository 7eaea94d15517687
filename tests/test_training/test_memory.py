"""What a step takes and how many layers are recomputed: the plan against what is allocated, and what comes of it."""

from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3Config

import qlora
from tests.support.flags import trainer_of
from tests.support.models import train
from training import memory
from training.loop import trainer as trainer_module
from training.loop.loss import supervised_loss, supervised_only
from training.memory import EVERY, Usage, bytes_per_weight, cgroup_memory, choose, measure, slower
from training.shortcuts import head as head_module
from training.shortcuts.head import head_apart, token_losses
from training.shortcuts.lora_step import join_steps

SIZES = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 6}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
SHAPES = {
    "llama": LlamaConfig(vocab_size=500, **SIZES),
    "wide": LlamaConfig(vocab_size=500, **(SIZES | {"hidden_size": 384, "num_hidden_layers": 3})),
    "deep": LlamaConfig(vocab_size=500, **(SIZES | {"hidden_size": 96, "num_hidden_layers": 16})),
    "few keys": LlamaConfig(vocab_size=500, **SIZES, num_key_value_heads=2),
    "large vocabulary": Qwen3Config(vocab_size=20_000, **SIZES, num_key_value_heads=2, head_dim=32),
    "gpt2": GPT2Config(vocab_size=500, n_embd=192, n_layer=6, n_head=6, bos_token_id=0, eos_token_id=1, **NO_DROPOUT),
}
WITHIN = 0.15
PIECE = 2**21  # bytes, of which the logits of the large vocabulary take four


def allocated(work) -> int:
    """Return the most bytes that are allocated at a time while some work is done, beyond those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    most = now = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


CASES = [(shape, every, True) for shape in SHAPES for every in (0, 1)]
CASES += [("llama", 2, True), ("gpt2", 4, True), ("large vocabulary", 0, False), ("large vocabulary", 1, False)]


@pytest.mark.parametrize(("shape", "every", "in_pieces"), CASES)
def test_the_plan_is_what_is_allocated(shape, every, in_pieces, monkeypatch):
    """Two steps of AdamW, each of two micro-batches, of which the loss takes logits in pieces or whole: 15 % at most
    away.
    """
    monkeypatch.setattr(head_module, "PIECE_BYTES", PIECE)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(SHAPES[shape]).requires_grad_(False)
    transposed = shape == "gpt2"  # whose layers are Conv1D
    lora = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM", fan_in_fan_out=transposed)
    model = get_peft_model(model, lora).train()
    join_steps(model)
    usage = measure(model, bytes_per_weight("adamw_torch"), PIECE if in_pieces else None)
    if every:
        model.activation_checkpointing_enable({"use_reentrant": False}, every_n_layers=every)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])
    ids = torch.randint(0, 500, (3, 160))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}
    batch["labels"][:, :120] = -100
    asked = supervised_only(batch)
    keep, labels = asked.pop("logits_to_keep"), asked.pop("labels")

    def loss() -> torch.Tensor:
        with head_apart(model) if in_pieces else nullcontext():
            outputs = model(**asked, logits_to_keep=keep.any(dim=0).nonzero().flatten(), use_cache=False)
        outputs.logits = outputs.logits.flatten(0, 1)
        if in_pieces:
            return token_losses(outputs.logits, labels, model.get_output_embeddings()).mean()
        return supervised_loss(outputs, labels, torch.tensor(len(labels)))

    def step() -> None:
        for _ in range(2):
            loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    planned = usage.step(tokens=ids.numel(), supervised=len(labels), every=every)
    assert planned == pytest.approx(allocated(lambda: [step(), step()]), rel=WITHIN)


def test_the_fastest_way_that_fits_is_chosen():
    usage = Usage(layers=8, layer=100.0, layer_input=10.0, outside=5.0, logits=1000.0, fixed=50)
    needs = {every: usage.step(10, 0, every) for every in EVERY}
    assert needs == {0: 8350, 4: 6550, 2: 4750, 1: 2150}
    for every, size in needs.items():
        assert choose(usage, 10, 0, free=int(size / memory.ROOM) + 1).every == every
    tight = choose(usage, 10, 0, free=1000)
    assert tight.every == 1 and "tight" in str(tight) and "tight" not in str(choose(usage, 10, 0, free=10**6))
    assert [slower(every) for every in (*EVERY, None)] == [4, 2, 1, None, None]


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_containers_count(version, tmp_path):
    assert cgroup_memory(tmp_path) == []
    folder = tmp_path / "memory" if version == 1 else tmp_path
    folder.mkdir(exist_ok=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    for name, value in zip(names, ("1000\n", "700\n"), strict=True):
        (folder / name).write_text(value)
    (folder / "memory.stat").write_text(f"anon 500\n{'total_' if version == 1 else ''}inactive_file 150\n")
    assert cgroup_memory(tmp_path) == [450]
    (folder / names[0]).write_text("max\n" if version == 2 else "1000\n")
    assert cgroup_memory(tmp_path) == ([] if version == 2 else [450])


def test_what_is_recomputed_changes_nothing(make_base, command, tmp_path, adapter_of, monkeypatch, capsys):
    """The same weights to the bit, whether nothing is recomputed, a part, or all by the flag."""
    adapters = []
    for number, free in enumerate((10**12, 0)):
        monkeypatch.setattr(trainer_module, "free_memory", lambda device, free=free: free)
        adapters.append(train(command(make_base()), adapter_of, tmp_path / str(number))[0])
        assert f"memory: recomputing {'every' if number else 'no'} layer" in capsys.readouterr().out
    adapters.append(train(command(make_base(), "--gradient_checkpointing"), adapter_of, tmp_path / "flag")[0])
    assert "memory: " not in capsys.readouterr().out
    for other in adapters[1:]:
        assert all(torch.equal(other[name], weight) for name, weight in adapters[0].items())


def test_a_step_that_does_not_fit_is_done_again(make_base, command, tmp_path, adapter_of, monkeypatch, capsys):
    """Out of memory in the second micro-batch of the second step: the same run, with more recomputed from there on."""
    argv = command(make_base(), "--max_tokens_per_batch", "160")
    calm, _ = train(argv, adapter_of, tmp_path / "calm")
    capsys.readouterr()
    loss, calls = trainer_module.token_losses, []

    def runs_out(*args, **kwargs):
        calls.append(1)
        if len(calls) == 6:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return loss(*args, **kwargs)

    monkeypatch.setattr(trainer_module, "token_losses", runs_out)
    again, _ = train(argv, adapter_of, tmp_path / "again")
    assert "does not fit into memory; recomputing one of 4 layers from now on" in capsys.readouterr().out
    assert all(torch.equal(again[name], weight) for name, weight in calm.items())


def test_flags_are_obeyed(make_base, command, monkeypatch, capsys):
    for flags, every in ((["--gradient_checkpointing", "False"], None), (["--gradient_checkpointing"], None)):
        trainer, _ = trainer_of(command(make_base(), *flags))
        trainer.settle_recomputation()
        assert trainer.recomputed_every is every
        assert trainer.args.activation_checkpointing == (flags[-1] != "False")
    monkeypatch.setattr(trainer_module, "supervised_loss", lambda *args, **kwargs: (_ for _ in ()).throw(MemoryError))
    trainer, _ = trainer_of(command(make_base()))
    trainer.settle_recomputation()
    assert trainer.recomputed_every == 0 and "memory: recomputing no layer" in capsys.readouterr().out


def test_out_of_memory_with_everything_recomputed_is_told(make_base, command, monkeypatch, capsys):
    def runs_out(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(trainer_module, "token_losses", runs_out)
    assert qlora.main(command(make_base())) == 1
    captured = capsys.readouterr()
    assert captured.out.count("does not fit into memory") == len(EVERY) - 1
    assert "too little memory" in captured.err
