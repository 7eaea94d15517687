"""Which rows are held out, and how many rows each part of a mix gives: by seeded permutations.

The same seed and number of rows give the same numbers of rows:

    train, held_out = split_indices(rows=1000, held_out=100, seed=42)
"""

import math
import random

from common.errors import DataError


def count_held_out(size: float, rows: int, source: str) -> int:
    """Return how many of `rows` to hold out: `size` itself from 1 on, that fraction of the rows (rounded up) below 1.

    Raises:
        DataError: no row is left to train on.
    """
    count = int(size) if size >= 1 else math.ceil(size * rows)
    if count >= rows:
        raise DataError(
            f"--eval_dataset_size {size:g} holds {count:,} rows out, but {source} has {rows:,}; none is left to train\n"
            "try --eval_dataset_size 0.1 (a tenth of the rows), or evaluate on all rows of a file: --eval_dataset FILE"
        )
    return count


def shuffled(rows: int, seed: int) -> list[int]:
    """Return the numbers of `rows` rows in a seeded order."""
    order = list(range(rows))
    random.Random(seed).shuffle(order)
    return order


def split_indices(rows: int, held_out: int, seed: int) -> tuple[list[int], list[int]]:
    """Return (train, held out) row numbers, each in the order of the file, from one seeded permutation."""
    order = shuffled(rows, seed)
    return sorted(order[held_out:]), sorted(order[:held_out])


def mix_counts(rows: list[int], weights: list[float | None]) -> list[int]:
    """Return how many rows each part of a mix gives: all of them without weights.

    With weights, the parts give the largest mix of these proportions in which no row is taken twice, each at least one.
    """
    if None in weights:
        return rows
    total = min(count / weight for count, weight in zip(rows, weights, strict=True))
    return [max(1, min(count, round(total * weight))) for count, weight in zip(rows, weights, strict=True)]
