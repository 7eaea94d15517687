"""Optimizer steps that come as one batch of several micro-batches: who gets which rows, and how a step is carried.

    loader = DataLoader(rows, batch_sampler=StepSampler(order, 64, processes=2, drop_last=False),
                        collate_fn=partial(collate_step, step_collator))

The library then counts one batch a step.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import BatchSampler, Sampler

MICRO_BATCHES = "micro_batches"
Batch = dict[str, torch.Tensor]


class StepSampler(Sampler[list[int]]):
    """The row numbers of each optimizer step, in equal shares, one for each process in turn.

    accelerate gives the shares out to the processes in this order. The last step of an epoch is what is left, shared
    out in the same way; where that is fewer rows than there are processes, its first row is repeated.

    Args:
        sampler: the order of the rows.
        rows: those of a step, over all processes.
        processes: how many there are.
        drop_last: leave out a last step that is not full.
    """

    def __init__(self, sampler: Sampler[int], rows: int, processes: int, drop_last: bool):
        self.sampler = sampler  # accelerate puts one with a seed of its own here
        self.rows, self.processes, self.drop_last = rows, processes, drop_last

    def steps(self) -> BatchSampler:
        """Return the row numbers of each step, over all processes."""
        return BatchSampler(self.sampler, self.rows, self.drop_last)

    def __len__(self) -> int:
        return len(self.steps()) * self.processes

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps():
            for process in range(self.processes):
                yield step[process :: self.processes] or step[:1]


def collate_step(make_micro_batches: Callable[[Sequence], list[Batch]], rows: Sequence) -> dict[str, Any]:
    """Return the rows of a step as one batch.

    Returns:
        `micro_batches`, a list; and `input_ids` and `attention_mask` of all of them behind one another, each (tokens,
        padding included), by which transformers counts tokens and operations.
    """
    step = make_micro_batches(rows)
    masks = [batch.get("attention_mask", torch.ones_like(batch["input_ids"])) for batch in step]
    return {
        "input_ids": torch.cat([batch["input_ids"].flatten() for batch in step]),
        "attention_mask": torch.cat([mask.flatten() for mask in masks]),
        MICRO_BATCHES: step,
    }
