"""Attention of prompts that are packed behind a prefix, on a CPU: to the prefix and to their own tokens, apart.

    with split_attention():
        logits = model(input_ids, attention_mask=mask, position_ids=positions, past_key_values=cache).logits

Where all tokens see the whole prefix, and a prompt none of another, what a mask would hide is not computed, and the two
parts are put together by the sums of their softmaxes.

Source: https://arxiv.org/abs/2402.05099, section 3.1
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

# What torch's public attention runs on a CPU; that one does not give the sums.
FLASH = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


@contextlib.contextmanager
def split_attention() -> Iterator[None]:
    """Let models attend with `attend_behind_prefix`, where they would with transformers' "sdpa"."""
    ALL_ATTENTION_FUNCTIONS["sdpa"] = attend_behind_prefix  # over the one that is registered
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]


def attend_behind_prefix(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers' `sdpa_attention_forward`, and for what is not of this kind by it.

    Args:
        query: (1, heads, new, size).
        key, value: (1, key heads, shared + new, size).
        attention_mask: (1, 1, new, shared + new), booleans.

    Returns:
        (1, new, heads, size), None
    """
    shared = key.shape[2] - query.shape[2]
    plain = not dropout and more.get("position_bias") is None and more.get("softcap") is None
    if not (plain and shared > 0 and fits_kernel(query, key, value) and behind_prefix(attention_mask, query, key)):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
    to_prefix, prefix_sums = FLASH(query, key[:, :, :shared], value[:, :, :shared], scale=scaling)
    seen, parts = attention_mask[0, 0, :, shared:], []
    for start, end in blocks(seen):
        own = slice(shared + start, shared + end)
        mask = query.new_zeros(end - start, end - start).masked_fill(~seen[start:end, start:end], -torch.inf)
        parts.append(FLASH(query[:, :, start:end], key[:, :, own], value[:, :, own], attn_mask=mask, scale=scaling))
    to_own, own_sums = (torch.cat(part, dim=2) for part in zip(*parts, strict=True))
    share = torch.sigmoid(prefix_sums - own_sums)[..., None].to(query.dtype)  # of the prefix; the sums are logarithms
    return torch.lerp(to_own, to_prefix, share).transpose(1, 2).contiguous(), None


def fits_kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether the kernel, which checks nothing, is right for these, and autocast would change nothing."""
    states = (query, key, value)
    on_cpu = FLASH is not None and query.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    dense = all(state.stride(-1) == 1 for state in states)
    alike = len({(state.dtype, state.shape[-1]) for state in states}) == 1
    return on_cpu and dense and alike


def behind_prefix(mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor) -> bool:
    """Whether it is a mask for one row, the same for all heads, that hides nothing of the prefix."""
    shape = (1, 1, query.shape[2], key.shape[2])
    return mask is not None and mask.dtype == torch.bool and mask.shape == shape and bool(mask[..., : -shape[2]].all())


def blocks(seen: torch.Tensor) -> list[tuple[int, int]]:
    """Where the trees of a forest, (new, new), begin and end, one after the other: a root sees itself alone."""
    starts = (seen.sum(dim=1) == 1).nonzero().flatten().tolist()
    return list(zip(starts, [*starts[1:], len(seen)], strict=True))
