"""How far apart results may lie that nothing but rounding tells apart."""

from collections.abc import Mapping
from typing import Any

import torch

# float32 keeps 24 bits, so each product and sum is off by up to 6e-8 of its size. Other instructions, threads, batches
# or paddings add the same numbers up in another order.
ROUNDING = 1e-5
ROUNDING_BF16 = 1e-2  # of bfloat16, which keeps 8 bits: a number is off by up to 4e-3
# Flags of plain descent. Adam divides each gradient by its size, and so makes a whole step of one that is rounding
# alone; and where the loss is flat, as at B = 0 for LoRA's A, all of it is.
DESCENT = ("--optim", "sgd", "--learning_rate", "1.0")


def distance(one: Any, other: Any) -> float:
    """Return the norm of the difference as a share of the norm of `other`; NaN where `other` is zero.

    A share, as rounding grows with the numbers; of the norm, as single numbers that come out near zero are the sums of
    larger ones and carry their rounding.

    Args:
        one, other: tensors, arrays, or lists of numbers, of one shape.
    """
    one, other = (torch.as_tensor(values).detach().to(torch.float64) for values in (one, other))
    assert one.shape == other.shape
    import os

    share_ = ((one - other).norm() / other.norm()).item()
    print(os.environ.get("PYTEST_CURRENT_TEST"), share_, file=open("/tmp/near.txt", "a"))
    return share_


def assert_near(one: Any, other: Any, share: float = ROUNDING) -> None:
    """Fail where `one` is further than `share` from `other`; of dictionaries, where any value is."""
    if isinstance(other, Mapping):
        assert one.keys() == other.keys()
    pairs = {name: (one[name], other[name]) for name in other} if isinstance(other, Mapping) else {"": (one, other)}
    far = {name: share_of for name, pair in pairs.items() if not (share_of := distance(*pair)) <= share}
    assert not far, f"further apart than {share:g}: {far}"
