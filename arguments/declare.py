"""How a flag is declared and its value checked.

bits: int = option(4, "Bits a base weight is held in: 4, 8, 16 or 32.")
require(bits in (4, 8, 16, 32), f"--bits {bits}: allowed are 4, 8, 16, 32.")
"""

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any

from common.errors import RequestError


class ArgumentsError(RequestError):
    """A command line that cannot be served as written."""


def option(default: Any, text: str, **metadata: Any) -> Any:
    """A dataclass field with its help text (unit and choices included) and extra argparse metadata."""
    return field(default=default, metadata={"help": text, **metadata})


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ArgumentsError(message)


def require_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    shown = ", ".join(str(choice) for choice in allowed if choice is not None)
    require(value in allowed, f"--{name} {value}: allowed are {shown}.")


def require_range(args: Any, allowed: str, test: Callable[[Any], bool], *names: str) -> None:
    """Refuse each named field that is set and is not finite or fails `test`; `allowed` says the rule in words."""
    for name in names:
        value = getattr(args, name)
        if value is not None:
            require(math.isfinite(value), f"--{name} {value}: must be a finite number, {allowed}.")
            require(test(value), f"--{name} {value}: must be {allowed}.")


def require_package(flag: str, *modules: str) -> None:
    """Refuse `flag` where none of `modules` is installed; none of them is imported."""
    found = any(importlib.util.find_spec(module) is not None for module in modules)
    require(found, f"{flag} needs the package {' or '.join(modules)}, which is not installed.")
