"""How far apart results may lie that nothing but rounding tells apart."""

from collections.abc import Mapping
from typing import Any

import torch

# float32 keeps 24 bits, so each product and sum is off by up to 6e-8 of its size. Other instructions, threads, batches
# or paddings add the same numbers up in another order; that moves what the tiny models give by up to 1e-6 of its norm,
# and a wrong mask, row or weight by 1e-2 and more.
ROUNDING = 1e-5
ROUNDING_BF16 = 1e-2  # of bfloat16, which keeps 8 bits: a number is off by up to 4e-3
# Plain descent. Adam divides each gradient by its size, and so makes a whole step of one that is rounding alone.
DESCENT = ("--optim", "sgd", "--learning_rate", "1.0")


def distance(one: Any, other: Any) -> float:
    """Return the norm of the difference as a share of the norm of `other`; NaN where `other` is zero.

    A share, as rounding grows with the numbers; of the norm, as single numbers near zero are what is left of larger
    ones, and carry their rounding.

    Args:
        one, other: tensors, or lists of numbers, of one shape.
    """
    one, other = (torch.as_tensor(values).detach().double() for values in (one, other))
    assert one.shape == other.shape
    return ((one - other).norm() / other.norm()).item()


def assert_near(one: Any, other: Any, share: float = ROUNDING) -> None:
    """Fail where `one` is more than `share` away from `other`; of two dictionaries, where any of their values is."""
    if not isinstance(other, Mapping):
        one, other = {"": one}, {"": other}
    assert one.keys() == other.keys()
    distances = {name: distance(one[name], other[name]) for name in other}
    assert distances and all(found <= share for found in distances.values()), distances
