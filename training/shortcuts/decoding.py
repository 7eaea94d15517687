"""Answers to many prompts at a time, where rows that have ended cost nothing more.

    batches = batches_by_tokens(prompt_lengths, 64, batch_tokens(model.config, free), least=8)
    model.generate(**prompts, generation_config=config, custom_generate=decode)

transformers hands `decode` all that it has prepared, and goes on until the last row of a batch has ended:
https://huggingface.co/docs/transformers/generation_strategies#custom-generation-methods
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import (
    Cache,
    GenerationConfig,
    LogitsProcessorList,
    PretrainedConfig,
    PreTrainedModel,
    StoppingCriteriaList,
)
from transformers.cache_utils import DynamicLayer

from training.shortcuts.attention import BY_ROWS_TYPES

WORTH_SHARING = 16  # tokens that all prompts of a batch begin with: they are worth a pass of their own
ENDED = 0.25  # of the rows that are still computed: at that share the others move together
ROOM = 64  # tokens that a cache grows by
BATCH_TOKENS = 8192  # prompts and answers of a batch: 80 rows of 100 tokens
CACHE_SHARE = 0.25  # of free memory that keys and values of a batch may take


def batch_tokens(config: PretrainedConfig, free: int) -> int:
    """Return how many tokens the rows of a batch may have with their answers.

    Args:
        config: of a model of `BY_ROWS_TYPES`.
        free: bytes of memory.
    """
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    bytes_per_token = 2 * config.num_hidden_layers * heads * size * 4  # keys and values, in four bytes at most
    return min(BATCH_TOKENS, int(CACHE_SHARE * free / bytes_per_token))


def batches_by_tokens(prompt_lengths: Sequence[int], answer: int, tokens: int, least: int) -> list[list[int]]:
    """Return the numbers of the rows of each batch, in their order.

    Args:
        prompt_lengths: tokens of the prompt of each row, longest first.
        answer: tokens that are written at most.
        tokens: of a batch at most, with answers and padding.
        least: rows of a batch, whatever their tokens.
    """
    batches: list[list[int]] = []
    for row in range(len(prompt_lengths)):
        if batches and len(batches[-1]) < max(least, tokens // (prompt_lengths[batches[-1][0]] + answer)):
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


class GrowingLayer(DynamicLayer):
    """Keys and values of a layer with room for more, where `DynamicLayer` copies all of them for every token."""

    rooms: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add keys and values, (rows, heads, tokens, size), behind those that are there; gives all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, end = self.get_seq_length(), self.get_seq_length() + key_states.shape[-2]
        # What took rows away put those that are left elsewhere.
        moved = self.rooms is None or self.rooms[0].data_ptr() != self.keys.data_ptr()
        if moved or self.rooms[0].shape[-2] < end:
            self.rooms = tuple(
                new.new_empty(*new.shape[:2], end + ROOM, new.shape[-1]) for new in (key_states, value_states)
            )
            for room, old in zip(self.rooms, (self.keys, self.values), strict=True):
                if start:
                    room[:, :, :start] = old
        for room, new in zip(self.rooms, (key_states, value_states), strict=True):
            room[:, :, start:end] = new
        self.keys, self.values = (room[:, :, :end] for room in self.rooms)
        return self.keys, self.values


def decodes(model: PreTrainedModel, config: GenerationConfig) -> bool:
    """Return whether `decode` writes what the library would: token by token, of a model that is known."""
    return config.num_beams in (None, 1) and config.use_cache is not False and model.config.model_type in BY_ROWS_TYPES


def decode(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    **others: Any,
) -> torch.Tensor:
    """Return prompts and what follows them, (rows, longest), filled up with the pad token.

    Args:
        input_ids: prompts, padded on the left, (rows, longest prompt).
        stopping_criteria: one of them the length.
        others: `attention_mask` of the prompts, and what the library needs beside that. The library would hand a
            parameter of that name over twice.
    """
    attention_mask = others.get("attention_mask")  # none where nothing is padded
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    cache = Cache(layer_class_to_replicate=GrowingLayer)
    written = input_ids
    shared = shared_length(model, input_ids, attention_mask, stopping_criteria.max_length)
    new, mask = rests(input_ids, attention_mask, shared)
    if shared:
        beginning = input_ids[0][attention_mask[0].bool()][None, :shared]
        model(input_ids=beginning, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(len(input_ids))
    rows = torch.arange(len(input_ids), device=input_ids.device)  # that are still computed
    ended = torch.zeros_like(rows, dtype=torch.bool)  # which of them have ended
    while True:
        positions = (mask.cumsum(dim=-1) - 1).clamp_min(0)[:, -new.shape[1] :]
        logits = model(
            input_ids=new,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        scores = logits_processor(written[rows], logits.float())  # (rows that are computed, vocabulary)
        if generation_config.do_sample:
            new = torch.multinomial(nn.functional.softmax(scores, dim=-1), num_samples=1)
        else:
            new = scores.argmax(dim=-1, keepdim=True)
        new[ended] = generation_config.pad_token_id
        column = written.new_full((len(written), 1), generation_config.pad_token_id)
        column[rows] = new
        written = torch.cat([written, column], dim=1)
        ended |= stopping_criteria(written[rows], None)
        if ended.all():
            return written
        if ended.float().mean() >= ENDED:
            left = (~ended).nonzero().flatten()
            cache.batch_select_indices(left)
            rows, new, mask, ended = rows[left], new[left], mask[left], ended[left]
        mask = torch.cat([mask, torch.ones_like(new)], dim=1)


def shared_length(model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor, most: int) -> int:
    """Return how many first tokens all prompts have in common, where it pays to compute them once; else 0.

    Args:
        input_ids, attention_mask: padded on the left, (rows, longest prompt).
        most: tokens of a row when it ends.
    """
    # Padding stands between what is shared and the rests. A window is counted in places, and so padding would count.
    window = getattr(model.config, "sliding_window", None)
    if len(input_ids) < 2 or (window is not None and window < most):
        return 0
    lengths = attention_mask.sum(dim=-1)
    shortest = int(lengths.min())
    starts = input_ids.shape[1] - lengths
    firsts = input_ids.gather(1, starts[:, None] + torch.arange(shortest, device=input_ids.device))
    alike = (firsts == firsts[0]).all(dim=0)[: shortest - 1]  # each keeps a token to go on from
    shared = int(alike.long().cumprod(dim=0).sum())
    return shared if shared >= WORTH_SHARING else 0


def rests(input_ids: torch.Tensor, attention_mask: torch.Tensor, shared: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what prompts go on with behind the tokens that they share, and the mask of all of it.

    Returns:
        (rows, longest rest) ids, padded on the left with any; (rows, shared + longest rest) mask.
    """
    if not shared:
        return input_ids, attention_mask
    lengths = attention_mask.sum(dim=-1, keepdim=True) - shared
    longest = int(lengths.max())
    places = torch.arange(longest, device=input_ids.device)
    mask = (places >= longest - lengths).to(attention_mask.dtype)
    return input_ids[:, -longest:], torch.cat([mask.new_ones(len(mask), shared), mask], dim=1)
