"""Several rows in one sequence, each blind to the others: which rows go together, and the tensors of a sequence.

    bins = best_fit([5, 3, 4], capacity=8)      # [[0, 1], [2]]
    sequences = pack(batch, [5, 3, 4], bins)

Rows are put together best fit decreasing, as in Krell et al. 2021 (https://arxiv.org/abs/2107.02027). Whether a model
keeps them apart is up to its attention: see `training.loop.steps`.
"""

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence

import torch

from common.labels import IGNORE_INDEX


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Return the row numbers, longest row first and equal ones in their own order."""
    return sorted(range(len(lengths)), key=lambda row: -lengths[row])


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return bins of row numbers, at most `capacity` tokens in each.

    The longest row comes first, and each goes into the fullest bin that still takes it; no row may be longer than
    `capacity`. Bins, and rows in a bin, are in the order in which they were begun, longest row first.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens free, bin), least room first
    for row in longest_first(lengths):
        at = bisect_left(room, (lengths[row], 0))
        if at == len(room):
            room.append((capacity, len(bins)))
            bins.append([])
        free, fullest = room.pop(at)
        bins[fullest].append(row)
        insort(room, (free - lengths[row], fullest))
    return bins


def pack(
    batch: Mapping[str, torch.Tensor], lengths: Sequence[int], bins: Sequence[Sequence[int]]
) -> list[dict[str, torch.Tensor]]:
    """Put the rows of each bin behind one another.

    Args:
        batch: `input_ids` and `labels`, (rows, longest), padded on the right.
        lengths: tokens of each row, padding not counted.
        bins: row numbers.

    Returns:
        For each bin `input_ids`, `labels` and `position_ids`, each (1, tokens of the bin). Positions restart with each
        row, which is how attention knows the rows apart; there is no mask, and no row's first token is supervised: the
        last token of the row before would have to predict it.
    """
    sequences = []
    for rows in bins:
        positions = torch.cat([torch.arange(lengths[row]) for row in rows])
        ids, labels = (
            torch.cat([batch[name][row, : lengths[row]] for row in rows]) for name in ("input_ids", "labels")
        )
        labels = labels.masked_fill(positions == 0, IGNORE_INDEX)
        sequences.append({"input_ids": ids[None], "labels": labels[None], "position_ids": positions[None]})
    return sequences
