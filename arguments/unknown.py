"""What to tell someone who wrote a flag that there is not: the flag that is near, or what another tool's flag is here.

    unknown_flag("--lerning_rate", {"--learning_rate": action})   # "unknown flag --lerning_rate. Did you mean …?"

Flags of other tools, and what to do here instead, are in `arguments/other_tools.toml`.
"""

import argparse
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

OTHER_TOOLS = Path(__file__).with_name("other_tools.toml")


def replaced_flags() -> dict[str, str]:
    """Return each flag of other tools, without dashes → what to do here instead."""
    advice = tomllib.loads(OTHER_TOOLS.read_text(encoding="utf-8"))
    return {name: instead for instead, names in advice.items() for name in names.split()}


def unknown_flag(word: str, flags: Mapping[str, argparse.Action]) -> str:
    """Return what to tell someone who wrote `word`, which is none of these flags."""
    name, replaced = word.partition("=")[0], replaced_flags()
    if not word.startswith("-") and not re.match(r"[\w.]+=", word):
        return f"unexpected argument {word!r}: every value needs a flag in front of it, like --dataset {word}."
    if f"--{name}" in flags:
        return f"unexpected argument {word!r}: a flag begins with two dashes, as in --{word}."
    key = re.sub(r"[-.]", "_", name.lstrip("-"))
    by_key = {flag.lstrip("-").replace("-", "_"): action for flag, action in flags.items()}
    instead = replaced.get(key) or switched_off(key, by_key)
    text = f"no flag {name} here: {instead}." if instead else f"unknown flag {name}. {nearest(key, by_key, replaced)}"
    return f"{text} All flags: python qlora.py --help"


def switched_off(key: str, flags: Mapping[str, argparse.Action]) -> str | None:
    """Return how to say `no_key`, where key is a flag that is on or off."""
    name = key.removeprefix("no_")
    return f"use --{name} False" if name != key and name in flags and flags[name].const is True else None


def nearest(key: str, flags: Iterable[str], replaced: Mapping[str, str]) -> str:
    """Return which flag may be meant, of those here or else of other tools."""
    near = near_flags(key, flags)
    if near:
        return f"Did you mean {' or '.join(f'--{flag}' for flag in near)}?"
    other = next(iter(slips(key, replaced)), None)
    return f"For --{other} of other tools: {replaced[other]}." if other else "Nothing here has a similar name."


def near_flags(name: str, flags: Iterable[str]) -> list[str]:
    """Return at most 3 flags that `name` is a slip of, or else begins, or has two words or more of and no other."""
    words = set(name.split("_"))
    near = slips(name, flags) or [flag for flag in flags if len(name) > 3 and flag.startswith(name)]
    near = near or [flag for flag in flags if len(words) > 1 and words <= set(flag.split("_"))]
    return sorted(near) if len(near) <= 3 else []


def slips(name: str, names: Iterable[str]) -> list[str]:
    """Return the nearest of `names` that differ from `name` by a letter in five of a word, but at least by one."""
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
    """Return letters to add, drop, replace or swap with their neighbour, to make `second` of `first`.

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
