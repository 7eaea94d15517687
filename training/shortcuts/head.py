"""The loss at the output head in pieces, so that the logits of all tokens are never held, nor gradients of theirs.

    with head_apart(model):                              # it gives what its head is given, (tokens, hidden)
        states = model(**inputs).logits
    losses = token_losses(states, labels, model.get_output_embeddings())

Logits and their gradients are the largest tensors of a step: with a vocabulary of 150,000, 1.2 GB each for 2,048
tokens. The gradient of a piece is known as soon as its logits are, and needs no more of them:
https://arxiv.org/abs/2410.10989, section 3.2
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from training.shortcuts.attention import BY_ROWS_TYPES

PIECE_BYTES = 2**26  # of float32 logits that are held at a time


class TokenLosses(torch.autograd.Function):
    """Cross entropy of each token, with the gradient of the hidden states computed along with it."""

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        smoothing: float,
    ) -> torch.Tensor:
        """Return the losses, (tokens,) in float32; see `token_losses`."""
        losses = torch.empty(len(states), device=states.device)
        gradient = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        for piece in pieces(len(states), len(weight)):
            logits = nn.functional.linear(states[piece], weight, bias).float()  # (tokens of the piece, vocabulary)
            place = labels[piece, None]
            right = (1 - smoothing) * logits.gather(1, place)
            if smoothing:
                right += smoothing * logits.mean(dim=-1, keepdim=True)
            # In place, as a copy of all logits takes longer than their exponentials.
            largest = logits.amax(dim=-1, keepdim=True)
            total = logits.sub_(largest).exp_().sum(dim=-1, keepdim=True)
            losses[piece] = (largest + total.log() - right).squeeze(1)
            if gradient is not None:  # softmax, less what each token should have been
                logits /= total
                if smoothing:
                    logits -= smoothing / len(weight)
                logits.scatter_add_(1, place, logits.new_full(place.shape, smoothing - 1))
                gradient[piece] = logits.to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, of_losses: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradient of the states; the head is not trained."""
        [gradient] = ctx.saved_tensors
        return gradient * of_losses[:, None].to(gradient.dtype), None, None, None, None


def pieces(tokens: int, vocabulary: int) -> Iterator[slice]:
    """Give equal parts of `tokens` of whose logits none is larger than `PIECE_BYTES`, or of one token."""
    most = max(PIECE_BYTES // (4 * vocabulary), 1)
    count = -(-tokens // most)
    for number in range(count):
        yield slice(number * tokens // count, (number + 1) * tokens // count)


def token_losses(states: torch.Tensor, labels: torch.Tensor, head: nn.Linear, smoothing: float = 0.0) -> torch.Tensor:
    """Return the cross entropy of each token in nats, (tokens,), in float32.

    Args:
        states: what the head is given, (tokens, hidden).
        labels: the tokens to predict, (tokens,).
        head: not trained.
        smoothing: share of each label that is spread over all tokens.
    """
    device = states.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight.dtype
    bias = None if head.bias is None else head.bias.to(dtype)
    return TokenLosses.apply(states.to(dtype), head.weight.to(dtype), bias, labels, smoothing)


def stands_apart(model: nn.Module) -> bool:
    """Return whether a model does nothing with logits but multiply them, so that its head may be applied by itself."""
    head = model.get_output_embeddings()
    scales = any(getattr(model.config, name, 1) != 1 for name in ("logits_scaling", "logit_scale"))
    return (
        model.config.model_type in BY_ROWS_TYPES
        and type(head) is nn.Linear
        and not any(weight.requires_grad for weight in head.parameters())
        and (head.bias is None or not scales)
        and getattr(model.config, "final_logit_softcapping", None) is None
    )


@contextlib.contextmanager
def head_apart(model: nn.Module) -> Iterator[None]:
    """Let a model give the states that its head is given where it gives logits; afterwards as before."""
    head = model.get_output_embeddings()
    head.forward = lambda states: states
    try:
        yield
    finally:
        del head.forward
