"""What rounding may do to logits, and a model that is put back as it was."""

import torch
from torch import nn

from common.forward import EXACT, ROUNDED, evaluating, relative_difference, rounding_limit


def test_logits_are_compared_but_for_their_mean():
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    assert relative_difference(logits + 5, logits) < EXACT / 100
    assert 0.9 < relative_difference(2 * logits, logits) < 1.1


def test_the_limit_is_that_of_the_precision():
    assert rounding_limit(nn.Linear(2, 2)) == EXACT
    assert rounding_limit(nn.Linear(2, 2).to(torch.bfloat16)) == ROUNDED
    with torch.autocast("cpu", torch.bfloat16):
        assert rounding_limit(nn.Linear(2, 2)) == ROUNDED


def test_every_module_is_put_back_into_its_mode():
    model = nn.Sequential(nn.Dropout(), nn.Dropout())
    model[0].eval()
    with evaluating(model):
        assert not model[1].training and not torch.is_grad_enabled()
    assert model.training and model[1].training and not model[0].training and torch.is_grad_enabled()
