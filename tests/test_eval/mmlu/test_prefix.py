"""Prompts over one shared prefix give the logits of prompts by themselves, or are run by themselves."""

import random

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from common.forward import ROUNDED_INT8
from eval.mmlu import prefix
from eval.mmlu.prefix import (
    PrefixCache,
    cannot_share,
    each_alone,
    next_logits,
    pack,
    packed_inputs,
    shared_logits,
    with_other_tokens,
)
from eval.mmlu.prompts import Prompt
from tests.support.rounding import ROUNDING_BF16, assert_near

VOCABULARY = 384
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
OTHER_SIZES = {
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4},
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 4},
    "mamba": {"hidden_size": 32, "state_size": 4, "num_hidden_layers": 1},
}
COLUMNS = [5, 9, 2, 7]


def make(architecture, **more):
    sizes = OTHER_SIZES.get(architecture, SIZES)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[architecture](vocab_size=VOCABULARY, **sizes, **more))
    return model.eval()


def ids(count, seed):
    return random.Random(seed).choices(range(VOCABULARY), k=count)


@pytest.fixture
def prompts():
    """Six prompts behind 120 tokens, three behind the first 80 of these, and one by itself."""
    shared = ids(120, 0)
    rows = [Prompt(shared + ids(5 + 7 * n, n + 1), "header, one, two") for n in range(6)]
    rows += [Prompt(shared[:80] + ids(5 + 7 * n, n + 10), "header, one") for n in range(3)]
    return [*rows, Prompt(ids(30, 20), "")]


def alone(model, prompts):
    with torch.no_grad():
        return torch.cat([logits[:, COLUMNS] for _, logits in each_alone(model, prompts)])


@pytest.mark.parametrize("max_tokens", [30, 10_000])
@pytest.mark.parametrize(
    "architecture, more",
    [
        ("llama", {}),
        ("llama", {"attn_implementation": "eager"}),
        ("qwen3", {"num_key_value_heads": 2}),
        ("gpt2", {}),
        ("falcon", {}),  # whose attention is its own
        ("gpt_neox", {}),
        ("opt", {"ffn_dim": 128, "word_embed_proj_dim": 64}),
        ("mistral", {"sliding_window": 32, "num_key_value_heads": 2}),
        ("gemma3_text", {"sliding_window": 32, "layer_types": ["sliding_attention", "full_attention"]}),
        ("gemma2", {"sliding_window": 32, "attn_implementation": "eager"}),
    ],
)
def test_shared_equals_alone(prompts, architecture, more, max_tokens, capsys):
    model = make(architecture, **more)
    with torch.no_grad():
        found = next_logits(model, prompts, COLUMNS, max_tokens)
    assert capsys.readouterr().out == ""  # nothing was in the way
    assert_near(found, alone(model, prompts))


@pytest.mark.parametrize("architecture, said", [("bloom", "no position_ids"), ("mamba", "no past_key_values")])
def test_architectures_that_cannot_share_say_so(prompts, architecture, said, capsys):
    model = make(architecture)
    with torch.no_grad():
        found = next_logits(model, prompts, COLUMNS)
    assert f"runs each prompt by itself, which is slower: this architecture takes {said}" in capsys.readouterr().out
    assert_near(found, alone(model, prompts))


def blind_to_nothing(config, shared, tree):
    """What a model sees that takes no mask: every token those before it."""
    inputs = packed_inputs(config, shared, tree)
    return inputs | {"attention_mask": torch.ones_like(inputs["attention_mask"]).tril(shared)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("limit", ["as it is", "of 8-bit layers"])
def test_a_model_that_mixes_prompts_is_found_out(prompts, monkeypatch, capsys, dtype, limit):
    """What precision may explain hides it, other tokens in its neighbour do not."""
    monkeypatch.setattr(prefix, "packed_inputs", blind_to_nothing)
    if limit == "of 8-bit layers":
        monkeypatch.setattr(prefix, "rounding_limit", lambda model: ROUNDED_INT8)
    model = make("llama").to(dtype)
    with torch.no_grad():
        found = next_logits(model, prompts, COLUMNS)
    assert "over a shared cache the logits of a prompt are" in capsys.readouterr().out
    assert_near(found, alone(model, prompts))


@pytest.mark.parametrize("longest", ["doubled", "the beginning of another", "of one passage"])
@pytest.mark.parametrize("sees_others", [False, True])
def test_the_check_sees_through_prompts_that_are_alike(prompts, monkeypatch, longest, sees_others):
    rows = [prompt.ids for prompt in prompts[:6]]
    more = {"doubled": [], "the beginning of another": [5], "of one passage": ids(9, 77)}[longest]
    alike = rows[-1][:-9] + more if longest == "of one passage" else rows[-1] + more
    alike = [Prompt(row, "header, one, two") for row in [*rows, alike]]
    if sees_others:
        monkeypatch.setattr(prefix, "packed_inputs", blind_to_nothing)
    with torch.no_grad():
        cache = PrefixCache(make("llama").to(torch.bfloat16))
        assert (cannot_share(cache, alike) is None) != sees_others


def test_other_tokens_never_join_what_they_stand_beside():
    """Else the tree would have another shape."""
    assert with_other_tokens([1, 2, 3], [1, 3, 9], 10) == [1, 4, 5]
    assert with_other_tokens([1, 9], [1, 0], 10) == [1, 1]
    assert with_other_tokens([1, 2, 3], [7], 10) == [2, 3, 4]
    assert with_other_tokens([1, 2], [1, 2, 3], 10) == [1, 2]


def test_a_failing_cache_is_said(prompts, monkeypatch):
    def go_to(self, ids):
        raise IndexError("no such layer")

    monkeypatch.setattr(PrefixCache, "go_to", go_to)
    assert cannot_share(PrefixCache(make("llama")), prompts) == "its cache cannot be shared (IndexError: no such layer)"


@pytest.mark.parametrize("passes_that_fit", [0, 2, 4])  # two are the check's
def test_prompts_whose_cache_finds_no_room_are_run_by_themselves(prompts, monkeypatch, passes_that_fit):
    model, said, passes = make("llama"), [], []
    behind = PrefixCache.logits_behind

    def fill_up(self, rests):
        passes.append(len(rests))
        if len(passes) > passes_that_fit:
            raise torch.OutOfMemoryError("tried to allocate 7 GiB\nand more")
        return behind(self, rests)

    monkeypatch.setattr(PrefixCache, "logits_behind", fill_up)
    with torch.no_grad():
        found = next_logits(model, prompts, COLUMNS, 30, say=said.append)
    assert len(passes) == passes_that_fit + 1
    [note] = said
    assert note.endswith("too little memory for a cache that they share.")
    assert_near(found, alone(model, prompts))
    passes.clear()
    with pytest.raises(torch.OutOfMemoryError), torch.no_grad():
        next_logits(model, prompts, COLUMNS, 30, together=True)


@pytest.fixture
def passes(monkeypatch):
    """How many tokens each forward pass has."""
    lengths, run = [], prefix.run

    def counted(model, ids, *args, **more):
        lengths.append(len(ids))
        return run(model, ids, *args, **more)

    monkeypatch.setattr(prefix, "run", counted)
    return lengths


RESTS = [5 + 7 * n for n in range(6)] + [5 + 7 * n for n in range(3)]


def test_what_prefixes_have_in_common_is_run_once(prompts, passes):
    """120 tokens once; 80 of them serve the second group; the packed rests stay within the budget."""
    cache = PrefixCache(make("llama"))
    with torch.no_grad():
        order = [index for indices, _ in shared_logits(cache, prompts, 64) for index in indices]
    assert sorted(order) == list(range(10))
    assert sum(passes) == 120 + sum(RESTS) + 30  # the lone prompt is a prefix of 29 and one token
    assert all(length <= 64 for length in passes if length not in (120, 29))


def test_the_prefix_of_the_check_serves_its_group(prompts, passes):
    """Though it is not the first in order. The check itself: two rests of two prompts, and one prompt by itself."""
    later = [Prompt(ids(50, 30) + ids(4, n), "other header") for n in range(2)]
    with torch.no_grad():
        next_logits(make("llama"), [*later, *prompts], COLUMNS, 64)
    check = 2 * (RESTS[5] + RESTS[4]) + 120 + RESTS[4]
    assert sum(passes) == 120 + sum(RESTS) + 30 + 50 + 2 * 4 + check


def test_the_mask_and_positions_of_a_tiny_case():
    """Prompts [7], [8 9], [8] and [8 5] behind two shared tokens."""
    config = CONFIG_MAPPING["llama"]()
    config._attn_implementation = "sdpa"
    tree = pack([[7], [8, 9], [8], [8, 5]])
    inputs = packed_inputs(config, 2, tree)
    assert tree.ids == [7, 8, 9, 5] and tree.ends == [0, 2, 1, 3]
    assert inputs["position_ids"].tolist() == [[2, 2, 3, 3]]
    assert inputs["attention_mask"][0, 0].int().tolist() == [
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 1, 0, 1, 1, 0],
        [1, 1, 0, 1, 0, 1],
    ]


@pytest.mark.parametrize("max_tokens", [30, 10_000])
@pytest.mark.parametrize(
    "architecture, more", [("llama", {}), ("mistral", {"sliding_window": 16, "num_key_value_heads": 2})]
)
def test_questions_that_begin_alike_share_that_too(passes, architecture, more, max_tokens):
    """Three questions about one passage, two that are the same, one that another goes on from, and two of their own."""
    header, passage = ids(20, 0), ids(25, 1)
    rests = [*(passage + ids(6, seed) for seed in (2, 3, 4)), *2 * [ids(9, 5)], ids(9, 5) + ids(4, 6)]
    rests += [ids(9, 7), passage[:10] + ids(12, 8)]
    prompts = [Prompt(header + rest, "header") for rest in rests]
    model = make(architecture, **more)
    with torch.no_grad():
        found = torch.empty(len(prompts), len(COLUMNS))
        for indices, logits in shared_logits(PrefixCache(model), prompts, max_tokens):
            found[indices] = logits[:, COLUMNS]
    assert max(passes[1:]) <= max(max_tokens, 31)
    assert max_tokens == 30 or sum(passes) == 20 + (25 + 3 * 6) + (9 + 4) + 9 + 12
    assert_near(found, alone(model, prompts))


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_stays_within_its_rounding(prompts, autocast):
    """Where the weights are bfloat16, and where only what is computed with them is."""
    model = make("llama").to(torch.float32 if autocast else torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = next_logits(model, prompts, COLUMNS, say=pytest.fail)
        expected = alone(model, prompts)
    assert_near(found, expected, ROUNDING_BF16)
