"""How flags are declared, checked and parsed, and how they are answered before torch is loaded.

The flags themselves are in `arguments.training`.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from enum import Enum
from typing import Any, get_args, get_type_hints

from arguments.declare import ArgumentsError, require

# Packages that transformers probes for while its training arguments are imported; each costs seconds to load.
HEAVY_PACKAGES = {"torch", "accelerate", "peft", "bitsandbytes", "datasets", "sklearn", "scipy", "pandas"}

# Modules without which no run gets far, and whose absence libraries report in their own strange ways.
NEEDED_MODULES = (
    "torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors", "tokenizers", "datasets", "pyarrow",
    "numpy", "jinja2",
)  # fmt: skip

USAGE = "python qlora.py --model_name_or_path PATH_OR_NAME [--dataset PATH_OR_NAME] [--output_dir DIR] [flags]"
EXAMPLES = """examples:
  python qlora.py --model_name_or_path Qwen/Qwen3-0.6B --dataset my.jsonl --max_steps 500 --output_dir output/mine
  (the same command again goes on from the last checkpoint)
  python qlora.py … --do_train False --do_predict --output_dir output/mine     (predictions.jsonl)"""


def check_installed() -> None:
    """Refuse to begin without a package that every run needs; none is imported."""
    missing = [module for module in NEEDED_MODULES if importlib.util.find_spec(module) is None]
    require(not missing, f"not installed: {', '.join(missing)}. Run: pip install -r requirements.txt")


# ---- Parsing -------------------------------------------------------------------------------------------------------


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind each flag, the examples as they are written."""


def make_parser(types: Sequence[type], **texts: str) -> Any:
    """An `HfArgumentParser` of dataclasses that raises `ArgumentsError` instead of exiting.

    Every boolean may be given bare or with a value: `--flag`, `--flag True`, `--flag False`.
    """
    from transformers.hf_argparser import HfArgumentParser, string_to_bool

    class Parser(HfArgumentParser):
        def error(self, message: str):
            raise ArgumentsError(message)

    parser = Parser(types, prog="qlora.py", formatter_class=HelpFormatter, allow_abbrev=False, **texts)
    choices = {name: values for kind in types for name, values in inherited_choices(kind).items()}
    for action in parser._actions:
        if action.type is string_to_bool and action.nargs is None:  # as the library leaves `bool | None`
            action.nargs, action.const = "?", True
        if action.type is str and action.dest in choices:
            action.choices = choices[action.dest]
        if isinstance(action.type, type) and issubclass(action.type, Enum):  # for a message that names the choices
            action.type, action.choices = str, [member.value for member in action.type]
    return parser


def inherited_choices(arguments: type) -> dict[str, list[str]]:
    """Field → values of the enum that a parent class declares for it, and that a plain `str` here would lose."""
    choices = {}
    for parent in filter(is_dataclass, arguments.__mro__[1:]):
        for name, hint in get_type_hints(parent).items():
            for kind in get_args(hint):
                if isinstance(kind, type) and issubclass(kind, Enum):
                    choices[name] = [member.value for member in kind]
    return choices


def parse_known(parser: Any, argv: Sequence[str], replaced: Mapping[str, str]) -> tuple[Any, ...]:
    """One instance of each dataclass of `parser`.

    Args:
        replaced: flags of other versions, without dashes → what to do instead.

    Raises:
        ArgumentsError: an unknown flag (the nearest one is named), a bad value, or what a dataclass refuses.
    """
    *parsed, extra = parser.parse_args_into_dataclasses(
        args=list(argv), return_remaining_strings=True, look_for_args_file=False
    )
    if extra:
        raise ArgumentsError(unknown_flag(extra[0], parser._option_string_actions, replaced))
    return tuple(parsed)


def unknown_flag(found: str, known: Mapping[str, argparse.Action], replaced: Mapping[str, str]) -> str:
    """What to tell someone who wrote `found`."""
    name = found.partition("=")[0]
    if not found.startswith("-") and not re.match(r"[\w.]+=", found):
        return f"unexpected argument {found!r}: every value needs a flag in front of it, like --dataset {found}."
    if f"--{name}" in known:
        return f"unexpected argument {found!r}: a flag begins with two dashes, as in --{found}."
    key = re.sub(r"[-.]", "_", name.lstrip("-"))
    flags = {flag.lstrip("-").replace("-", "_"): action for flag, action in known.items()}
    instead = replaced.get(key) or switched_off(key, flags)
    text = f"no flag {name} here: {instead}." if instead else f"unknown flag {name}. {nearest(key, flags, replaced)}"
    return f"{text} All flags: python qlora.py --help"


def switched_off(key: str, flags: Mapping[str, argparse.Action]) -> str | None:
    """How to say `no_key`, where key is a flag that is on or off."""
    name = key.removeprefix("no_")
    return f"use --{name} False" if name != key and name in flags and flags[name].const is True else None


def nearest(key: str, flags: Iterable[str], replaced: Mapping[str, str]) -> str:
    """Which flag may be meant, of those here or else of other tools."""
    near = near_flags(key, flags)
    if near:
        return f"Did you mean {' or '.join(f'--{flag}' for flag in near)}?"
    other = next(iter(slips(key, replaced)), None)
    return f"For --{other} of other tools: {replaced[other]}." if other else "Nothing here has a similar name."


def near_flags(name: str, flags: Iterable[str]) -> list[str]:
    """The flags that `name` is a slip of, or else begins, or has at least two words of and none besides; at most 3."""
    words = set(name.split("_"))
    near = slips(name, flags) or [flag for flag in flags if len(name) > 3 and flag.startswith(name)]
    near = near or [flag for flag in flags if len(words) > 1 and words <= set(flag.split("_"))]
    return sorted(near) if len(near) <= 3 else []


def slips(name: str, names: Iterable[str]) -> list[str]:
    """The nearest of `names` that differ from `name` by a letter or two: one in five of a word, but at least one."""
    distances = {}
    for other in names if len(name) > 2 else ():
        ours, theirs = name.lower().split("_"), other.lower().split("_")
        if len(ours) != len(theirs):
            ours, theirs = [name.lower()], [other.lower()]
        by_word = [edit_distance(word, twin) for word, twin in zip(ours, theirs, strict=True)]
        if all(distance <= max(1, len(word) // 5) for word, distance in zip(ours, by_word, strict=True)):
            distances[other] = sum(by_word)
    return [other for other, distance in distances.items() if distance == min(distances.values())]


def edit_distance(first: str, second: str) -> int:
    """Letters to add, drop, replace or swap with their neighbour, to make `second` of `first`.

    Source: https://en.wikipedia.org/wiki/Damerau-Levenshtein_distance (optimal string alignment). To import nltk's
    takes 0.8 s, of the two in which a mistyped flag is to be refused.
    """
    before, last = [], list(range(len(second) + 1))  # the rows above the present one
    for row, letter in enumerate(first, 1):
        present = [row]
        for column, other in enumerate(second, 1):
            cost = min(last[column] + 1, present[column - 1] + 1, last[column - 1] + (letter != other))
            swapped = row > 1 and column > 1 and first[row - 2] == other and letter == second[column - 2]
            present.append(min(cost, before[column - 2] + 1) if swapped else cost)
        before, last = last, present
    return last[-1]


# ---- Answering early -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def without_heavy_packages() -> Iterator[None]:
    """Import parts of transformers as if torch and its company were not installed, then forget them.

    `Seq2SeqTrainingArguments` takes 8 s to import because it pulls in torch, peft and bitsandbytes; with the
    availability probes answered "no", and past the package's own `__init__` (1 s), it takes 0.4 s. All that was
    imported that way is dropped again, so that the run itself gets the real modules.
    """
    real = forget_transformers()
    package = importlib.util.module_from_spec(importlib.util.find_spec("transformers"))
    package.__version__ = importlib.metadata.version("transformers")
    sys.modules["transformers"] = package
    try:
        import_utils = importlib.import_module("transformers.utils.import_utils")
        probe = import_utils._is_package_available

        def light(name: str, *args: Any, **kwargs: Any) -> tuple[bool, str]:
            found, version = probe(name, *args, **kwargs)
            return found and name not in HEAVY_PACKAGES, version

        import_utils._is_package_available = light
        for function in vars(import_utils).values():
            if hasattr(function, "cache_clear"):
                function.cache_clear()
        yield
    finally:
        forget_transformers()
        sys.modules.update(real)


def forget_transformers() -> dict[str, Any]:
    """Take every module of transformers out of `sys.modules`; gives what was there."""
    names = [name for name in sys.modules if name.partition(".")[0] == "transformers"]
    return {name: sys.modules.pop(name) for name in names}
