"""Where a model goes, what runs here in the place of what this machine has not, and what is refused."""

import pytest
import torch

from arguments.declare import ArgumentsError
from arguments.training import TrainingArguments
from common.errors import ModelError
from training.model.device import (
    PLAIN_TWINS,
    check_cpu,
    device_options,
    machine_notes,
    on_cpu,
    optimizer_here,
    uses_cuda,
)

ON_CPU = TrainingArguments(use_cpu=True)
ANYWHERE = TrainingArguments(use_cpu=False, max_memory_MB=5000)


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs of 10 GB; the limits of memory that are set on them."""
    limits = []
    properties = type("Properties", (), {"total_memory": 10e9})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: limits.append(given))
    return limits


@pytest.fixture
def no_gpu(monkeypatch):
    """A machine without any accelerator."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)


@pytest.fixture
def other_gpu(monkeypatch):
    """A machine with an accelerator that does not speak CUDA."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))


# ---- Where a model goes --------------------------------------------------------------------------------------------


def test_a_gpu_is_used_where_there_is_one_unless_the_cpu_is_asked_for(gpus):
    assert uses_cuda(ANYWHERE) and not on_cpu(ANYWHERE)
    assert not uses_cuda(ON_CPU) and on_cpu(ON_CPU)
    assert device_options(ON_CPU, "auto") == {"device_map": {"": "cpu"}}


def test_everything_is_on_the_cpu_where_there_is_nothing_else(no_gpu):
    assert on_cpu(ANYWHERE) and not uses_cuda(ANYWHERE)
    assert device_options(ANYWHERE, None) == {"device_map": {"": "cpu"}}


def test_another_accelerator_is_used_without_cuda(other_gpu):
    assert not on_cpu(ANYWHERE) and not uses_cuda(ANYWHERE) and on_cpu(ON_CPU)
    assert device_options(ANYWHERE, None) == {"device_map": {"": "mps"}}


def test_each_process_takes_its_own_gpu(gpus, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert device_options(ANYWHERE, None) == {"device_map": {"": 0}}
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_options(ANYWHERE, None) == {"device_map": {"": 1}}
    assert gpus == [(0.5, 0), (0.5, 1)]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ModelError, match="LOCAL_RANK 2 with 2 GPUs"):
        device_options(ANYWHERE, None)


def test_a_model_is_spread_over_all_gpus_where_that_is_asked_for(gpus):
    spread = {"device_map": "auto", "max_memory": {0: "5000MB", 1: "5000MB"}}
    assert device_options(ANYWHERE, "auto") == spread
    assert not gpus


def test_a_limit_below_the_memory_of_the_gpu_is_said_and_one_above_is_all_of_it(gpus, capsys):
    device_options(ANYWHERE, None)
    assert "5,000 of the GPU's 10,000 MB at most (--max_memory_MB)" in capsys.readouterr().out
    device_options(TrainingArguments(max_memory_MB=80_000), None)
    assert not capsys.readouterr().out and gpus[-1] == (1.0, 0)


# ---- What this machine does otherwise ------------------------------------------------------------------------------


def test_paged_optimizers_have_their_twins_without_cuda():
    from transformers.training_args import OptimizerNames

    names = {kind.value for kind in OptimizerNames}
    assert {*PLAIN_TWINS, *PLAIN_TWINS.values()} <= names
    assert PLAIN_TWINS.keys() == {name for name in names if name.startswith("paged_")} - {"paged_adamw", "paged_lion"}
    for name in PLAIN_TWINS:
        assert optimizer_here(name, cuda=True) == name != optimizer_here(name, cuda=False)
    assert optimizer_here("sgd", cuda=True) == optimizer_here("sgd", cuda=False) == "sgd"


def test_a_run_on_the_cpu_says_so_and_which_optimizer_it_takes():
    [note] = machine_notes(ON_CPU)
    assert "running on the CPU; optimizer paged_adamw_32bit → adamw_torch_fused" in note
    [note] = machine_notes(TrainingArguments(use_cpu=True, adam8bit=True))
    assert "paged_adamw_8bit → adamw_bnb_8bit" in note


@pytest.mark.parametrize("flags", [{"optim": "sgd"}, {"do_train": False, "do_eval": True}])
def test_no_optimizer_is_named_where_none_changes(flags):
    [note] = machine_notes(TrainingArguments(use_cpu=True, **flags))
    assert "optimizer" not in note


@pytest.mark.parametrize(("flag", "said"), [("bf16", "slower than fp32"), ("tf32", "no effect without an NVIDIA GPU")])
def test_what_a_cpu_does_not_do_well_is_said(flag, said):
    notes = machine_notes(TrainingArguments(use_cpu=True, **{flag: True}))
    assert len(notes) == 2 and any(f"--{flag}" in note and said in note for note in notes)


def test_another_accelerator_is_named(other_gpu):
    tf32, note = machine_notes(TrainingArguments(tf32=True))
    assert "--tf32 has no effect" in tf32
    assert "running on mps, without CUDA; optimizer paged_adamw_32bit → adamw_torch_fused" in note


def test_a_gpu_says_only_that_bf16_would_do(gpus):
    assert machine_notes(ANYWHERE) == []
    [note] = machine_notes(TrainingArguments(fp16=True))
    assert "--bf16 is as fast as --fp16" in note


# ---- What a CPU cannot do ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"fp16": True}, "--fp16 without a CUDA GPU.*or try --bf16"),
        ({"fp16_full_eval": True, "bits": 16}, "--fp16_full_eval without a CUDA GPU.*or try --bf16_full_eval"),
        ({"use_liger_kernel": True}, "--use_liger_kernel without a GPU"),
        ({"fsdp": True, "bits": 16}, "--fsdp without GPUs"),
        ({"ddp_backend": "nccl"}, "--ddp_backend nccl.*use --ddp_backend gloo"),
        (
            {"gradient_checkpointing_kwargs": {"offload": True}},
            "--activation_checkpointing_kwargs with offload: there is no GPU",
        ),
    ],
)
def test_what_needs_a_gpu_is_refused(flags, said, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    for module in ("checks", "training"):
        monkeypatch.setattr(f"arguments.{module}.require_package", lambda *names: None)
    training = TrainingArguments(use_cpu=True, **flags)
    with pytest.raises(ArgumentsError, match=said):
        check_cpu(training)
    with pytest.raises(ArgumentsError, match=said):
        machine_notes(training)


def test_a_cpu_does_everything_else():
    check_cpu(TrainingArguments(use_cpu=True, bf16=True, full_finetune=True, bits=32))
