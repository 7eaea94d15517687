"""Answers to many prompts at a time: the library's tokens, whatever ends when and begins alike."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig
from transformers.cache_utils import DynamicLayer

from tests.support.models import tiny_model
from tests.support.rounding import assert_near
from training.shortcuts import decoding
from training.shortcuts.attention import BY_ROWS_TYPES
from training.shortcuts.decoding import GrowingLayer, batch_tokens, batches_by_tokens, decode, decodes
from training.shortcuts.lora_step import join_steps, whole_size, whole_weights

PAD, END = 3, 1
HEADER = list(range(20, 45))


def left_padded(prompts):
    longest = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return {"input_ids": ids, "attention_mask": mask}


PROMPTS = {
    "nothing alike": [[5, 6, 7, 8], [9], [10, 11]],
    "all alike": [[*HEADER, 5, 6, 7], [*HEADER, 9], [*HEADER, 5, 6]],
    "one is what they begin with": [HEADER, [*HEADER, 5, 6, 7]],
    "equal": [[*HEADER, 5]] * 3,
    "one": [[*HEADER, 5]],
}


def config(**options):
    return GenerationConfig(max_new_tokens=12, pad_token_id=PAD, eos_token_id=END, do_sample=False, **options)


def ending_early(after):
    """Let rows end at different times: the end is the likeliest token once a row's ids add up to much."""

    def processor(ids, scores):
        many = (ids != PAD).long().cumsum(-1)[:, -1] * 7 + ids[:, -1] > after
        scores[many, END] = scores.max() + 1
        return scores

    return [processor]


@pytest.mark.parametrize("after", [10**9, 150])
@pytest.mark.parametrize("prompts", PROMPTS)
@pytest.mark.parametrize("architecture", BY_ROWS_TYPES)
def test_tokens_are_those_of_the_library(architecture, prompts, after):
    model, inputs = tiny_model(architecture), left_padded(PROMPTS[prompts])
    assert decodes(model, config())
    plain, ours = (
        model.generate(**inputs, generation_config=config(), logits_processor=ending_early(after), custom_generate=way)
        for way in (None, decode)
    )
    assert torch.equal(ours, plain)


@pytest.mark.parametrize(
    "options",
    [{"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 2}, {"min_new_tokens": 6}],
    ids=str,
)
def test_what_looks_at_a_row_looks_at_its_own(options):
    model, inputs = tiny_model("llama"), left_padded(PROMPTS["all alike"])
    plain, ours = (
        model.generate(
            **inputs,
            generation_config=config(**options),
            logits_processor=ending_early(250),
            custom_generate=way,
        )
        for way in (None, decode)
    )
    assert torch.equal(ours, plain)


def test_sampling_is_seeded_and_by_probability():
    """A token that has nearly all of it is drawn; the same seed draws the same."""
    model, inputs = tiny_model("llama"), left_padded(PROMPTS["all alike"] * 4)
    drawn = []
    for temperature in (1.0, 1.0, 1e-4):
        torch.manual_seed(0)
        settings = GenerationConfig(
            max_new_tokens=5, pad_token_id=PAD, eos_token_id=END, do_sample=True, top_k=0, temperature=temperature
        )
        drawn.append(model.generate(**inputs, generation_config=settings, custom_generate=decode))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(
        drawn[2], model.generate(**inputs, generation_config=config(max_length=None))[:, : drawn[2].shape[1]]
    )


def test_rows_that_have_ended_are_not_computed_and_beginnings_once(monkeypatch):
    model, inputs = tiny_model("llama"), left_padded(PROMPTS["all alike"])
    shapes, forward = [], model.forward
    monkeypatch.setattr(model, "forward", lambda **k: shapes.append(tuple(k["input_ids"].shape)) or forward(**k))
    ids = model.generate(
        **inputs, generation_config=config(), logits_processor=ending_early(280), custom_generate=decode
    )
    assert shapes[:2] == [(1, len(HEADER)), (3, 3)]
    lengths = [int((row[inputs["input_ids"].shape[1] :] != PAD).sum()) for row in ids]
    assert len(set(lengths)) > 1, "the rows end at different times"
    assert sum(rows for rows, tokens in shapes[2:]) == sum(lengths) - 3


def test_base_and_adapter_as_one_write_the_same():
    model = tiny_model("llama")
    torch.manual_seed(0)
    tuned = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)).eval()
    join_steps(tuned)
    inputs = left_padded(PROMPTS["all alike"])
    plain = tuned.generate(**inputs, generation_config=config())
    logits = tuned(**inputs).logits
    assert whole_size(tuned) == 4 * sum(p.numel() for name, p in tuned.named_parameters() if "base_layer" in name)
    with whole_weights(tuned):
        assert torch.equal(tuned.generate(**inputs, generation_config=config(), custom_generate=decode), plain)
        assert_near(tuned(**inputs).logits, logits)
    assert torch.equal(tuned(**inputs).logits, logits)
    with tuned.disable_adapter():
        base = tuned(**inputs).logits
        with whole_weights(tuned):
            assert_near(tuned(**inputs).logits, base)
    assert not torch.allclose(base, logits)


# ---- The cache and the batches -------------------------------------------------------------------------------------


def test_a_growing_layer_holds_what_a_dynamic_one_does(monkeypatch):
    monkeypatch.setattr(decoding, "ROOM", 4)
    layers = [GrowingLayer(), DynamicLayer()]
    torch.manual_seed(0)
    for step in range(20):
        rows = 3 if step < 7 else 4 if step < 12 else 2
        states = torch.randn(2, rows, 2, 5 if step == 0 else 1, 8)
        if step == 7:
            for layer in layers:
                layer.batch_select_indices(torch.tensor([2, 0]))
                layer.batch_repeat_interleave(2)
        if step == 12:
            for layer in layers:
                layer.batch_select_indices(torch.tensor([3, 1]))
        if step == 15:
            for layer in layers:
                layer.crop(-2)
        one, other = (layer.update(*states.clone()) for layer in layers)
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
        assert layers[0].get_seq_length() == layers[1].get_seq_length()


def test_batches_hold_what_their_tokens_allow():
    lengths = [90, 40, 30, 10, 10, 10]
    assert batches_by_tokens(lengths, 10, tokens=100, least=1) == [[0], [1, 2], [3, 4, 5]]
    assert batches_by_tokens(lengths, 10, tokens=100, least=2) == [[0, 1], [2, 3], [4, 5]]
    assert batches_by_tokens(lengths, 10, tokens=0, least=4) == [[0, 1, 2, 3], [4, 5]]
    assert batches_by_tokens([], 10, tokens=100, least=1) == []


def test_little_memory_makes_small_batches():
    config = tiny_model("llama").config
    bytes_per_token = 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, size, float32
    assert batch_tokens(config, free=400 * bytes_per_token) == 100
    assert batch_tokens(config, free=10**15) == decoding.BATCH_TOKENS


def test_beams_and_unknown_models_are_left_to_the_library():
    model = tiny_model("llama")
    assert not decodes(model, config(num_beams=2)) and not decodes(model, config(use_cache=False))
    assert not decodes(tiny_model("falcon"), config())
