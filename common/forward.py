"""What rounding may do to logits, and how far two are apart: for whatever checks a shortcut against the long way.

    relative_difference(packed, alone) <= rounding_limit(model)

Packing and the shared prefixes of MMLU are such shortcuts.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

# Largest relative difference that rounding alone explains. Of packed rows, models that keep rows apart are at most 4e-7
# off in fp32, and 0.007 in bf16 at up to 32 layers; with 8-bit layers 0.006 in the trained models of data/demo and
# stories260K, and 0.013 in a random one of 32 layers. Trained models that do not are 0.3 off and more (random ones of
# two layers: OPT, Falcon and MPT 0.4, BLOOM 0.013). 8-bit layers have more room: no deep trained model in 8 bits has
# been measured.
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
