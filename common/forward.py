"""The forward pass of a model: what it takes, and how far its logits may be apart.

    takes(model, "logits_to_keep"), on_one_device(model)
    relative_difference(packed, alone) <= rounding_limit(model)

Packing and the shared prefixes of MMLU are shortcuts that are checked against the long way by these limits.
"""

import contextlib
import inspect
from collections.abc import Iterator, Mapping

import torch
from torch import nn

# How transformers names tables of positions, which end where the model does. Other models compute them (rotary, ALiBi).
POSITION_TABLES = ("wpe", "embed_positions", "position_embeddings", "positions_embed")
# Rounding alone explains a relative difference of at most this much. Measured on packed rows, a model that keeps rows
# apart is at most 4e-7 off in fp32 and 0.007 in bf16 (up to 32 layers). With 8-bit layers, the trained models of
# data/demo and stories260K are 0.006 off, and a random one of 32 layers is 0.013 off; the limit leaves them more room,
# as no deep trained model in 8 bits has been measured. A trained model that does not keep rows apart is 0.3 off or more
# (random ones of two layers: OPT, Falcon and MPT 0.4, BLOOM 0.013).
EXACT, ROUNDED, ROUNDED_INT8 = 1e-3, 0.05, 0.15


def rounding_limit(model: nn.Module) -> float:
    """Return how far logits may be apart at the precision that a model computes in here and now."""
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if torch.int8 in dtypes:
        return ROUNDED_INT8
    device = next(model.parameters()).device.type
    halves = {torch.float16, torch.bfloat16} & dtypes or torch.is_autocast_enabled(device)
    return ROUNDED if halves or torch.backends.cuda.matmul.allow_tf32 else EXACT


def relative_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the norm of a difference of logits, (…, vocabulary), over the norm of `other`.

    Logits count from their mean, as a softmax does not see it.
    """
    one, other = (logits.float() - logits.float().mean(dim=-1, keepdim=True) for logits in (one, other))
    return ((one - other).norm() / other.norm()).item()


def forward_parameters(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    """Return what the forward pass of a model takes, under its adapters."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inspect.signature(base.forward).parameters


def takes(model: nn.Module, name: str) -> bool:
    """Return whether the forward pass of a model, under its adapters, takes an argument of this name."""
    return name in forward_parameters(model)


def on_one_device(model: nn.Module) -> bool:
    """Return whether the whole model is on one device."""
    return len(set((getattr(model, "hf_device_map", None) or {}).values())) <= 1


def has_position_table(model: nn.Module) -> bool:
    """Return whether a model looks positions up in a table, and so has no more than stand there."""
    modules = (name for name, module in model.named_modules() if isinstance(module, nn.Embedding))
    buffers = (name for name, _ in model.named_buffers())
    return any(name.rpartition(".")[2] in POSITION_TABLES for names in (modules, buffers) for name in names)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Compute without dropout and gradients; afterwards every module is in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
