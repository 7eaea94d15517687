"""The loss at supervised positions: the whole loss, of whatever logits a model gives, and by row."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers.utils import ModelOutput

from common.labels import IGNORE_INDEX, PROMPT
from tests.conftest import ARCHITECTURES
from tests.support.flags import trainer_of
from tests.support.rounding import ROUNDING, assert_near
from tests.test_training.loop.test_trainer import batch_of
from training.loop.loss import (
    row_losses,
    supervised_logits,
    supervised_loss,
    supervised_losses,
    supervised_only,
    supervised_tokens,
    takes_logits_to_keep,
    without_prompts,
)

# Two rows of which the first has two supervised tokens to predict, and the second one: its first token has none before.
BATCH = {
    "input_ids": torch.tensor([[5, 6, 7, 8], [9, 4, 3, 3]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
    "labels": torch.tensor([[IGNORE_INDEX, IGNORE_INDEX, 7, 8], [9, 4, IGNORE_INDEX, IGNORE_INDEX]]),
}
VOCABULARY = 11


class Model(nn.Module):
    """A table of logits by token, as a causal model without context, that can skip positions."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(VOCABULARY, VOCABULARY, generator=generator))

    def forward(self, input_ids, attention_mask=None, logits_to_keep=None, **kwargs):
        assert not kwargs, "labels would make a model of the library compute its loss too"
        logits = self.table[input_ids]
        return ModelOutput(logits=logits if logits_to_keep is None else logits[logits_to_keep])


class FullModel(Model):
    """The same, for which every position goes through the head."""

    def forward(self, input_ids, attention_mask=None):
        return super().forward(input_ids, attention_mask)


def plain_losses() -> torch.Tensor:
    """The loss of each supervised token of `BATCH`, by torch alone."""
    logits = Model().table[BATCH["input_ids"]][:, :-1].flatten(0, 1)
    losses = functional.cross_entropy(logits, BATCH["labels"][:, 1:].flatten(), reduction="none")
    return losses[losses != 0]


# ---- Which positions count -----------------------------------------------------------------------------------------


def test_the_first_token_of_a_row_is_not_predicted():
    assert int(supervised_tokens(BATCH)) == 3


def test_logits_are_asked_for_before_each_supervised_token():
    asked = supervised_only(BATCH)
    assert asked["logits_to_keep"].tolist() == [[False, True, True, False], [True, False, False, False]]
    assert asked["labels"].tolist() == [7, 8, 4]
    assert asked["input_ids"] is BATCH["input_ids"] and asked["attention_mask"] is BATCH["attention_mask"]
    assert BATCH["labels"].shape == (2, 4)


def test_a_batch_without_supervised_tokens_asks_for_no_logits():
    asked = supervised_only({"labels": torch.full((2, 3), IGNORE_INDEX)})
    assert not asked["logits_to_keep"].any() and asked["labels"].shape == (0,)


def test_prompts_are_left_out_and_nothing_else():
    prompts = {f"{PROMPT}{name}": BATCH[name] for name in ("input_ids", "attention_mask")}
    assert without_prompts(BATCH | prompts).keys() == BATCH.keys()


# ---- The loss ------------------------------------------------------------------------------------------------------


def test_the_loss_of_full_logits_and_of_kept_ones_is_that_of_torch():
    asked, items = supervised_only(BATCH), torch.tensor(3)
    full = supervised_loss(ModelOutput(logits=Model().table[BATCH["input_ids"]]), BATCH["labels"], items)
    logits = supervised_logits(Model(), asked, skips_head=True)
    kept = supervised_loss(ModelOutput(logits=logits), asked["labels"], items)
    assert full.item() == pytest.approx(plain_losses().mean().item(), rel=ROUNDING)
    assert kept.item() == pytest.approx(full.item(), rel=ROUNDING)


def test_a_micro_batch_counts_by_the_tokens_of_the_whole_step():
    logits, labels = Model().table[BATCH["input_ids"]], BATCH["labels"]
    parts = [supervised_loss(ModelOutput(logits=logits[[n]]), labels[[n]], torch.tensor(3)) for n in (0, 1)]
    assert sum(parts).item() == pytest.approx(plain_losses().mean().item(), rel=ROUNDING)


def test_smoothing_spreads_a_share_of_each_label_over_all_tokens():
    logits, labels = Model().table[:3], torch.tensor([7, 8, 4])
    smoothed = supervised_loss(ModelOutput(logits=logits), labels, torch.tensor(3), smoothing=0.1)
    logs = logits.log_softmax(dim=-1)
    expected = -(0.9 * logs[range(3), labels] + 0.1 * logs.mean(dim=-1)).mean()
    assert smoothed.item() == pytest.approx(expected.item(), rel=ROUNDING)


def test_the_loss_of_bfloat16_logits_is_computed_in_fp32():
    logits, labels = Model().table[:3].bfloat16(), torch.tensor([7, 8, 4])
    loss = supervised_loss(ModelOutput(logits=logits), labels, torch.tensor(3))
    assert loss.dtype is torch.float32
    assert loss.item() == pytest.approx(functional.cross_entropy(logits.float(), labels).item(), rel=ROUNDING)


def test_logits_are_the_same_where_the_head_is_not_skipped():
    asked = supervised_only(BATCH)
    assert torch.equal(supervised_logits(FullModel(), asked, False), supervised_logits(Model(), asked, True))


def test_row_losses_are_sums_and_counts_of_each_row():
    nothing = {name: value[:1] for name, value in BATCH.items()} | {"labels": torch.full((1, 4), IGNORE_INDEX)}
    asked = supervised_only({name: torch.cat([value, nothing[name]]) for name, value in BATCH.items()})
    losses = row_losses(supervised_losses(Model(), asked, skips_head=True, in_pieces=False), asked)
    first, second, third = plain_losses().tolist()
    assert losses.flatten().tolist() == pytest.approx([first + second, 2, third, 1, 0, 0], rel=ROUNDING)


# ---- Models of the library -----------------------------------------------------------------------------------------


def test_the_head_is_skipped_where_a_model_takes_what_to_keep_and_further_arguments():
    class Without(Model):
        def forward(self, input_ids, logits_to_keep=None):
            pass

    class Other(Model):
        def forward(self, input_ids, **kwargs):
            pass

    class Adapted(nn.Module):
        def get_base_model(self):
            return Model()

    assert takes_logits_to_keep(Model()) and takes_logits_to_keep(Adapted())
    assert not any(takes_logits_to_keep(model) for model in (FullModel(), Without(), Other()))


def gradients(model, inputs, loss_of=lambda outputs: outputs.loss):
    """The loss of a batch and its gradients; `loss_of` computes it of the logits that the model gives."""
    model.zero_grad()
    asked = inputs if "logits_to_keep" not in inputs else {n: v for n, v in inputs.items() if n != "labels"}
    loss = loss_of(model(**asked))
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loss_at_supervised_positions_is_the_whole_loss(architecture, make_base, make_args, command):
    """Skipping the head where nothing is supervised changes neither loss nor gradient, and never holds full logits."""
    trainer, module = trainer_of(command(make_base(architecture)))
    inputs = batch_of(module)
    assert takes_logits_to_keep(trainer.model)
    # LoRA's B starts at zero, where A has no gradient: compare at a point where both have one.
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    plain_loss, plain = gradients(trainer.model, inputs)
    kept = supervised_only(inputs)
    items = supervised_tokens(inputs)
    kept_loss, sparse = gradients(trainer.model, kept, lambda outputs: supervised_loss(outputs, kept["labels"], items))
    assert kept_loss == pytest.approx(plain_loss, rel=ROUNDING)
    assert_near(sparse, plain)
    logits = supervised_logits(trainer.model, kept, skips_head=True)
    assert logits.shape[0] == int((inputs["labels"][:, 1:] != -100).sum()) < inputs["labels"].numel()


@pytest.mark.parametrize("in_pieces", [False, True])
def test_row_losses_add_up_to_each_rows_own_loss(in_pieces, make_base, make_args, command):
    trainer, module = trainer_of(command(make_base()))
    inputs = batch_of(module)
    with torch.no_grad():
        kept = supervised_only(inputs)
        together = row_losses(supervised_losses(trainer.model, kept, True, in_pieces), kept)
        for row in range(len(together)):
            one = {name: value[row : row + 1] for name, value in inputs.items()}
            mean = trainer.model(**one).loss.item()
            assert together[row, 0].item() / together[row, 1].item() == pytest.approx(mean, rel=ROUNDING)
