"""The loss at supervised positions alone: logits of other positions are never held.

    inputs = supervised_only(batch)                      # asks the model for the logits that count
    loss = supervised_loss(model(**inputs), labels, num_items_in_batch)

A vocabulary of 150,000 makes the logits of all positions the largest tensor of a step.
"""

from collections.abc import Mapping

import torch
from torch import nn
from transformers.utils import ModelOutput

from common.forward import forward_parameters, takes
from common.labels import IGNORE_INDEX, PROMPT
from training.shortcuts.head import head_apart, token_losses


def supervised_tokens(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return how many tokens a causal model is asked to predict: it predicts no first token of a row."""
    return (batch["labels"][:, 1:] != IGNORE_INDEX).sum()


def without_prompts(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a batch without the prompts for generation."""
    return {name: value for name, value in batch.items() if not name.startswith(PROMPT)}


def supervised_only(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Ask the model for logits at supervised positions only, so that full logits are never held.

    Args:
        batch: `labels` and what else the model takes, each (batch, length).

    Returns:
        The batch with `logits_to_keep`, a boolean mask (batch, length) of the positions whose next token is supervised,
        and `labels`, the tokens to predict there, (number of True,). The model then gives logits (number of True,
        vocabulary), row by row.
    """
    following = nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORE_INDEX)  # (batch, length)
    keep = following != IGNORE_INDEX
    return {**batch, "logits_to_keep": keep, "labels": following[keep]}


def supervised_loss(
    outputs: ModelOutput, labels: torch.Tensor, num_items_in_batch: torch.Tensor, smoothing: float = 0.0
) -> torch.Tensor:
    """Return the cross entropy of a micro-batch over the supervised tokens of the whole step.

    transformers calls it: https://huggingface.co/docs/transformers/main_classes/trainer (compute_loss_func).

    Args:
        outputs: of a causal model; `logits` are (kept, vocabulary), or (batch, length, vocabulary).
        labels: (kept,), the tokens to predict there, or (batch, length), not shifted.
        num_items_in_batch: supervised tokens of the step.
        smoothing: share of each label that is spread over all tokens.
    """
    logits = outputs.logits
    if labels.ndim == 2:
        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    losses = nn.functional.cross_entropy(
        logits.float(),
        labels.to(logits.device),
        ignore_index=IGNORE_INDEX,
        reduction="sum",
        label_smoothing=smoothing,
    )
    return losses / num_items_in_batch.to(losses.device)


def supervised_logits(model: nn.Module, inputs: Mapping[str, torch.Tensor], skips_head: bool) -> torch.Tensor:
    """Return the logits at supervised positions, (number of True in `logits_to_keep`, vocabulary), row by row.

    Args:
        inputs: what `supervised_only` gives.
        skips_head: whether the model leaves the others out by itself; see `takes_logits_to_keep`.
    """
    asked = {name: value for name, value in inputs.items() if name != "labels"}
    if skips_head:
        return model(**asked).logits
    keep = asked.pop("logits_to_keep")
    logits = model(**asked).logits
    return logits[keep.to(logits.device)]


def supervised_losses(
    model: nn.Module, inputs: Mapping[str, torch.Tensor], skips_head: bool, in_pieces: bool
) -> torch.Tensor:
    """Return the cross entropy in nats at supervised positions, (number of True in `logits_to_keep`,), row by row.

    Args:
        inputs, skips_head: see `supervised_logits`.
        in_pieces: never hold all logits; see `training.shortcuts.head`.
    """
    if in_pieces:
        with head_apart(model):
            states = supervised_logits(model, inputs, skips_head)
        return token_losses(states, inputs["labels"], model.get_output_embeddings())
    logits = supervised_logits(model, inputs, skips_head)
    return nn.functional.cross_entropy(logits.float(), inputs["labels"].to(logits.device), reduction="none")


def row_losses(
    losses: torch.Tensor, inputs: Mapping[str, torch.Tensor], places: torch.Tensor | None = None
) -> torch.Tensor:
    """Return summed loss and number of supervised tokens of each row.

    Args:
        losses: what `supervised_losses` gives.
        inputs: what `supervised_only` gives.
        places: (rows, longest), where the tokens of each row stand in one sequence, filled up with −1; None where rows
            are those of the batch.

    Returns:
        (rows, 2) tensor of loss sums in nats, and counts.
    """
    keep = inputs["logits_to_keep"].to(losses.device)
    if places is None:
        count, rows = len(keep), keep.nonzero()[:, 0]  # row of each kept position
    else:
        own, count = (places >= 0).nonzero()[:, 0], len(places)
        row_of = torch.zeros(keep.shape[1], dtype=torch.long, device=losses.device)
        row_of[places[places >= 0]] = own  # several rows may have tokens in common, but none that predicts one
        rows = row_of[keep[0]]
    sums = torch.zeros(count, 2, device=losses.device)
    return sums.index_add_(0, rows, torch.stack([losses, torch.ones_like(losses)], dim=1))


def takes_logits_to_keep(model: nn.Module) -> bool:
    """Return whether the forward pass of a model can skip the head where nothing is supervised."""
    parameters = forward_parameters(model).values()
    return takes(model, "logits_to_keep") and any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
