"""MMLU's prompt files, their prompts as token ids, and which tokens answer them.

    rows = load_mmlu("mmlu-fs", "eval", limit=200)
    letters = letter_tokens(tokenizer)
    prompts = encode_prompts(tokenizer, [row["input"] for row in rows], letters, max_tokens=2048)

Source: https://arxiv.org/abs/2009.03300
"""

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import DataError
from data.mmlu.prompts import LETTERS
from eval.mmlu.subjects import GROUPS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MMLU_DIRECTORY = Path(__file__).resolve().parents[2] / "data" / "mmlu"
SHOTS = {"mmlu-zs": "zero", "mmlu-fs": "five"}
SPLITS = {"eval": "val", "test": "test"}
ANSWER = "Answer:"
# What stands behind accuracy_ in the names of other metrics.
NO_SUBJECTS = {"low", "high", "questions", "groups", "groups_low", "groups_high", *(f"group_{name}" for name in GROUPS)}
ENCODED_AT_A_TIME = 256
# Where the header ends, and where each example with its answer does.
BOUNDARY = re.compile(r"\A[^\n]*\n\n|(?<=\nAnswer: [A-D])\n\n")


@dataclass(frozen=True)
class LetterTokens:
    """Token ids that continue "Answer:".

    Attributes:
        lead: those between it and the letter, the same for every letter; none where the letter's holds the space.
        ids: one for each of A, B, C and D.
        alike: whether all four follow the same lead.
    """

    lead: tuple[int, ...]
    ids: tuple[int, ...]
    alike: bool = True


@dataclass(frozen=True)
class Prompt:
    """One question as the model reads it.

    Attributes:
        ids: BOS, what is kept of the examples, the question, and the lead of the letters.
        examples: the text before the question that is kept; prompts that have it in common begin alike.
        cut: whether something before it was not.
        longer: whether it is over the limit all the same.
    """

    ids: list[int]
    examples: str
    cut: bool = False
    longer: bool = False


def prompt_file(dataset: str, split: str) -> Path:
    """Return the file of a named data set and split, or the file that `dataset` itself names, of whichever split it is.

    Raises:
        DataError: there is none.
    """
    if dataset not in SHOTS:
        if not Path(dataset).is_file():
            what = "a directory" if Path(dataset).is_dir() else "no such file"
            raise DataError(f"--mmlu_dataset {dataset}: {what}; give mmlu-fs, mmlu-zs or a file of their shape.")
        return Path(dataset)
    path = MMLU_DIRECTORY / f"{SHOTS[dataset]}_shot_mmlu_{SPLITS[split]}.json"
    if not path.is_file():
        raise DataError(
            f"--do_mmlu_eval: there is no {path.name} in {path.parent}. Make it with: python data/mmlu/prepare.py "
            "--hub (or --csv DIR, the official files); or leave --do_mmlu_eval out."
        )
    return path


def load_mmlu(dataset: str, split: str, limit: int | None = None, seed: int = 42) -> list[dict[str, str]]:
    """Read the prompts of a split: one JSON object a line with `subject`, `input` (the prompt) and `output` (a letter).

    `limit` keeps a seeded sample that has as many questions of one subject as of another, in the file's order.

    Raises:
        DataError: the file is not there, or has a line that is not such an object.
    """
    path = prompt_file(dataset, split)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8; save the file in UTF-8") from error
    if not text.strip():
        raise DataError(f"{path} is empty: it needs an object with subject, input and output on each line")
    rows = [read_row(line, f"{path}, line {n}") for n, line in enumerate(text.removesuffix("\n").split("\n"), start=1)]
    return rows if limit is None else [rows[index] for index in spread([row["subject"] for row in rows], limit, seed)]


def read_row(line: str, place: str) -> dict[str, str]:
    """Return the object of one line of a prompt file.

    Raises:
        DataError: it is not such a line; begins with `place`.
    """
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{place}, column {error.colno}: not valid JSON: {error.msg}. data/mmlu/prepare.py makes prompt files of "
            "MMLU's CSV files (see data/mmlu/README.md)"
        ) from error
    names = ("subject", "input", "output")
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in names):
        raise DataError(f"{place}: not an object whose {', '.join(names)} are texts (see data/mmlu/README.md)")
    if not row["input"].endswith(ANSWER):
        raise DataError(
            f"{place}: the prompt ends in {row['input'][-20:]!r}; it must end in {ANSWER!r}, for the letter"
        )
    try:
        row["input"].encode()
    except UnicodeEncodeError as error:
        half = "the prompt holds half a character (\\ud800 to \\udfff alone), which is no text"
        raise DataError(f"{place}: {half}") from error
    if row["subject"] in NO_SUBJECTS:
        raise DataError(
            f"{place}: subject {row['subject']!r} is the name of another metric (mmlu_eval_accuracy_{row['subject']}); "
            "give it another name"
        )
    if row["output"].strip() not in LETTERS:
        raise DataError(f"{place}: output {row['output']!r} is none of {', '.join(LETTERS)}")
    return {"subject": row["subject"], "input": row["input"], "output": row["output"].strip()}


def spread(subjects: Sequence[str], limit: int, seed: int) -> list[int]:
    """Return the indices of `limit` rows at most, in order, as evenly over the subjects as these have rows."""
    generator = random.Random(seed)
    by_subject = defaultdict(list)
    for index, subject in enumerate(subjects):
        by_subject[subject].append(index)
    ranked = []
    for indices in by_subject.values():
        generator.shuffle(indices)
        ranked += [(rank, generator.random(), index) for rank, index in enumerate(indices)]
    return sorted(index for *_, index in sorted(ranked)[:limit])


def letter_tokens(tokenizer: "PreTrainedTokenizerBase") -> LetterTokens:
    """Return the tokens that really follow "Answer:", with their space where the tokenizer joins it.

    A small vocabulary may join the space with some letters and not with others (▁B, but ▁ and A): there is no one token
    then that leads to all four, and each letter's last token is scored behind "Answer:" itself.

    Raises:
        DataError: they are not four distinct tokens, or a letter changes how "Answer:" itself is split.
    """
    before = tokenizer(ANSWER, add_special_tokens=False)["input_ids"]
    whole = [tokenizer(f"{ANSWER} {letter}", add_special_tokens=False)["input_ids"] for letter in LETTERS]
    if any(row[: len(before)] != before for row in whole):
        raise DataError(f'this tokenizer joins "{ANSWER}" with the letter behind it: no MMLU scores')
    ids = [row[-1] for row in whole]
    if len(set(ids)) != len(LETTERS):
        raise DataError(f"this tokenizer has no token of its own for each of A, B, C and D (ids {ids}): no MMLU scores")
    leads = {tuple(row[len(before) : -1]) for row in whole}
    alike = len(leads) == 1
    return LetterTokens(leads.pop() if alike else (), tuple(ids), alike)


def common_length(rows: Sequence[Sequence[int]]) -> int:
    """Return how many first ids all rows have in common."""
    first, last = min(rows), max(rows)  # what these two share, all that sort between them share
    return next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def split_prompt(text: str) -> list[str]:
    """Return the header, each example with its answer, and last the question; together they are `text`."""
    ends = [match.end() for match in BOUNDARY.finditer(text)]
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


def encode_prompts(
    tokenizer: "PreTrainedTokenizerBase",
    texts: Sequence[str],
    letters: LetterTokens,
    max_tokens: int,
    positions: int | None = None,
) -> list[Prompt]:
    """Return prompts as token ids, cut from the left to `max_tokens`, BOS included: examples first, questions never.

    Examples go whole: no model is asked to go on from half of one, and what is left depends on the prompt alone.

    Args:
        positions: how many a model has at most, where it has a table of them; None where it computes them.

    Raises:
        DataError: a question alone takes more than `positions`.
    """
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    limit = max_tokens if positions is None else min(max_tokens, positions)
    around = len(bos) + len(letters.lead)
    prompts = []
    for text, ids in zip(texts, encode_texts(tokenizer, texts), strict=True):
        parts = whole_parts = split_prompt(text)
        while around + len(ids) > limit and len(parts) > 1:
            parts = parts[1:]
            ids = tokenizer("".join(parts), add_special_tokens=False, verbose=False)["input_ids"]
        whole = bos + ids + list(letters.lead)
        if positions is not None and len(whole) > positions:
            raise DataError(
                f"an MMLU question takes {len(whole)} tokens, and this model has {positions} positions: it cannot be "
                f"scored. The question: {parts[-1][:80]!r}…"
            )
        cut, longer = len(parts) < len(whole_parts), len(whole) > limit
        prompts.append(Prompt(whole, "".join(parts[:-1]), cut, longer))
    return prompts


def encode_texts(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> Iterator[list[int]]:
    """Yield the token ids of each text, some hundred at a time: encodings take many times the room of their ids."""
    from tqdm import tqdm

    for start in tqdm(range(0, len(texts), ENCODED_AT_A_TIME), desc="MMLU prompts", delay=3, leave=False):
        batch = list(texts[start : start + ENCODED_AT_A_TIME])
        # Not verbose: a prompt that is longer than the model was made for is said of all together.
        yield from tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]
