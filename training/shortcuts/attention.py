"""Attention over rows that stand in one sequence, where several may share what they begin with.

    with attending(model, micro_batch):
        model(**for_model(micro_batch))      # a micro-batch of `data.batches.shared`, with its `layout`

transformers calls it by its name, and hands it the layout that the model was called with:
https://huggingface.co/docs/transformers/attention_interface
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from arguments.training import TrainingArguments
from common.labels import LAYOUT, ROWS

# Model types whose gradients are those of separate rows; tests/test_data/batches/test_shared.py proves each.
BY_ROWS_TYPES = (
    "cohere", "gemma", "gemma3_text", "glm4", "gpt2", "gpt_bigcode", "gpt_neox", "granite", "llama", "mistral", "olmo",
    "olmo2", "phi", "phi3", "qwen2", "qwen3", "smollm3", "starcoder2",
)  # fmt: skip
BY_ROWS = "by_rows"  # the name of this attention among those of transformers
# What transformers takes for a mask that is made already: it builds none, and attention by rows reads the layout.
NO_MASK = torch.zeros(1, 1, 1, 1)


def row_layout(config: PretrainedConfig, training: TrainingArguments) -> str | None:
    """Return how the rows of a step stand in sequences.

    Returns:
        "shared": what several rows begin with stands once; "unpadded": each row whole, where dropout must differ from
        row to row; None: as padded micro-batches, where rows in one sequence are not known to give the same step.
    """
    elsewhere = (
        training.packing,  # which has its own way
        training.neftune_noise_alpha,  # scaled by the length of a sequence
        training.use_liger_kernel,  # whose loss wants whole batches
        training.torch_compile or training.torch_compile_backend or training.torch_compile_mode,  # new shapes each time
        training.fsdp or training.deepspeed,
    )
    if training.shared_prefix == "off" or not training.step_batching or any(elsewhere):
        return None
    if config.model_type not in BY_ROWS_TYPES:
        return None
    dropouts = [value for name, value in config.to_dict().items() if "drop" in name and isinstance(value, int | float)]
    drops = any(dropouts) or (training.lora_dropout > 0 and not training.full_finetune)
    return "unpadded" if drops else "shared"


def rows_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    layout: Mapping[str, Any],
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Return the attention of each token to those before it in its row.

    Args:
        query: (1, heads, tokens, size); key, value: (1, key-value heads, tokens, size).
        layout: see `data.batches.shared.plan_attention`.
        sliding_window: how many tokens, itself among them, one sees at most.
        others: what makes no difference to scores here.

    Returns:
        (1, tokens, heads, size), and no weights.

    Raises:
        NotImplementedError: the architecture caps its scores, or adds to them.
    """
    if unknown := [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]:
        raise NotImplementedError(f"attention by rows knows no {unknown[0]}")
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))  # (tokens, heads, size)
    if query.device.type != "cpu":  # CUDA's fast kernels take no mask where heads share keys
        key, value = (states.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for states in (key, value))
    outputs = []
    for group in layout["groups"]:
        seen = sees(group, sliding_window)
        states = (gather(query, group["queries"]), gather(key, group["keys"]), gather(value, group["keys"]))
        output = scaled_dot_product_attention(
            *states, attn_mask=seen, dropout_p=dropout, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
        )
        outputs.append(output.transpose(1, 2).flatten(0, 1))  # (pieces × longest, heads, size)
    return torch.cat(outputs).index_select(0, layout["order"])[None], None


def gather(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return states (tokens, heads, size) at places (pieces, longest) as (pieces, heads, longest, size)."""
    return states.index_select(0, places.flatten()).unflatten(0, places.shape).transpose(1, 2)


def sees(group: Mapping[str, torch.Tensor], sliding_window: int | None) -> torch.Tensor:
    """Return which keys each query of a group sees, (pieces, 1, longest piece, longest path).

    A query that only fills up sees what the last token of its piece sees, so that no softmax is over nothing.
    """
    places = torch.arange(group["keys"].shape[1], device=group["keys"].device)
    positions = group["positions"][:, :, None]
    seen = places <= positions
    if sliding_window is not None and len(places) > sliding_window:
        seen &= positions - places < sliding_window
    return seen[:, None]


AttentionInterface.register(BY_ROWS, rows_attention)
AttentionMaskInterface.register(BY_ROWS, sdpa_mask)


@contextlib.contextmanager
def attending(model: PreTrainedModel, batch: Mapping[str, Any]) -> Iterator[None]:
    """Let a model attend by rows where a micro-batch has a layout, as all of its step have; afterwards as before."""
    if LAYOUT not in batch:
        yield
        return
    usual = model.config._attn_implementation
    model.set_attn_implementation(BY_ROWS)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)


def for_model(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a micro-batch as a model is called with it."""
    inputs = {name: value for name, value in batch.items() if name != ROWS}
    return inputs | {"attention_mask": NO_MASK} if LAYOUT in batch else inputs
