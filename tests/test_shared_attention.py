"""Attention of packed prompts, in two parts, is that under their mask."""

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from eval import shared_attention
from eval.mmlu_prompts import Prompt
from eval.prefix import PrefixCache, each_alone, next_logits, pack
from eval.shared_attention import attend_behind_prefix, blocks, split_attention

# Two about one passage, one that another goes on from, and one of a single token.
SEQUENCES = [[1, 2, 3, 4], [1, 2, 5], [6, 7], [6, 7, 8], [9]]
SHARED, HEADS, SIZE = 6, 4, 16


class Attention(torch.nn.Module):
    is_causal, num_key_value_groups = True, 2


@pytest.fixture
def inputs():
    """Query, key, value and mask of `SEQUENCES` behind six tokens; two heads share a key."""
    tree, generator = pack(SEQUENCES), torch.Generator().manual_seed(0)
    new = len(tree.ids)
    mask = torch.cat([torch.ones(new, SHARED, dtype=torch.bool), tree.seen], dim=1)[None, None]
    sizes = [(HEADS, new), (HEADS // 2, SHARED + new), (HEADS // 2, SHARED + new)]
    return [*(5 * torch.randn(1, heads, length, SIZE, generator=generator) for heads, length in sizes), mask]


@pytest.fixture
def calls(monkeypatch):
    """How often transformers' own attention was asked."""
    made = []

    def counted(*args, **more):
        made.append(1)
        return sdpa_attention_forward(*args, **more)

    monkeypatch.setattr(shared_attention, "sdpa_attention_forward", counted)
    return made


def test_the_blocks_of_a_forest():
    assert blocks(pack(SEQUENCES).seen) == [(0, 5), (5, 8), (8, 9)]


@pytest.mark.parametrize("dtype, error", [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("scaling", [None, 0.5])
def test_two_parts_are_the_whole(inputs, calls, dtype, error, scaling):
    *states, mask = inputs
    states = [state.to(dtype) for state in states]
    expected, _ = sdpa_attention_forward(Attention(), *(state.float() for state in states), mask, scaling=scaling)
    found, weights = attend_behind_prefix(Attention(), *states, mask, scaling=scaling)
    assert not calls and weights is None and found.dtype == dtype and found.is_contiguous()
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=error)


@pytest.mark.parametrize("far", [-1, 1])
def test_scores_that_leave_nothing_to_one_part(inputs, far):
    """Of ±thousands: one softmax sum is nothing beside the other."""
    query, key, value, mask = inputs
    query, key = query.abs() * 20, torch.cat([far * key[:, :, :SHARED].abs() * 20, key[:, :, SHARED:]], dim=2)
    expected, _ = sdpa_attention_forward(Attention(), query, key, value, mask)
    found, _ = attend_behind_prefix(Attention(), query, key, value, mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def window(inputs):
    inputs[3][..., -1, 0] = False


def float_mask(inputs):
    inputs[3] = torch.zeros(inputs[3].shape).masked_fill(~inputs[3], -1e4)


def no_mask(inputs):
    inputs[3] = None


def no_prefix(inputs):
    inputs[1:] = [inputs[1][:, :, SHARED:], inputs[2][:, :, SHARED:], inputs[3][..., SHARED:]]


def narrow_values(inputs):
    inputs[2] = inputs[2][..., :8]


def mask_for_each_head(inputs):
    inputs[3] = inputs[3].repeat(1, HEADS, 1, 1)


def sparse_keys(inputs):
    inputs[1] = inputs[1].transpose(2, 3).contiguous().transpose(2, 3)


OTHER_KINDS = [window, float_mask, no_mask, no_prefix, narrow_values, mask_for_each_head, sparse_keys]


@pytest.mark.parametrize("change", OTHER_KINDS)
def test_what_is_of_another_kind_goes_the_usual_way(inputs, calls, change):
    change(inputs)
    found, _ = attend_behind_prefix(Attention(), *inputs)
    assert len(calls) == 1
    torch.testing.assert_close(found, sdpa_attention_forward(Attention(), *inputs)[0])


@pytest.mark.parametrize("more", [{"dropout": 0.1}, {"softcap": 30.0}])
def test_what_the_kernel_does_not_do_is_left_to_the_usual_way(inputs, monkeypatch, more):
    asked = []
    monkeypatch.setattr(shared_attention, "sdpa_attention_forward", lambda *args, **found: asked.append(found))
    attend_behind_prefix(Attention(), *inputs, **more)
    [found] = asked
    assert found.items() >= more.items()


def test_states_of_two_precisions_go_the_usual_way(inputs, monkeypatch):
    asked = []
    monkeypatch.setattr(shared_attention, "sdpa_attention_forward", lambda *args, **found: asked.append(found))
    attend_behind_prefix(Attention(), inputs[0].bfloat16(), *inputs[1:])
    assert asked


def test_a_bias_by_position_goes_the_usual_way(inputs, calls):
    bias = torch.randn(1, HEADS, *inputs[3].shape[2:])
    found, _ = attend_behind_prefix(Attention(), *inputs, position_bias=bias)
    assert len(calls) == 1
    torch.testing.assert_close(found, sdpa_attention_forward(Attention(), *inputs, position_bias=bias)[0])


def llama():
    torch.manual_seed(0)
    config = CONFIG_MAPPING["llama"](
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=50,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("autocast", [False, True])
def test_packed_passes_alone_go_this_way(calls, monkeypatch, autocast):
    """One pass over the prefix by the usual way, and the packed ones too where autocast computes."""
    model, made = llama(), []
    flash = shared_attention.FLASH
    monkeypatch.setattr(shared_attention, "FLASH", lambda *args, **more: made.append(1) or flash(*args, **more))
    prompts = [Prompt(list(range(10, 30)) + rest, "examples") for rest in SEQUENCES]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = next_logits(model, prompts, range(50), say=pytest.fail)
        alone = torch.cat([logits for _, logits in each_alone(model, prompts)]).float()
    assert bool(made) != autocast and bool(calls) == autocast
    torch.testing.assert_close(found, alone, rtol=0, atol=0.02 if autocast else 1e-5)


def test_attention_is_as_before_after_a_failure():
    with pytest.raises(torch.OutOfMemoryError), split_attention():
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is attend_behind_prefix
        raise torch.OutOfMemoryError
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward
    assert "sdpa" not in ALL_ATTENTION_FUNCTIONS._local_mapping  # which would hide what is registered later


def test_a_torch_without_the_kernel_takes_the_mask(monkeypatch):
    monkeypatch.setattr(shared_attention, "FLASH", None)
    model = llama()
    with torch.no_grad():
        cache = PrefixCache(model)
        cache.go_to(list(range(10, 30)))
        logits = cache.logits_behind(SEQUENCES)
        alone = torch.cat([model(torch.tensor([[*cache.ids, *row]])).logits[:, -1] for row in SEQUENCES])
    torch.testing.assert_close(logits, alone, rtol=0, atol=1e-5)
