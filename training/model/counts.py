"""How many weights a model really has, trains and holds quantized, counted and not assumed.

    print_parameters(model, bits=4)

A 4-bit weight counts as one weight, though two of them are stored in a byte.
"""

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from common.errors import ModelError


@dataclass
class ParameterCounts:
    """What a model is made of, in numbers of weights.

    Attributes:
        trainable: weights that receive gradients.
        architecture: weights of the base model as its architecture counts them, whatever they are packed in.
        stored: elements of all tensors as they are held, adapters included; a packed byte holds two 4-bit weights.
        dtypes: stored elements of each dtype.
        quantized: base weights held in 4 or 8 bits, of `architecture`.
        layers: linear layers of the base, and how many of them are quantized.
        experts: weights of fused experts (one 3-D tensor for all), which bitsandbytes does not quantize.
        expert_dtype: what these are held in.
    """

    trainable: int = 0
    architecture: int = 0
    stored: int = 0
    dtypes: Counter = field(default_factory=Counter)
    quantized: int = 0
    layers: tuple[int, int] = (0, 0)
    experts: int = 0
    expert_dtype: str = ""


def logical_elements(parameter: torch.Tensor) -> int:
    """Return the weights that a parameter stands for: those of the unpacked matrix where it is 4-bit."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else torch.Size(state.shape).numel()


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Count every parameter of `model` once (tied ones too)."""
    counts = ParameterCounts()
    for name, parameter in model.named_parameters():
        counts.stored += parameter.numel()
        dtype = str(parameter.dtype).removeprefix("torch.")
        counts.dtypes[dtype] += parameter.numel()
        counts.trainable += parameter.numel() if parameter.requires_grad else 0
        if ".lora_" in name:
            continue
        counts.architecture += logical_elements(parameter)
        if parameter.dtype in (torch.uint8, torch.int8):
            counts.quantized += logical_elements(parameter)
        elif parameter.ndim == 3 and "expert" in name:
            counts.experts += parameter.numel()
            counts.expert_dtype = dtype
    layers = [
        m for n, m in model.named_modules()
        if isinstance(m, (nn.Linear, Conv1D)) and ".lora_" not in n
    ]  # fmt: skip
    counts.layers = (len(layers), sum(layer.weight.dtype in (torch.uint8, torch.int8) for layer in layers))
    return counts


def print_parameters(model: nn.Module, bits: int) -> None:
    """Print what trains, what the architecture counts, what is stored and in which dtypes, and what was quantized.

    Raises:
        ModelError: nothing trains.
    """
    counts = count_parameters(model)
    share = counts.trainable / max(counts.architecture, 1)
    print(f"parameters: {counts.trainable:,} trainable; the base model has {counts.architecture:,} ({share:.2%})")
    packed = "; a packed byte holds two 4-bit weights" if bits == 4 else ""
    print(f"stored:     {counts.stored:,} elements, adapter included{packed}")
    shares = [f"{name} {n / counts.stored:.1%}" for name, n in counts.dtypes.most_common()]
    print(f"dtypes:     {', '.join(shares)}")
    if bits in (4, 8):
        linear, quantized = counts.layers
        print(
            f"quantized:  {quantized} of {linear} linear layers to {bits} bits, "
            f"{counts.quantized / counts.architecture:.1%} of the base weights"
        )
        if counts.experts:
            print(
                f"note: {counts.experts / counts.architecture:.1%} of the base weights are fused experts, which "
                f"bitsandbytes does not quantize; they stay in {counts.expert_dtype}."
            )
    if not counts.trainable:
        raise ModelError("nothing to train: no parameter of the model is trainable.")
