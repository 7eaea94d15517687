"""Batches: cuts, BOS and EOS once, masks by length, the prompt alone on the right."""

import doctest

import pytest
import torch

from common.labels import IGNORE_INDEX
from data.batches.collator import DataCollatorForCausalLM

REAL_TOKENIZERS = ["gpt-neox-20b", "gpt2", "llama-2-hf", "mistral-7b-v0.1", "qwen1.5"]
TEXTS = [
    {"input": "Name a colour.", "output": "Blue is a colour that many people like.", "id": 3},
    {"input": "", "output": "x"},
    {"input": "Name three colours, and say of each where it is seen: ", "output": "Ünïcode, 日本語 and 🙂!\n\n"},
]


def word_tokenizer(**special):
    """One id for each word: <pad>, <s>, </s> are 0, 1, 2 and one, two, three, four 3 to 6."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", "one", "two", "three", "four"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"} | special
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{name: word for name, word in special.items() if word is not None}
    )


def make(tokenizer, source_max_len=64, target_max_len=64, train_on_source=False, predict_with_generate=False):
    return DataCollatorForCausalLM(tokenizer, source_max_len, target_max_len, train_on_source, predict_with_generate)


def parts(collator, text):
    """Return the (source, target) ids of a text."""
    [row] = collator.encoded([text])
    ids, length = row["input_ids"].tolist(), row["prompt_length"]
    return ids[:length], ids[length:]


def test_docstring_shows_the_exact_output():
    example = doctest.DocTestFinder().find(
        DataCollatorForCausalLM,
        globs={
            "DataCollatorForCausalLM": DataCollatorForCausalLM,
            "tokenizer": word_tokenizer(),
        },
    )[0]
    result = doctest.DocTestRunner().run(example)
    assert result.attempted == 3
    assert result.failed == 0


def test_shapes_types_and_padding(tiny_tokenizer):
    batch = make(tiny_tokenizer, predict_with_generate=True)(TEXTS)
    assert list(batch) == ["input_ids", "attention_mask", "labels", "prompt_input_ids", "prompt_attention_mask"]
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    assert batch["input_ids"].shape == batch["attention_mask"].shape == batch["labels"].shape
    assert batch["prompt_input_ids"].shape == batch["prompt_attention_mask"].shape
    lengths = [row["length"] for row in make(tiny_tokenizer).encoded(TEXTS)]
    assert batch["input_ids"].shape == (3, max(lengths))
    assert batch["attention_mask"].sum(1).tolist() == lengths
    for row, length in enumerate(lengths):
        assert batch["attention_mask"][row, :length].all()
        assert (batch["input_ids"][row, length:] == tiny_tokenizer.pad_token_id).all()
        assert (batch["labels"][row, length:] == IGNORE_INDEX).all()


def test_prompt_is_on_the_right_and_the_same_alone(tiny_tokenizer):
    collator = make(tiny_tokenizer, predict_with_generate=True)
    batch = collator(TEXTS)
    for row, text in enumerate(TEXTS):
        alone = collator([text])
        prompt = batch["prompt_input_ids"][row][batch["prompt_attention_mask"][row].bool()]
        assert prompt.tolist() == alone["prompt_input_ids"][0].tolist() == parts(collator, text)[0]
        assert batch["prompt_attention_mask"][row, -len(prompt) :].all()
        assert alone["prompt_attention_mask"].all()
    assert "prompt_input_ids" not in make(tiny_tokenizer)(TEXTS)


def test_labels_hold_the_target_or_everything():
    row = [{"input": "one two", "output": "three four"}]
    masked = make(word_tokenizer())(row)
    assert masked["input_ids"].tolist() == [[1, 3, 4, 5, 6, 2]]
    assert masked["labels"].tolist() == [[-100, -100, -100, 5, 6, 2]]
    whole = make(word_tokenizer(), train_on_source=True)(row)
    assert whole["labels"].tolist() == whole["input_ids"].tolist() == [[1, 3, 4, 5, 6, 2]]


@pytest.mark.parametrize(
    ("output", "limit", "target"),
    [
        ("one two three", 4, [3, 4, 5, 2]),
        ("one two three", 3, [3, 4, 2]),
        ("one two three", 1, [2]),
        ("one two </s>", 3, [3, 4, 2]),
        ("one two </s>", 9, [3, 4, 2]),
        ("one </s> two three", 3, [3, 2]),
        ("", 3, [2]),
    ],
)
def test_target_keeps_one_eos_whatever_the_cut(output, limit, target):
    collator = make(word_tokenizer(), target_max_len=limit)
    assert parts(collator, {"input": "one", "output": output}) == ([1, 3], target)


@pytest.mark.parametrize(
    ("text", "limit", "source"),
    [
        ("one two three", 4, [1, 3, 4, 5]),
        ("one two three", 3, [1, 3, 4]),
        ("one two three", 1, [1]),
        ("<s> one", 9, [1, 3]),
        ("", 9, [1]),
    ],
)
def test_source_keeps_its_first_tokens_and_one_bos(text, limit, source):
    collator = make(word_tokenizer(), source_max_len=limit)
    assert parts(collator, {"input": text, "output": "one"}) == (source, [3, 2])


def test_masks_do_not_depend_on_the_pad_token():
    rows = [{"input": "one <pad> two", "output": "three <pad>"}, {"input": "one", "output": "two"}]
    expected_labels = [[-100, -100, -100, -100, 5, 0, 2], [-100, -100, 4, 2, -100, -100, -100]]
    expected_mask = [[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]]
    for pad in ("<pad>", "</s>", None):
        batch = make(word_tokenizer(pad_token=pad))(rows)
        assert batch["labels"].tolist() == expected_labels
        assert batch["attention_mask"].tolist() == expected_mask


def test_without_bos_an_empty_prompt_still_starts_generation():
    collator = make(word_tokenizer(bos_token=None), predict_with_generate=True)
    batch = collator([{"input": "", "output": "one"}, {"input": "two three", "output": "one"}])
    assert batch["input_ids"].tolist() == [[3, 2, 0, 0], [4, 5, 3, 2]]
    assert batch["prompt_input_ids"].tolist() == [[0, 2], [4, 5]]
    assert batch["prompt_attention_mask"].tolist() == [[0, 1], [1, 1]]


def test_tokenizes_once_a_field(monkeypatch):
    tokenizer, calls = word_tokenizer(), []
    collator = make(tokenizer)
    assert collator.encoder.pairs.anchor == ""  # asked once
    original = type(tokenizer).__call__
    monkeypatch.setattr(type(tokenizer), "__call__", lambda self, *a, **k: calls.append(a) or original(self, *a, **k))
    collator(TEXTS)
    assert len(calls) == 2


def test_a_space_that_is_put_before_every_text_stands_before_none_that_follows_another():
    """ByteLevel's `add_prefix_space`, and SentencePiece without bytes, to which ⁂ is unknown as 語 is."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    spaced = Tokenizer(models.BPE({token: n for n, token in enumerate(["</s>", *"Ġfobar"])}, []))
    spaced.pre_tokenizer, spaced.decoder = pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁", -1.0), ("\n", -1.0), *((letter, -2.0) for letter in "abforx")]
    sentence = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    sentence.pre_tokenizer, sentence.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    for backend, unk in ((spaced, None), (sentence, "<unk>")):
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token=unk)
        collator = make(tokenizer)
        [(source, target)] = collator.encoder.pairs.uncut(["foo"], ["bar"])
        assert tokenizer.decode(source + target).strip() == "foobar"
        assert tokenizer.decode(collator.encoder.pairs.uncut([""], ["bar"])[0][1]).strip() == "bar"
    [(source, target)] = collator.encoder.pairs.uncut(["x"], ["語"])
    assert target == [0]


def encoded(ids, labels, prompt_length):
    texts = {"input": "one", "output": "two"}
    return texts | {"input_ids": ids, "labels": labels, "prompt_length": prompt_length, "prompt_ids": []}


def test_rows_that_are_encoded_already_are_padded_as_they_are(monkeypatch):
    """Their ids, labels and prompts stand, whatever their texts, the limits and train_on_source say."""
    tokenizer = word_tokenizer()
    monkeypatch.setattr(type(tokenizer), "__call__", None)  # nothing is tokenized again
    collator = make(tokenizer, 2, 2, train_on_source=True, predict_with_generate=True)
    rows = [
        encoded([1, 3, 4, 2, 5, 6, 2], [-100, -100, 4, 2, -100, 6, 2], 5),
        encoded([3, 4], [-100, 4], 1),
        encoded([3], [3], 0),
    ]
    batch = {name: rows.tolist() for name, rows in collator(rows).items()}
    assert batch == {
        "input_ids": [[1, 3, 4, 2, 5, 6, 2], [3, 4, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0, 0]],
        "attention_mask": [[1] * 7, [1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]],
        "labels": [[-100, -100, 4, 2, -100, 6, 2], [-100, 4] + [-100] * 5, [3] + [-100] * 6],
        "prompt_input_ids": [[1, 3, 4, 2, 5], [0, 0, 0, 0, 3], [0, 0, 0, 0, 2]],
        "prompt_attention_mask": [[1] * 5, [0, 0, 0, 0, 1], [0, 0, 0, 0, 1]],
    }


def test_impossible_settings_are_refused(tiny_tokenizer):
    with pytest.raises(ValueError, match="no EOS token"):
        make(word_tokenizer(eos_token=None))
    with pytest.raises(ValueError, match="source_max_len 8 and target_max_len 0"):
        make(tiny_tokenizer, source_max_len=8, target_max_len=0)


@pytest.fixture(scope="module", params=REAL_TOKENIZERS)
def real_tokenizer(request, shared_data):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / request.param)
    if tokenizer.eos_token_id is None:  # a bare tokenizer.json names no special tokens
        tokenizer.add_special_tokens({"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"})
    if tokenizer.pad_token_id is None:
        tokenizer.add_special_tokens({"pad_token": tokenizer.unk_token or "<|padding|>"})
    return tokenizer


def test_real_tokenizers_get_bos_and_eos_once(real_tokenizer):
    bos, eos = real_tokenizer.bos_token_id, real_tokenizer.eos_token_id
    rows = TEXTS + [{"input": f"{real_tokenizer.bos_token or ''}Hi", "output": f"Hello{real_tokenizer.eos_token}"}]
    collator = make(real_tokenizer, source_max_len=12, target_max_len=6)
    for source, target in (parts(collator, row) for row in rows):
        assert len(source) <= 12
        assert len(target) <= 6
        assert target[-1] == eos
        assert target.count(eos) == 1
        assert bos is None or (source[0] == bos and source.count(bos) == 1)


def test_real_tokenizers_supervise_the_target_alone(real_tokenizer):
    collator = make(real_tokenizer, predict_with_generate=True)
    batch = collator(TEXTS)
    for row, text in enumerate(TEXTS):
        source, target = parts(collator, text)
        length = len(source) + len(target)
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (batch["input_ids"].shape[1] - length)
        supervised = batch["labels"][row] != IGNORE_INDEX
        assert batch["labels"][row][supervised].tolist() == target
        assert supervised.nonzero().flatten().tolist() == list(range(len(source), length))
        assert real_tokenizer.decode(target, skip_special_tokens=True).strip() == text["output"].strip()
