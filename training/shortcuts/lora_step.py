"""LoRA layers of PEFT that compute in one step of autograd what PEFT computes in six.

    model = get_peft_model(base, config)
    join_steps(model)                  # the same weights, names and results
    with whole_weights(model):         # base and adapter as one matrix of each layer, for evaluation
        model.generate(...)

PEFT multiplies by A, by B and by the scaling and adds the sum to what the base layer gives: three tensors of the size
of the output in each direction, and as many passes over memory. Here the base's product is added to in place, and the
scaling is one of the product by B.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.bnb import Linear4bit as Lora4bit
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import nn


class LoraStep(torch.autograd.Function):
    """y = base(x) + scaling · x Aᵀ Bᵀ, of which the base is not trained."""

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, lora_a: torch.Tensor, lora_b: torch.Tensor, scaling: float, base: nn.Module
    ) -> torch.Tensor:
        """Return y, (…, out), in the dtype of the base's product.

        Args:
            states: x, (…, in); lora_a: (rank, in); lora_b: (out, rank); all of one dtype.
            base: linear layer.
        """
        output = base(states)
        flat = states.reshape(-1, states.shape[-1])  # (tokens, in)
        inner = flat @ lora_a.T  # (tokens, rank)
        output.view(-1, output.shape[-1]).addmm_(inner, lora_b.T, alpha=scaling)
        ctx.save_for_backward(flat, inner, lora_a, lora_b)
        ctx.scaling, ctx.base, ctx.shape = scaling, base, states.shape
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of x, A and B."""
        flat, inner, lora_a, lora_b = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1])  # (tokens, out)
        of_inner = ctx.scaling * (gradient @ lora_b)  # (tokens, rank)
        of_states = None
        if ctx.needs_input_grad[0]:
            of_states = (gradient @ base_weight(ctx.base, gradient.dtype)).addmm_(of_inner, lora_a).view(ctx.shape)
        return of_states, of_inner.T @ flat, ctx.scaling * (gradient.T @ inner), None, None


def base_weight(base: nn.Module, dtype: torch.dtype) -> torch.Tensor:
    """Return the weight of a linear layer, (out, in), dequantized where it is held in 4 bits."""
    state = getattr(base.weight, "quant_state", None)
    if state is None:
        return base.weight.to(dtype)
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(base.weight.data, state).to(dtype)


class OneStep:
    """What a LoRA layer of PEFT is given, so that it computes in one step where that is the same.

    Attributes:
        whole: weight of base and adapter as one, (out, in), which then stands for both; see `whole_weights`.
    """

    whole: torch.Tensor | None = None

    def forward(self, states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return what PEFT's layer does, (…, out); for what is rare, PEFT computes it."""
        if self.whole is not None:
            return nn.functional.linear(states, self.whole, self.base_layer.bias)
        if args or kwargs or not self.plain():
            return super().forward(states, *args, **kwargs)
        [name] = self.active_adapters
        weights = (self.lora_A[name].weight, self.lora_B[name].weight)
        device = states.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            inputs = [tensor.to(dtype) for tensor in (states, *weights)]
        else:
            dtype, inputs = states.dtype, [states, *weights]
        if {dtype} != {tensor.dtype for tensor in inputs} | {self.base_dtype()}:
            return super().forward(states)
        return LoraStep.apply(*inputs, self.scaling[name], self.base_layer).to(states.dtype)

    def plain(self) -> bool:
        """Return whether one adapter of A and B is all that is added, and nothing is dropped."""
        [name, *others] = self.active_adapters or [None]
        return (
            not self.disable_adapters
            and not self.merged
            and not others
            and name in self.lora_A
            and name not in self.lora_variant
            and isinstance(self.lora_dropout[name], nn.Identity)
            and self.lora_A[name].bias is None
            and self.lora_B[name].bias is None
            and not torch.compiler.is_compiling()
        )

    def base_dtype(self) -> torch.dtype:
        """Return what the base layer computes in."""
        return getattr(self.base_layer, "compute_dtype", None) or self.base_layer.weight.dtype


class OneStep4bit(OneStep, Lora4bit):
    """LoRA on a layer of bitsandbytes."""


class OneStepLinear(OneStep, LoraLinear):
    """LoRA on a layer that is not quantized."""


ONE_STEP = {Lora4bit: OneStep4bit, LoraLinear: OneStepLinear}


def join_steps(model: nn.Module) -> None:
    """Let the LoRA layers of a model, on linear layers at 4, 16 or 32 bits, compute in one step."""
    for layer in model.modules():
        if type(layer) in ONE_STEP and type(layer.get_base_layer()) in (nn.Linear, quantized_class()):
            layer.__class__ = ONE_STEP[type(layer)]


def whole_size(model: nn.Module) -> int | None:
    """Return the bytes that `whole_weights` takes; None where a layer is more than that."""
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    size = 0
    for layer in layers:
        if not isinstance(layer, OneStep) or not (layer.plain() or layer.disable_adapters):
            return None
        if layer.base_dtype() != torch.float32:  # in fewer bits, the sum would be rounded to another adapter
            return None
        size += layer.in_features * layer.out_features * 4
    return size


@contextlib.contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Compute each LoRA layer as one product with W + scaling · B A, or with W where adapters are off.

    Weights in 4 bits are dequantized once, not for every token that is written. Not for training, and for a model of
    which `whole_size` says that it can be done; adapters must stay on or off.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, OneStep)]
    try:
        with torch.no_grad():
            for layer in layers:
                # A copy, also where the base is not quantized and gives its own.
                whole = base_weight(layer.base_layer, torch.float32).clone()
                if not layer.disable_adapters:
                    [name] = layer.active_adapters
                    whole.addmm_(layer.lora_B[name].weight, layer.lora_A[name].weight, alpha=layer.scaling[name])
                layer.whole = whole
        yield
    finally:
        for layer in layers:
            layer.whole = None


def quantized_class() -> type:
    """Return bitsandbytes' linear layer at 4 bits."""
    from bitsandbytes.nn import Linear4bit

    return Linear4bit
