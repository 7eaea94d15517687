"""Rows as tests write them, encoded, and what every encoded row holds to."""

import itertools
import json

import pytest

from common.labels import IGNORE_INDEX
from data.tokens.encoder import RowEncoder
from data.tokens.pairs import PairEncoder
from data.tokens.templates import choose_template
from tests.support.paths import FIXTURES

TEMPLATES = sorted(path.stem for path in (FIXTURES / "templates").glob("*.jinja"))
REAL_TOKENIZERS = ["gpt-neox-20b", "gpt2", "llama-2-hf", "mistral-7b-v0.1", "qwen1.5"]
TOKENIZERS = ["tiny", *(pytest.param(name, marks=pytest.mark.real_data) for name in REAL_TOKENIZERS)]
MARKS = ["<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<end_of_turn>"]
MARKS += ["<|end|>", "<|assistant|>"]
CHAT = [
    ("user", "What is 2+2?\n"),
    ("assistant", "It is 4."),
    ("user", "It is 4. Sure? 🙂"),
    ("assistant", "是的, 🙂!\n\nYes\tit is  4."),
]


def turns(*pairs, silent=()):
    return [
        {"role": role, "content": content, "supervised": role == "assistant" and number not in silent}
        for number, (role, content) in enumerate(pairs)
    ]


def encoder(tokenizer, source=512, target=512, train_on_source=False, template="default"):
    path = FIXTURES / "templates" / f"{template}.jinja"
    choose_template(tokenizer, str(path) if path.is_file() else template)
    return RowEncoder(PairEncoder(tokenizer, source, target), train_on_source)


def batch(*rows):
    """Columns of rows; a row is (input, output), a text that may be split, or a list of messages."""
    columns = {name: [] for name in ("input", "output", "messages", "tools", "splits", "file")}
    for number, row in enumerate(rows):
        pair = row if isinstance(row, tuple) else ("", row if isinstance(row, str) else "")
        messages = json.dumps(row) if isinstance(row, list) else None
        values = (*pair, messages, None, isinstance(row, str), f"f{number}")
        for name, value in zip(columns, values, strict=True):
            columns[name].append(value)
    return columns


def encode(made, *rows):
    columns = made(batch(*rows))
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    for row in rows:
        for name in ("input_ids", "labels"):
            row[name] = row[name].tolist()
        check(made, row)
    return rows


def check(made, row):
    """What holds for every row."""
    ids, labels, limit = row["input_ids"], row["labels"], made.pairs.limit
    counts = [row[name] for name in ("source_tokens", "source_cut", "target_tokens", "target_cut")]
    assert counts[0] - counts[1] + counts[2] - counts[3] == row["length"] == len(ids) == len(labels) <= limit
    assert min(counts) >= 0
    assert all(label in (token, IGNORE_INDEX) for token, label in zip(ids, labels, strict=True))
    assert row["supervised"] == sum(label != IGNORE_INDEX for label in labels)
    assert (row["dropped"] is None) == bool(ids)
    if ids and made.tokenizer.bos_token_id is not None:
        assert ids[0] == made.tokenizer.bos_token_id


def runs(row):
    """The supervised stretches of a row, as lists of ids."""
    pairs = zip(row["input_ids"], row["labels"], strict=True)
    grouped = itertools.groupby(pairs, key=lambda pair: pair[1] != IGNORE_INDEX)
    return [[token for token, _ in run] for supervised, run in grouped if supervised]


def templates_for(tokenizer):
    """Llama 2's template writes bos_token whether there is one or not."""
    return [name for name in ["default", *TEMPLATES] if tokenizer.bos_token or name != "llama-2-chat"]
