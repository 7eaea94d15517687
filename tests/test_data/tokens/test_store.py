"""Tokens that are kept on the disk, and when they are made anew."""

import itertools
import json
import zlib

import pytest

from common.errors import DataError
from data.batches.collator import DataCollatorForCausalLM
from data.tokens.encoder import NO_ANSWER, RowEncoder
from data.tokens.store import column, tokenize
from tests.support.token_rows import (
    batch,
    encoder,
    turns,
)


@pytest.fixture
def rows_of():
    """A function: pairs → a data set with the columns of `data.rows`."""
    import datasets

    def make(*pairs, file="f.jsonl", fields="{}", splits=False):
        rows = batch(*pairs) | {
            "fields": [fields] * len(pairs),
            "splits": [splits] * len(pairs),
            "place": list(range(1, len(pairs) + 1)),
        }
        rows["file"] = [file] * len(pairs)
        rows["key"] = [zlib.crc32(str(pair).encode()) for pair in pairs]
        strings = {name: datasets.Value("large_string") for name in ("input", "output", "messages", "tools", "fields")}
        others = {"splits": datasets.Value("bool"), "place": datasets.Value("int64"), "key": datasets.Value("int64")}
        features = datasets.Features(strings | others | {"file": datasets.Value("string")})
        return datasets.Dataset.from_dict({name: rows[name] for name in features}, features=features)

    return make


class Counted(RowEncoder):
    """A row encoder that counts the batches it is given."""

    calls = 0

    def __call__(self, rows):
        type(self).calls += 1
        return super().__call__(rows)


PAIRS = [(f"question {n}", f"answer {n} " * n) for n in range(12)]


@pytest.fixture
def cached(rows_of, tmp_path, monkeypatch, _tiny_tokenizer_text):
    """A function: changes → how many batches were encoded to get the rows."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    lengths = itertools.count(3)

    def get(pairs=PAIRS, source=64, target=32, train_on_source=False, template="default", text=None, **changed):
        backend = Tokenizer.from_str(text or _tiny_tokenizer_text)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
        made = encoder(tokenizer, source, target, train_on_source, template)
        monkeypatch.setattr(Counted, "calls", 0)
        tokenizer("a", truncation=True, max_length=next(lengths))  # settings of a call, which are not the tokenizer's
        rows, dropped = tokenize(rows_of(*pairs, **changed), Counted(made.pairs, train_on_source), tmp_path)
        assert len(rows) + len(dropped) == len(pairs)
        return Counted.calls

    return get


def test_the_same_rows_are_read_from_the_disk(cached):
    assert cached() == 1
    assert cached() == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"pairs": [*PAIRS[:-1], ("question", "another")]},
        {"pairs": PAIRS[::-1]},
        {"pairs": PAIRS[:-1]},
        {"file": "g.jsonl"},
        {"fields": '{"id": 1}'},
        {"splits": True},
        {"source": 63},
        {"target": 31},
        {"train_on_source": True},
        {"template": "chatml"},
    ],
)
def test_whatever_changes_the_ids_changes_the_key(cached, changed):
    cached()
    assert cached(**changed) == 1
    assert cached() == cached(**changed) == 0


def test_another_tokenizer_or_code_changes_the_key(cached, monkeypatch, _tiny_tokenizer_text):
    cached()
    state = json.loads(_tiny_tokenizer_text)
    state["model"]["merges"] = state["model"]["merges"][:-1]
    assert cached(text=json.dumps(state)) == 1
    monkeypatch.setattr("data.tokens.encoder.code_digest", lambda: "changed")
    assert cached() == 1


def test_a_cut_short_write_leaves_nothing_to_trust(cached, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr("data.tokens.store.BATCH", 5)
        original = RowEncoder.__call__

        def fail(self, rows):
            if Counted.calls == 2:
                raise KeyboardInterrupt
            return original(self, rows)

        broken.setattr(RowEncoder, "__call__", fail)
        with pytest.raises(KeyboardInterrupt):
            cached()
    assert cached() == 1


@pytest.mark.parametrize("size", [0, 100, -100])
def test_a_damaged_file_is_made_anew(cached, tmp_path, size):
    assert cached() == 1
    [kept] = tmp_path.glob("tokens-*.arrow")
    kept.write_bytes(kept.read_bytes()[:size])
    assert cached() == 1
    assert cached() == 0


def test_a_full_disk_is_named(cached, monkeypatch):
    def full(self, rows):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RowEncoder, "__call__", full)
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\)"):
        cached()


def test_dropped_rows_stand_apart_with_their_place(rows_of, tiny_tokenizer, tmp_path):
    rows = rows_of(("a", "b"), turns(("user", "long " * 90), ("assistant", "x")), ("c", "d"))
    made = encoder(tiny_tokenizer, 30, 10)
    kept, dropped = tokenize(rows, made, tmp_path)
    assert [kept["place"][:], kept["input"][:]] == [[1, 3], ["a", "c"]]
    assert [dropped["place"][:], dropped["dropped"][:]] == [[2], [NO_ANSWER]]
    assert column(kept, "length").tolist() == kept["length"][:] == [len(ids) for ids in kept["input_ids"]]
    collated = DataCollatorForCausalLM(made.tokenizer, 64, 32, False, False)([kept[0], kept[1]])
    assert collated["input_ids"][0][: kept[0]["length"]].tolist() == kept[0]["input_ids"]
