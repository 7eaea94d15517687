"""How a flag is declared, and how its value is checked.

    bits: int = option(4, "Bits a base weight is held in.", choices=(4, 8, 16, 32), affects="base")

A declaration says all there is to know of a flag: help, default, choices, range, other spellings, and what it decides.
`check_values` holds every value to it; `require` states the rules that tie several flags together.
"""

import importlib.util
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import MISSING, Field, field, fields
from typing import Any

from common.errors import RequestError

# What a flag may decide. Checkpoints record the flags that decide something, and a command that goes on from one is
# held to them: see `training.checkpoint.same_run`.
AFFECTS = {
    "base": "which weights the adapter stands on, and how they compute",
    "text": "how a row becomes tokens",
    "split": "which rows are held out of training, and how the others are mixed",
    "rows": "which of the others are trained on, and in which order",
    "adapter": "which weights are trained",
    "optimizer": "what the saved optimizer and schedule hold",
    "training": "how a step is computed, and which weights are kept",
    "best": "the same where the best checkpoint, or a schedule, goes by evaluations",
}
Rule = tuple[str, Callable[[Any], bool]]  # what a value must be, in words, and its test

AT_LEAST_1: Rule = ("1 or more", lambda n: n >= 1)
ABOVE_0: Rule = ("more than 0", lambda x: x > 0)
NOT_BELOW_0: Rule = ("0 or more", lambda x: x >= 0)
BELOW_1: Rule = ("from 0 to below 1", lambda x: 0 <= x < 1)
SEED: Rule = ("from 0 to 4294967295", lambda n: 0 <= n < 2**32)
FINITE: Rule = ("any", lambda x: True)


class ArgumentsError(RequestError):
    """A command line that cannot be served as written."""


class Metadata(dict):
    """What a declaration holds; walked through, as `HfArgumentParser` does, it shows what argparse knows alone."""

    def keys(self) -> list[str]:
        """Return the names of what `add_argument` takes."""
        return [name for name in self if name not in ("affects", "choices", "rule", "only", "reads")]


def option(
    default: Any,
    text: str,
    *,
    affects: str | None = None,
    choices: Sequence[Any] = (),
    rule: Rule | None = None,
    only: str = "",
    reads: Callable[[str, Any], Any] | None = None,
    **argparse: Any,
) -> Any:
    """Return the dataclass field of a flag.

    Args:
        default: its value where the command line does not name it; a list is copied.
        text: help, with the unit; argparse puts the default behind it.
        affects: what it decides, a name of AFFECTS; None where no weight depends on it.
        choices: all the values it may have, besides None where that is the default.
        rule: what a number must be, besides finite.
        only: why no other value than the default is possible here.
        reads: (flag and value as written, value) → the value that a text stands for.
        argparse: what `add_argument` is told too: aliases, nargs, const.
    """
    if affects is not None and affects not in AFFECTS:
        raise ValueError(f"affects={affects!r} is none of {', '.join(AFFECTS)}")
    ours = {"affects": affects, "choices": tuple(choices), "rule": rule, "only": only, "reads": reads}
    metavar = {"metavar": "{" + ",".join(map(str, choices)) + "}"} if choices else {}
    metadata = Metadata(help=text, **metavar, **argparse, **ours)
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def affects(*arguments: Any) -> dict[str, str]:
    """Return the flags of dataclasses that decide something, each with what it decides."""
    flags = [flag for one in arguments for flag in fields(one)]
    return {flag.name: flag.metadata["affects"] for flag in flags if flag.metadata["affects"]}


def default_of(flag: Field) -> Any:
    """Return the value of a flag that the command line does not name."""
    return flag.default if flag.default_factory is MISSING else flag.default_factory()


def check_values(arguments: Any) -> None:
    """Read every value of a dataclass of flags, and hold it to its declaration.

    Raises:
        ArgumentsError: naming the flag, its value, and what is allowed.
    """
    for flag in fields(arguments):
        value, default = getattr(arguments, flag.name), default_of(flag)
        if flag.metadata["reads"] is not None:
            value = flag.metadata["reads"](f"--{flag.name} {value}", value)
            settle(arguments, **{flag.name: value})
        choices, rule, only = (flag.metadata[name] for name in ("choices", "rule", "only"))
        if choices:
            require_choice(flag.name, value, (*choices, None) if default is None else choices)
        if rule is not None and value is not None:
            require(math.isfinite(value), f"--{flag.name} {value}: must be a finite number, {rule[0]}.")
            require(rule[1](value), f"--{flag.name} {value}: must be {rule[0]}.")
        if only:
            require(value == default, f"--{flag.name} {value}: {only}; only {default} is possible here.")


def settle(arguments: Any, **values: Any) -> None:
    """Give a frozen dataclass the values that its command line stands for, before anybody else has seen it."""
    for name, value in values.items():
        object.__setattr__(arguments, name, value)


def require(condition: bool, message: str) -> None:
    """Raise ArgumentsError with `message` unless `condition` holds."""
    if not condition:
        raise ArgumentsError(message)


def require_choice(name: str, value: Any, allowed: Collection[Any]) -> None:
    """Refuse a value of flag `name` that is none of `allowed`."""
    choices = ", ".join(str(choice) for choice in allowed if choice is not None)
    require(value in allowed, f"--{name} {value}: allowed are {choices}.")


def require_package(flag: str, *modules: str) -> None:
    """Refuse `flag` where none of `modules` is installed; none of them is imported."""
    installed = any(importlib.util.find_spec(module) is not None for module in modules)
    require(installed, f"{flag} needs the package {' or '.join(modules)}, which is not installed.")
