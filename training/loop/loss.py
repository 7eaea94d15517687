"""The loss at supervised positions alone: logits of other positions are never held."""

import inspect

import torch
from torch import nn
from transformers.trainer_pt_utils import LabelSmoother

IGNORED = LabelSmoother.ignore_index  # transformers' mark for labels that are not supervised


def supervised_tokens(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The number of tokens that a causal model is asked to predict: labels but the first of each row, which none is."""
    return (inputs["labels"][:, 1:] != IGNORED).sum()


def supervised_only(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Ask the model for logits at supervised positions only, so that full logits are never held.

    Args:
        inputs: `labels` and what else the model takes, each (batch, length).

    Returns:
        The inputs with `logits_to_keep`, a boolean mask (batch, length) of the positions whose next token is
        supervised, and `labels` = `shift_labels`, the tokens to predict there (number of True). The model then
        gives logits (number of True, vocabulary), and its own loss function is right as it is.
    """
    following = nn.functional.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED)  # (batch, length)
    keep = following != IGNORED
    targets = following[keep]
    return {**inputs, "logits_to_keep": keep, "labels": targets, "shift_labels": targets}


def supervised_logits(model: nn.Module, kept: dict[str, torch.Tensor], skips_head: bool) -> torch.Tensor:
    """The logits at supervised positions, (number of True in `logits_to_keep`, vocabulary), row by row.

    Args:
        kept: the inputs that `supervised_only` made.
        skips_head: whether the model leaves the others out by itself; see `takes_logits_to_keep`.
    """
    asked = {name: kept[name] for name in kept if name not in ("labels", "shift_labels")}
    if not skips_head:
        asked.pop("logits_to_keep")
    logits = model(**asked).logits
    return logits if skips_head else logits[kept["logits_to_keep"].to(logits.device)]


def row_losses(logits: torch.Tensor, kept: dict[str, torch.Tensor]) -> torch.Tensor:
    """Summed loss and number of supervised tokens of each row.

    Args:
        logits: (number of True in `logits_to_keep`, vocabulary).
        kept: the inputs that `supervised_only` made.

    Returns:
        (batch, 2) tensor of loss sums in nats, and counts.
    """
    mask = kept["logits_to_keep"]
    mask, labels = mask.to(logits.device), kept["labels"].to(logits.device)
    losses = nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    rows = mask.nonzero()[:, 0]  # row of each kept position
    sums = torch.zeros(len(mask), device=losses.device).index_add_(0, rows, losses)
    return torch.stack([sums, mask.sum(dim=1).float()], dim=1)


def takes_logits_to_keep(model: nn.Module) -> bool:
    """Whether the forward pass of a (PEFT-wrapped) model can skip the head where nothing is supervised."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    parameters = inspect.signature(base.forward).parameters
    return "logits_to_keep" in parameters and any(p.kind is p.VAR_KEYWORD for p in parameters.values())
