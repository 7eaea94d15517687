"""Rows as the model will see them: every token, the supervised ones marked, special tokens with their ids.

    print(preview(train_dataset, tokenizer, 3))

The text is cut out of the one decoded row, so a character whose bytes are spread over tokens, and the space that
SentencePiece keeps in a token, come out as they are.
"""

import os
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from common.labels import IGNORE_INDEX

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

OPEN, CLOSE = "⟦", "⟧"
SUPERVISED, SPECIAL, RESET = "1;32", "4", "\x1b[0m"  # bold green; underlined
SPACES = {"\n": "↵\n", "\t": "⇥\t"}
LONGEST_RUN = 3000  # characters; of a longer run the start and the end are shown
# Joiners hold an emoji or a letter together; other format characters are invisible, or turn the text around.
JOINERS = "\u200c\u200d"


class Run(NamedTuple):
    """Consecutive tokens, all supervised or none; or one special token, by its id."""

    text: str
    supervised: bool
    special: int | None = None


def preview(dataset: "Dataset", tokenizer: "PreTrainedTokenizerBase", count: int, colour: bool | None = None) -> str:
    """Return the first `count` rows as text, after a legend.

    Args:
        dataset: tokenized rows with `input_ids`, `labels`, `source_cut`, `target_cut`, `file`, `place`.
        tokenizer: the one that made them.
        count: rows to show; fewer where there are fewer.
        colour: mark with colour instead of brackets; None: where the output is a terminal and NO_COLOR is not set
            (https://no-color.org).
    """
    if colour is None:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    parts = [_legend(tokenizer, colour)]
    for index in range(min(count, len(dataset))):
        row = dataset[index]
        parts += ["", f"── row {index + 1:,} of {len(dataset):,}: {_header(row)}", show_row(row, tokenizer, colour)]
    return "\n".join(parts)


def show_row(row: Mapping, tokenizer: "PreTrainedTokenizerBase", colour: bool) -> str:
    """Return one row: supervised runs in bold green or brackets, special tokens as token·id·, controls escaped.

    Line breaks are shown as ↵ before the break itself, and tabs as ⇥. The middle of a run of more than LONGEST_RUN
    characters is left out, and that is said.
    """
    parts = []
    for supervised, runs in groupby(split_runs(row["input_ids"], row["labels"], tokenizer), lambda run: run.supervised):
        texts = [_paint(run, _escape(run, colour)) if colour else _escape(run, colour) for run in runs]
        parts += [OPEN, *texts, CLOSE] if supervised and not colour else texts
    return "".join(parts)


def split_runs(ids: Sequence[int], labels: Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> list[Run]:
    """Return the runs of a row; their texts, joined, are the decoded row.

    Each starts where the decoded row and the decoded tokens before it part: a character of which the bytes are on both
    sides goes to the second run.
    """
    special = _special_ids(tokenizer)

    def kind(place: int) -> tuple[bool, int | None]:
        """Return what neighbours in one run have in common; a special token has its place, as it is a run by itself."""
        return labels[place] != IGNORE_INDEX, place if ids[place] in special else None

    text = _decode(tokenizer, ids)
    runs, start = [], 0
    for (supervised, special_place), places in groupby(range(len(ids)), kind):
        *_, last = places
        end = max(start, len(os.path.commonprefix([_decode(tokenizer, ids[: last + 1]), text])))
        runs.append(Run(text[start:end], supervised, None if special_place is None else ids[special_place]))
        start = end
    return runs


def _decode(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> str:
    # Cleaning up would take away the spaces before punctuation that the model does see.
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _special_ids(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """Return the ids that are no text of a vocabulary: special tokens, and added ones other than white space."""
    added = {token for token, text in tokenizer.added_tokens_decoder.items() if str(text).strip()}
    return added | set(tokenizer.all_special_ids)


def _escape(run: Run, colour: bool) -> str:
    """Return the text of a run so that it is safe to print, and nothing in it passes for a mark."""
    text = run.text
    if len(text) > LONGEST_RUN:
        half = LONGEST_RUN // 2
        omission = f"\n… {len(text) - 2 * half:,} characters not shown …\n"
        return _visible(text[:half], colour) + omission + _visible(text[-half:], colour)
    return _visible(text, colour) + ("" if run.special is None else f"·{run.special}·")


def _visible(text: str, colour: bool) -> str:
    def show(match: re.Match) -> str:
        character = match[0]
        if character in SPACES:
            return SPACES[character]
        is_invisible = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in JOINERS
        is_mark = not colour and character in OPEN + CLOSE
        return character.encode("unicode_escape").decode() if is_invisible or is_mark else character

    return re.sub(r"[^ -~]", show, text)


def _paint(run: Run, text: str) -> str:
    """Return the text of a run in the terminal's codes for what it is."""
    codes = ";".join([SUPERVISED] * run.supervised + [SPECIAL] * (run.special is not None))
    # Each line is painted by itself, as pagers forget the colour at the end of a line.
    return "\n".join(f"\x1b[{codes}m{line}{RESET}" if codes and line else line for line in text.split("\n"))


def _header(row: Mapping) -> str:
    """Return where a row stands, how long it is, and what was cut from it."""
    supervised = sum(label != IGNORE_INDEX for label in row["labels"])
    cuts = [f"{row[part + '_cut']:,} cut from the {part}" for part in ("source", "target") if row[part + "_cut"]]
    where = f"{_visible(str(row['file']), True)}, {row.get('unit', 'line')} {row['place']}"
    return f"{where}: {len(row['input_ids']):,} tokens, {supervised:,} supervised, {', '.join(cuts) or 'nothing cut'}"


def _legend(tokenizer: "PreTrainedTokenizerBase", colour: bool) -> str:
    tokens = []
    for name in ("bos", "eos", "pad", "unk"):
        token, text = getattr(tokenizer, f"{name}_token_id"), getattr(tokenizer, f"{name}_token")
        tokens.append(f"no {name}" if token is None else f"{name} {_visible(text, colour)}·{token}·")
    mark = _paint(Run("", True), "bold green") if colour else f"{OPEN}brackets{CLOSE}"
    return (
        f"{mark}: supervised, what the model learns to write; ↵: a line break; ⇥: a tab\n"
        f"special tokens, as token·id·: {', '.join(tokens)}"
    )
