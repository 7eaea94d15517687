"""How the rows of a step become micro-batches; that training does not notice is in test_trainer.py."""

import gzip
import json
import random

import pytest
import torch

from common.errors import DataError
from data.batches.collator import DataCollatorForCausalLM
from data.batches.packing import best_fit
from data.batches.steps import StepCollator, padding_share, split_by_length
from data.formats.instructions import ALPACA_PROMPT_DICT

ROWS = [{"input": "the quick brown fox " * (n % 5), "output": "jumps over " * (1 + n * 7 % 4)} for n in range(11)]


@pytest.fixture
def collator(tiny_tokenizer):
    return DataCollatorForCausalLM(tiny_tokenizer, 60, 40, train_on_source=False, predict_with_generate=True)


@pytest.fixture(scope="session")
def alpaca_lengths(shared_data) -> list[int]:
    """Tokens of 4,000 Alpaca rows for LLaMA, cut as by --source_max_len 384 --target_max_len 128."""
    from tokenizers import Tokenizer

    with gzip.open(shared_data / "alpaca" / "alpaca_data.json.gz", "rt", encoding="utf-8") as file:
        rows = random.Random(0).sample(json.load(file), 4000)
    tokenizer = Tokenizer.from_file(str(shared_data / "tokenizers" / "llama-2-hf" / "tokenizer.json"))
    prompts = [ALPACA_PROMPT_DICT["prompt_input" if row["input"] else "prompt_no_input"].format(**row) for row in rows]
    sources = tokenizer.encode_batch(prompts)  # with BOS
    targets = tokenizer.encode_batch([row["output"] for row in rows], add_special_tokens=False)
    return [min(len(s), 384) + min(len(t) + 1, 128) for s, t in zip(sources, targets, strict=True)]


def random_lengths(seed: int) -> list[int]:
    chance = random.Random(seed)
    return [chance.randint(1, 100) for _ in range(chance.randint(1, 40))]


# ---- Splitting -----------------------------------------------------------------------------------------------------


def test_split_by_length():
    assert split_by_length([3, 9, 5, 9, 1], batch_size=2) == [[1, 3], [2, 0], [4]]
    assert split_by_length([3, 9, 5, 9, 1], batch_size=2, max_tokens=18) == [[1, 3], [2, 0, 4]]
    assert split_by_length([3, 9, 5, 9, 1], batch_size=2, max_tokens=9) == [[1], [3], [2], [0, 4]]


@pytest.mark.parametrize("seed", range(20))
def test_micro_batches_hold_every_row_once_and_keep_the_bound(seed):
    lengths = random_lengths(seed)
    for options in ({"batch_size": 4}, {"batch_size": 4, "max_tokens": 150}, {"batch_size": 1, "pack_length": 120}):
        batches = StepCollator(None, **options).split(lengths)
        assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
        assert all(batches)
        for batch in batches:
            size = len(batch) * max(lengths[row] for row in batch)
            assert "max_tokens" not in options or size <= 150
            assert "pack_length" not in options or sum(lengths[row] for row in batch) <= 120
            assert len(options) > 1 or len(batch) <= 4
        firsts = [lengths[batch[0]] for batch in batches]
        assert firsts == sorted(firsts, reverse=True) and firsts[0] == max(lengths)


@pytest.mark.parametrize("options", [{"max_tokens": 50}, {"max_tokens": 50, "pack_length": 50}])
def test_a_row_that_fits_nowhere_is_named(options):
    step = StepCollator(None, batch_size=2, **options)
    step.check([50, 3])
    with pytest.raises(DataError, match="--max_tokens_per_batch 50: row 1 of a step has 51 tokens"):
        step.check([50, 51, 7])
    with pytest.raises(DataError, match="--max_tokens_per_batch 51"):
        step.split([50, 51, 7])


# ---- Collating -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"batch_size": 3}, {"batch_size": 1, "max_tokens": 120}])
def test_micro_batches_are_those_of_the_row_collator(collator, options):
    """As if the rows of each had been collated by themselves, without the prompts that only generation needs."""
    lengths = collator(ROWS)["attention_mask"].sum(dim=1).tolist()
    step = StepCollator(collator, **options)
    batches = step(ROWS)
    assert len(batches) == len(step.split(lengths)) > 2
    for batch, rows in zip(batches, step.split(lengths), strict=True):
        alone = collator([ROWS[row] for row in rows])
        assert batch.keys() == {"input_ids", "attention_mask", "labels"}
        assert all(torch.equal(batch[name], alone[name]) for name in batch)


def test_packed_micro_batches_hold_the_rows_of_the_row_collator(collator):
    whole = collator(ROWS)
    lengths = whole["attention_mask"].sum(dim=1).tolist()
    found = []
    for sequence in StepCollator(collator, batch_size=1, pack_length=100)(ROWS):
        assert sequence.keys() == {"input_ids", "labels", "position_ids"}
        assert sequence["input_ids"].shape[0] == 1 and sequence["input_ids"].shape[1] <= 100
        starts = (sequence["position_ids"][0] == 0).nonzero().flatten().tolist()
        for name in ("input_ids", "labels"):
            assert sequence[name].shape == sequence["position_ids"].shape
        pieces = [torch.tensor_split(sequence[name][0], starts)[1:] for name in ("input_ids", "labels")]
        found += [(ids.tolist(), labels.tolist()) for ids, labels in zip(*pieces, strict=True)]
    rows = zip(whole["input_ids"].tolist(), whole["labels"].tolist(), lengths, strict=True)
    assert sorted(found) == sorted((ids[:n], labels[:n]) for ids, labels, n in rows)


# ---- Counting ------------------------------------------------------------------------------------------------------


def test_padding_share_counts_what_the_collator_makes(collator):
    """One step that holds all rows: its tensors have as many tokens, and as much padding, as was counted."""
    whole = collator(ROWS)
    lengths = whole["attention_mask"].sum(dim=1).tolist()
    for strategy, options in {"split": {}, "budget": {"max_tokens": 120}, "packed": {"pack_length": 100}}.items():
        batches = StepCollator(collator, 3, **options)(ROWS)
        shares = padding_share(lengths, 3, 4, StepCollator(collator, 3, **options))
        assert shares["strategy"] == strategy
        assert shares["steps"] == 1 and shares["micro_batches"] == len(batches)
        assert shares["largest"] == max(batch["input_ids"].numel() for batch in batches)
        computed = sum(batch["input_ids"].numel() for batch in batches)
        assert shares["padding_share"] == pytest.approx(1 - sum(lengths) / computed)
    assert shares["filled"] == pytest.approx(sum(lengths) / len(batches) / 100)
    assert padding_share([4, 2], 2, 1)["padding_share"] == 0.25


def test_padding_of_alpaca(alpaca_lengths):
    """Measured: 29 % in random fours, 11 % with 4 of them in a step, 4 % with 16; packed at 512, 97 % are filled."""

    def padding(accumulation, **options):
        return padding_share(alpaca_lengths, 4, accumulation, StepCollator(None, 4, **options))["padding_share"]

    assert 0.24 < padding_share(alpaca_lengths, 4, 4)["padding_share"] < 0.32
    assert padding(4) < 0.13
    assert padding(16) < 0.05
    assert padding(16, max_tokens=1024) < 0.10
    assert padding(4, pack_length=512) == 0


def test_packed_sequences_of_alpaca_are_filled(alpaca_lengths):
    """At 512 tokens: as long as a step has rows enough, as its last sequence is what is left."""
    filled = {
        rows: padding_share(alpaca_lengths, rows, 1, StepCollator(None, rows, pack_length=512))["filled"]
        for rows in (16, 64, 128, 4000)
    }
    assert filled[4000] > 0.98 and filled[128] > 0.95 and filled[64] > 0.93 and filled[16] > 0.85
    assert len(best_fit(alpaca_lengths, 512)) * 512 * 0.98 < sum(alpaca_lengths)
