"""Pairs and texts as ids: what is cut, split and kept."""

import itertools
import random

import pytest

from common.labels import IGNORE_INDEX
from data.tokens.encoder import NO_ANSWER
from tests.support.token_rows import (
    CHAT,
    TOKENIZERS,
    batch,
    encode,
    encoder,
    runs,
    turns,
)

PAIRS_AT_A_BORDER = [
    ("1 + 2 =", " 3"),
    ("1 + 2 =", "3"),
    ("### Response: ", "The answer is 3."),
    ("### Response:", "Paris"),
    ("Question: hi\nAnswer: ", "  two spaces"),
    ("a\n", "\n\nb"),
    ("日本", "語 🙂"),
    ("foo", "bar"),
    ("", "Once upon a time"),
]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_pair_decodes_to_its_source_and_target(name, request):
    """SentencePiece puts a space before every text; one of its own between source and target is nobody's."""
    tokenizer = request.getfixturevalue("tiny_tokenizer" if name == "tiny" else "tokenizers")
    tokenizer = tokenizer if name == "tiny" else tokenizer(name)
    made = encoder(tokenizer)
    for (source, target), row in zip(PAIRS_AT_A_BORDER, encode(made, *PAIRS_AT_A_BORDER), strict=True):
        without_bos = row["input_ids"][tokenizer.bos_token_id is not None : -1]
        assert tokenizer.decode(without_bos, clean_up_tokenization_spaces=False) == source + target
        # The prompt is what a server would send.
        alone = tokenizer(source)["input_ids"] if source else []
        assert row["input_ids"][: row["prompt_length"]][-len(alone) :] == alone or not source


@pytest.mark.parametrize("name", ["llama-2-hf", "mistral-7b-v0.1"])
def test_an_answer_behind_a_space_has_one(name, tokenizers):
    """The prompt of `plain-turns` ends in a space, and its last token is that space."""
    tokenizer = tokenizers(name)
    (row,) = encode(encoder(tokenizer, template="plain-turns"), turns(*CHAT))
    assert "  是" not in tokenizer.decode(row["input_ids"], clean_up_tokenization_spaces=False)


def test_pairs_are_cut_and_counted(tiny_tokenizer):
    pairs = [("What is it?", "It is so."), ("", "x"), ("long " * 30, "It is so."), ("q", "long " * 30)]
    made = encoder(tiny_tokenizer, 20, 12)
    rows = encode(made, *pairs)
    start, end = tiny_tokenizer.bos_token_id, tiny_tokenizer.eos_token_id
    for row, (source, target) in zip(rows, made.pairs.uncut(*zip(*pairs, strict=True)), strict=True):
        source, target = [start, *source][:20], target + [end] if len(target) < 12 else [*target[:11], end]
        assert row["input_ids"] == source + target
        assert row["labels"] == [IGNORE_INDEX] * len(source) + target
        assert row["prompt_length"] == len(source)
    whole = encode(encoder(tiny_tokenizer), *pairs)
    assert [row["source_cut"] for row in rows] == [0, 0, whole[2]["source_tokens"] - 20, 0]
    assert [row["target_cut"] for row in rows] == [0, 0, 0, whole[3]["target_tokens"] - 12]
    assert encode(encoder(tiny_tokenizer, train_on_source=True), *pairs)[0]["labels"] == whole[0]["input_ids"]


def test_a_pair_with_no_answer_token_left_is_dropped(tiny_tokenizer):
    made = encoder(tiny_tokenizer, 20, 1)
    row, eos = encode(made, ("What?", "It is so."), ("What?", "</s>"))
    assert row["dropped"] == eos["dropped"] == NO_ANSWER
    assert (row["source_cut"], row["target_cut"]) == (row["source_tokens"], row["target_tokens"])
    assert encode(encoder(tiny_tokenizer, 20, 2), ("What?", "It is so."))[0]["supervised"] == 2


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_long_text_is_split_and_nothing_is_lost(name, request):
    tokenizer = request.getfixturevalue("tiny_tokenizer" if name == "tiny" else "tokenizers")
    tokenizer = tokenizer if name == "tiny" else tokenizer(name)
    text = "".join(random.Random(0).choices(["The fox. ", "日本", "🙂", "\n\n", " 0123", "quick "], k=200))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    for limit in [7, 64, *range(len(ids) - 1, len(ids) + 4)]:
        rows = encode(encoder(tokenizer, limit - 3, 3), text)
        assert all(row["input_ids"][: len(bos)] == bos for row in rows)
        pieces = [row["input_ids"][len(bos) :] for row in rows]
        assert list(itertools.chain(*pieces)) == [*ids, tokenizer.eos_token_id]
        assert [run for row in rows for run in runs(row)] == pieces
        assert len(pieces[-1]) > 1, limit  # EOS alone is nothing to learn
        assert len(rows) == -(-(len(ids) + 1) // (limit - len(bos)))
        assert sum(row["target_tokens"] for row in rows) == len(ids) + 1


def test_pieces_stand_between_their_neighbours_with_the_other_columns(tiny_tokenizer):
    made = encoder(tiny_tokenizer, 8, 8)
    columns = made(batch(("q", "a"), "fox " * 30, turns(("user", "u"), ("assistant", "v"))))
    assert columns["file"] == ["f0"] + ["f1"] * (len(columns["file"]) - 2) + ["f2"]
    assert len(columns["file"]) > 4
