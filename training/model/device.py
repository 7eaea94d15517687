"""Where a model goes and what this machine runs in the place of what it has not: one process, one device.

    device_options(training, device_map=None)      # {"device_map": {"": 0}} on the first GPU
    optimizer_here("paged_adamw_32bit", cuda=False)  # "adamw_torch_fused"

A machine without CUDA gets the nearest that it has, and the run says so.
"""

from typing import Any

import torch

from arguments.declare import require
from arguments.training import TrainingArguments
from common.errors import ModelError
from common.launcher import local_rank

# What paged optimizers are without CUDA's unified memory.
PLAIN_TWINS = {
    "paged_adamw_32bit": "adamw_torch_fused",
    "paged_adamw_8bit": "adamw_bnb_8bit",
    "paged_lion_32bit": "lion_32bit",
    "paged_lion_8bit": "lion_8bit",
    "paged_ademamix_32bit": "ademamix",
    "paged_ademamix_8bit": "ademamix_8bit",
}


def uses_cuda(training: TrainingArguments) -> bool:
    """Return whether this run computes on an NVIDIA GPU, or on another that speaks CUDA."""
    return torch.cuda.is_available() and not training.use_cpu


def on_cpu(training: TrainingArguments) -> bool:
    """Return whether this run computes on the CPU."""
    return training.use_cpu or not (torch.cuda.is_available() or torch.accelerator.is_available())


def optimizer_here(name: str, cuda: bool) -> str:
    """Return the optimizer that runs in the place of `name`."""
    return name if cuda else PLAIN_TWINS.get(name, name)


def machine_notes(training: TrainingArguments) -> list[str]:
    """Return a sentence on each setting that this machine gives its nearest equivalent.

    Raises:
        ArgumentsError: there is none.
    """
    if uses_cuda(training):
        faster = training.fp16 and torch.cuda.is_bf16_supported(including_emulation=False)
        return ["this GPU computes in bfloat16: --bf16 is as fast as --fp16 and needs no loss scaling."] * faster
    asked = training.resolved()["optim"]
    here = optimizer_here(asked, cuda=False)
    changed = f"; optimizer {asked} → {here}" if here != asked and training.do_train else ""
    notes = ["--tf32 has no effect without an NVIDIA GPU."] if training.tf32 else []
    if not on_cpu(training):
        device = torch.accelerator.current_accelerator().type
        return [*notes, f"running on {device}, without CUDA{changed}; --max_memory_MB does not apply."]
    check_cpu(training)
    notes.append(f"running on the CPU{changed}; --max_memory_MB does not apply.")
    if training.bf16:
        notes.append("--bf16 on a CPU without bfloat16 units is slower than fp32, the default.")
    return notes


def check_cpu(training: TrainingArguments) -> None:
    """Refuse what cannot be done on a CPU in any useful time. Raises ArgumentsError."""
    for name, asked in (("fp16", training.fp16), ("fp16_full_eval", training.fp16_full_eval)):
        require(
            not asked,
            f"--{name} without a CUDA GPU: fp16 products on a CPU are over 20 times slower than fp32. "
            f"Leave --{name} out (fp32), or try --{name.replace('fp16', 'bf16')}.",
        )
    require(not training.use_liger_kernel, "--use_liger_kernel without a GPU: its kernels run on GPUs. Leave it out.")
    require(not training.fsdp, "--fsdp without GPUs: the library shards no model on CPUs. Leave it out.")
    require(training.ddp_backend != "nccl", "--ddp_backend nccl without NVIDIA GPUs: use --ddp_backend gloo.")
    require(
        not training.resolved()["activation_checkpointing_kwargs"].get("offload"),
        "--activation_checkpointing_kwargs with offload: there is no GPU to take activations from. Leave it out.",
    )


def device_options(training: TrainingArguments, device_map: str | None) -> dict[str, Any]:
    """Return device map and memory limits for `from_pretrained`: `LOCAL_RANK`'s device under a launcher."""
    if on_cpu(training):
        return {"device_map": {"": "cpu"}}
    if not torch.cuda.is_available():
        return {"device_map": {"": torch.accelerator.current_accelerator().type}}
    limit = training.max_memory_MB
    if device_map == "auto":
        return {"device_map": "auto", "max_memory": {i: f"{limit}MB" for i in range(torch.cuda.device_count())}}
    device, devices = local_rank() or 0, torch.cuda.device_count()
    if device >= devices:
        raise ModelError(f"LOCAL_RANK {device} with {devices} GPUs: start one process for each GPU at most.")
    total = torch.cuda.get_device_properties(device).total_memory
    if limit * 1e6 < total:
        print(f"note: using {limit:,} of the GPU's {total / 1e6:,.0f} MB at most (--max_memory_MB).")
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit * 1e6 / total), device)
    return {"device_map": {"": device}}
