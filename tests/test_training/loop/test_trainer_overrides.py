"""What the trainer overrides is there in the library under that name, and says why it is overridden."""

import inspect

import pytest
from transformers import Seq2SeqTrainer

from training.loop.trainer import QLoRATrainer

OWN = {"prepared", "computing", "loss_of_step", "generate_from", "settle_recomputation", "recompute", "whole_step"}
METHODS = {name for name, value in vars(QLoRATrainer).items() if inspect.isfunction(value)} - {"__init__"}
OVERRIDES = sorted(METHODS - OWN)


def test_our_own_methods_shadow_nothing():
    assert METHODS >= OWN
    assert not [name for name in sorted(OWN) if hasattr(Seq2SeqTrainer, name)]


@pytest.mark.parametrize("name", OVERRIDES)
def test_override_exists_in_the_library_and_says_why(name):
    assert hasattr(Seq2SeqTrainer, name), "the library never calls it"
    assert vars(QLoRATrainer)[name].__doc__


@pytest.mark.parametrize("name", OVERRIDES)
def test_override_takes_what_the_library_gives_it(name):
    """Whatever it is called with by the library's own signature, all of it or the least."""
    parameters = list(inspect.signature(getattr(Seq2SeqTrainer, name)).parameters.values())
    for given in (parameters, [p for p in parameters if p.default is p.empty]):
        names = [parameter.name for parameter in given]
        bound = inspect.signature(vars(QLoRATrainer)[name]).bind(*names)  # TypeError where one too many or few is taken
        assert [*bound.args, *bound.kwargs.values()] == names
