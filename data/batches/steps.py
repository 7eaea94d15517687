"""The rows of an optimizer step → its micro-batches: less padding, the same step.

    step = StepCollator(collator, batch_size=4)                       # rows split by length, 4 to a micro-batch
    step = StepCollator(collator, batch_size=4, max_tokens=4096)      # as many rows as stay within 4,096 padded tokens
    step = StepCollator(collator, batch_size=4, pack_length=1280)     # rows packed into sequences of at most 1,280
    micro_batches = step(rows)

Which rows make a step is left to chance, so that every step is as good a sample of the data as it was; only how they
are split is chosen. Sorting a whole epoch by length saves more padding and makes the loss a sawtooth.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common.errors import DataError
from data.batches.collator import DataCollatorForCausalLM
from data.batches.packing import best_fit, longest_first, pack

TRAINED_ON = ("input_ids", "attention_mask", "labels")


@dataclass
class StepCollator:
    """Collate the rows of an optimizer step (one process's share of it) into a list of micro-batches.

    The longest rows come first, so that what does not fit in memory fails at once.

    Args:
        collator: makes one padded batch of the rows.
        batch_size: rows of a micro-batch, where neither of the following is given.
        max_tokens: rows × longest row of a micro-batch, in tokens, is at most this; their number follows.
        pack_length: pack rows into sequences of at most this many tokens.
    """

    collator: DataCollatorForCausalLM
    batch_size: int
    max_tokens: int | None = None
    pack_length: int | None = None

    @property
    def strategy(self) -> str:
        """How rows are split: "packed" in sequences, to a "budget" of tokens, or "split" by length alone."""
        return "packed" if self.pack_length is not None else "split" if self.max_tokens is None else "budget"

    @property
    def most_tokens(self) -> int | None:
        """The most tokens of a micro-batch, padding included; None where the longest rows decide."""
        return self.max_tokens if self.pack_length is None else self.pack_length

    def check(self, lengths: Sequence[int], name: Callable[[int], str] = "row {} of a step".format) -> None:
        """Refuse rows that fit into no micro-batch: to be asked before training, with the length of every row.

        Raises:
            DataError: naming the longest row by `name`.
        """
        check_lengths(lengths, self.most_tokens, name)

    def split(self, lengths: Sequence[int]) -> list[list[int]]:
        """Return the row numbers of each micro-batch for rows of these lengths. Raises DataError as `check` does."""
        self.check(lengths)
        if self.pack_length is not None:
            return best_fit(lengths, self.pack_length)
        return split_by_length(lengths, self.batch_size, self.max_tokens)

    def __call__(self, rows: Sequence[Mapping]) -> list[dict[str, torch.Tensor]]:
        """Return micro-batches: `input_ids`, `attention_mask` and `labels`, each (rows, longest row).

        Packed ones hold what `data.batches.packing.pack` gives.
        """
        batch = self.collator(rows)
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        batches = self.split(lengths)
        if self.pack_length is not None:
            return pack(batch, lengths, batches)
        return [{name: batch[name][chosen, : lengths[chosen[0]]] for name in TRAINED_ON} for chosen in batches]


def check_lengths(lengths: Sequence[int], limit: int | None, name: Callable[[int], str]) -> None:
    """Refuse rows that fit into no micro-batch of `limit` tokens. Raises DataError, naming the longest by `name`."""
    if limit is not None and lengths and max(lengths) > limit:
        row = longest_first(lengths)[0]
        raise DataError(
            f"--max_tokens_per_batch {limit:,}: {name(row)} has {lengths[row]:,} tokens\n"
            f"give at least --max_tokens_per_batch {lengths[row]}, or shorter --source_max_len and --target_max_len"
        )


def split_by_length(lengths: Sequence[int], batch_size: int, max_tokens: int | None = None) -> list[list[int]]:
    """Return micro-batches of row numbers, rows of similar length together, the longest first.

    Each has `batch_size` rows, the last one maybe fewer; or, with `max_tokens`, as many as keep rows × longest within
    that many tokens, and one at least.
    """

    def takes_one_more(batch: list[int]) -> bool:
        size = len(batch) + 1
        longest = lengths[batch[0]]
        return size <= batch_size if max_tokens is None else size * longest <= max_tokens

    batches: list[list[int]] = []
    for row in longest_first(lengths):
        if not (batches and takes_one_more(batches[-1])):
            batches.append([])
        batches[-1].append(row)
    return batches


def _chunks(lengths: Sequence[int], size: int) -> list[Sequence[int]]:
    return [lengths[start : start + size] for start in range(0, len(lengths), size)]


def padding_share(
    lengths: Sequence[int], batch_size: int, accumulation: int, step: StepCollator | None = None
) -> dict[str, Any]:
    """Count what one epoch in a seeded order would be made of; nothing but the lengths is needed.

    Args:
        lengths: tokens of each row, at least one row.
        batch_size: rows of a micro-batch; times `accumulation`, the rows of a step.
        accumulation: micro-batches of a step, where their number does not follow from something else.
        step: splits the rows of a step; None where each micro-batch takes rows as they come.

    Returns:
        padding_share (of all tokens that are computed, from 0 to 1); strategy (see `StepCollator.strategy`, or
        "random"); rows_per_process (of a step); steps; micro_batches (a step, on average); largest (tokens of the
        largest micro-batch, padding included); where rows are packed also filled (tokens as a share of what as many
        full sequences would hold).
    """
    order = random.Random(0).sample(lengths, len(lengths))
    rows = batch_size * accumulation
    steps = _chunks(order, rows)  # of rows, each as its length
    if step is None:
        batches = [batch for step_rows in steps for batch in _chunks(step_rows, batch_size)]
    else:
        batches = [[step_rows[row] for row in batch] for step_rows in steps for batch in step.split(step_rows)]
    strategy = "random" if step is None else step.strategy
    computed = [sum(batch) if strategy == "packed" else len(batch) * max(batch) for batch in batches]
    shares = {
        "padding_share": 1 - sum(lengths) / sum(computed),
        "strategy": strategy,
        "rows_per_process": rows,
        "steps": len(steps),
        "micro_batches": len(batches) / len(steps),
        "largest": max(computed),
    }
    if strategy == "packed":
        shares["filled"] = sum(lengths) / (len(batches) * step.pack_length)
    return shares
