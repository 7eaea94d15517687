"""Which of how many processes this one is, as torchrun and other launchers tell them.

    rank(), processes()      # 0 and 1 without a launcher

https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables
"""

import os


def processes() -> int:
    """Return how many processes there are, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process among all of them."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int | None:
    """Return the number of this process on its machine, or None where no launcher started it."""
    number = os.environ.get("LOCAL_RANK")
    return None if number is None else int(number)
