"""The loss at the head in pieces: the library's loss and gradients, of whatever is asked, in little memory."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tests.support.flags import trainer_of
from tests.support.models import tiny_model
from tests.support.rounding import ROUNDING, ROUNDING_BF16, assert_near
from tests.test_training.loop.test_trainer import rows_of
from training.loop.steps import collate_step
from training.shortcuts import head as head_module
from training.shortcuts.attention import BY_ROWS_TYPES
from training.shortcuts.head import head_apart, pieces, stands_apart, token_losses

HIDDEN, VOCABULARY, TOKENS = 8, 50, 23


def head_of(bias=False):
    torch.manual_seed(0)
    return nn.Linear(HIDDEN, VOCABULARY, bias=bias).requires_grad_(False)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("most", [1, 7, 1000], ids="pieces of at most {} tokens".format)
def test_losses_and_gradients_are_those_of_whole_logits(most, bias, smoothing, monkeypatch):
    monkeypatch.setattr(head_module, "PIECE_BYTES", most * VOCABULARY * 4)
    head = head_of(bias)
    labels = torch.randint(VOCABULARY, (TOKENS,))
    weights = torch.rand(TOKENS)  # of tokens, so that each has a gradient of its own
    results = []
    for losses_of in (
        lambda states: token_losses(states, labels, head, smoothing),
        lambda states: cross_entropy(head(states), labels, reduction="none", label_smoothing=smoothing),
    ):
        states = torch.randn(TOKENS, HIDDEN, generator=torch.Generator().manual_seed(1), requires_grad=True)
        losses = losses_of(states)
        (losses * weights).sum().backward()
        results.append({"losses": losses.detach(), "gradient": states.grad})
    assert_near(*results)


def test_large_logits_stay_finite():
    """Their exponentials would not."""
    head = head_of()
    states = (1e4 * torch.randn(3, HIDDEN)).requires_grad_()
    labels = torch.tensor([1, 2, 3])
    losses = token_losses(states, labels, head)
    losses.sum().backward()
    torch.testing.assert_close(losses, cross_entropy(head(states), labels, reduction="none"))
    assert states.grad.isfinite().all()


def test_nothing_supervised_has_no_loss():
    states = torch.empty(0, HIDDEN, requires_grad=True)
    losses = token_losses(states, torch.empty(0, dtype=torch.long), head_of())
    losses.sum().backward()
    assert losses.shape == (0,) and states.grad.shape == states.shape


@pytest.mark.parametrize("tokens", [0, 1, 5, 99, 1000])
def test_pieces_are_equal_and_small(tokens, monkeypatch):
    monkeypatch.setattr(head_module, "PIECE_BYTES", 4 * 10 * 100)
    parts = list(pieces(tokens, 100))
    assert [at for part in parts for at in range(part.start, part.stop)] == list(range(tokens))
    sizes = [part.stop - part.start for part in parts]
    assert not sizes or max(sizes) <= min(min(sizes) + 1, 10)


def test_no_piece_is_larger_than_it_may_be(monkeypatch):
    """What autograd keeps is of the size of the states, and no product is larger than a piece."""
    monkeypatch.setattr(head_module, "PIECE_BYTES", 4 * VOCABULARY * 5)
    sizes = []
    linear = nn.functional.linear
    monkeypatch.setattr(
        nn.functional, "linear", lambda states, *args: sizes.append(len(states)) or linear(states, *args)
    )
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda x: x):
        states = torch.randn(TOKENS, HIDDEN, requires_grad=True)
        token_losses(states, torch.zeros(TOKENS, dtype=torch.long), head_of())
    assert max(sizes) <= 5 and sum(sizes) == TOKENS and kept == [TOKENS * HIDDEN]


# ---- Models of the library -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", BY_ROWS_TYPES)
def test_with_the_head_apart_the_loss_is_the_same(architecture):
    """Of each architecture that it is done for: where logits are scaled, what the head is given is, too."""
    model = tiny_model(architecture)
    head = model.get_output_embeddings().requires_grad_(False)
    assert stands_apart(model)
    ids = torch.randint(4, 300, (2, 9), generator=torch.Generator().manual_seed(0))
    labels, results = ids[:, 1:].flatten(), []
    for apart in (True, False):
        model.zero_grad()
        with head_apart(model) if apart else nullcontext():
            output = model(ids).logits[:, :-1].flatten(0, 1)
        losses = token_losses(output, labels, head) if apart else cross_entropy(output, labels, reduction="none")
        losses.mean().backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        results.append(gradients | {"losses": losses})
    assert_near(*results)


@pytest.mark.parametrize(
    "flags", [[], ["--label_smoothing_factor", "0.1"], ["--bf16"], ["--bf16", "--bits", "32"]], ids=str
)
def test_a_step_with_the_head_apart_is_the_step(flags, make_base, command):
    trainer, module = trainer_of(command(make_base(), *flags))
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:  # it starts at zero, where A has no gradient
            torch.nn.init.normal_(parameter, std=0.05)
    assert trainer.loss_in_pieces
    results = []
    for in_pieces in (True, False):
        trainer.loss_in_pieces = in_pieces
        trainer.model.zero_grad()
        [[batch], items] = trainer.get_batch_samples(
            iter([collate_step(module.step_collator, rows_of(module, 4))]), 1, trainer.args.device
        )
        with trainer.accelerator.autocast():
            loss = trainer.training_step(trainer.model, batch, items)
        gradients = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
        results.append(gradients | {"loss": loss})
    # The logits of 300 tokens are rounded to bfloat16 in one of them, and their softmax is not.
    assert_near(*results, share=5 * ROUNDING_BF16 if "--bf16" in flags else ROUNDING)


def test_a_head_that_is_trained_or_more_than_a_product_stays_in_the_model():
    model = tiny_model("llama")
    assert not stands_apart(model), "it is trained"
    model.requires_grad_(False)
    assert stands_apart(model)
    model.config.final_logit_softcapping = 30.0
    assert not stands_apart(model)
    model.config.final_logit_softcapping = None
    model.config.model_type = "unheard_of"
    assert not stands_apart(model)


def test_the_head_is_back_afterwards_and_after_an_error():
    model = tiny_model("llama")
    ids = torch.tensor([[5, 6, 7]])
    logits = model(ids).logits
    with pytest.raises(ZeroDivisionError), head_apart(model):
        assert model(ids).logits.shape == (1, 3, model.config.hidden_size)
        raise ZeroDivisionError
    assert torch.equal(model(ids).logits, logits)


@pytest.mark.parametrize("flags", [["--fp16"], ["--torch_compile"]], ids=str)
def test_where_the_head_stays(flags, make_base, command):
    if flags == ["--fp16"] and not torch.cuda.is_available():
        pytest.skip("fp16 needs a GPU")
    trainer, _ = trainer_of(command(make_base(), *flags))
    assert not trainer.loss_in_pieces
