"""Whether packed rows stay apart: a check of the model that is trained, beside `training.model.base.check_packable`.

    check_packing(model, micro_batches, skips_head=True)     # of a few rows, before any are trained on

A model in which packed rows see one another trains without an error, and learns something else.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from common.errors import FailedRunError
from common.forward import relative_difference, rounding_limit
from common.labels import IGNORE_INDEX, LAYOUT, ROWS
from training.loop.loss import supervised_logits, supervised_only
from training.shortcuts.attention import attending, for_model

CHECKED_ROWS = 4  # the last ones of a sequence, which would see all that stands before them


def rows_in(sequence: Mapping[str, torch.Tensor]) -> int:
    """Return how many rows a packed sequence holds."""
    return len(places_of(sequence))


def places_of(sequence: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """Return where the tokens of each row of a packed sequence stand."""
    if ROWS in sequence:
        return [places[places >= 0] for places in sequence[ROWS]]
    positions = sequence["position_ids"][0]
    starts = (positions == 0).nonzero().flatten().tolist()
    return list(torch.tensor_split(torch.arange(len(positions), device=positions.device), starts)[1:])


def unpack(sequence: Mapping[str, torch.Tensor], last: int) -> dict[str, torch.Tensor]:
    """Return the last rows of a packed sequence, (1, tokens), as a padded batch, (at most `last`, longest of them)."""
    rows = places_of(sequence)[-last:]
    ids, labels = ([sequence[name][0, places] for places in rows] for name in ("input_ids", "labels"))
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORE_INDEX),
    }


def packing_error(model: nn.Module, sequence: Mapping[str, torch.Tensor], skips_head: bool) -> float:
    """Return the relative difference between logits of packed rows and those of the same rows by themselves.

    They are compared at the supervised positions of the last rows.
    """
    alone = supervised_logits(model, supervised_only(unpack(sequence, CHECKED_ROWS)), skips_head)
    with attending(model, sequence):
        packed = supervised_logits(model, supervised_only(for_model(sequence)), skips_head)
    return relative_difference(packed[len(packed) - len(alone) :], alone)


def check_packing(model: nn.Module, step: Sequence[Mapping[str, torch.Tensor]], skips_head: bool) -> None:
    """Compare packed rows of a step with the same rows by themselves.

    Where no sequence of the step holds two rows, this compares a row with itself and says nothing.

    Raises:
        FailedRunError: they differ by more than rounding does, or the logits are not finite.
    """
    model.eval()  # the step puts it back to training
    with torch.no_grad():
        error, limit = packing_error(model, max(step, key=rows_in), skips_head), rounding_limit(model)
    flag, advice = "--packing", "leave --packing out"
    if LAYOUT in step[0]:
        flag, advice = "--shared_prefix auto", "give --shared_prefix off"
    if math.isnan(error):
        raise FailedRunError(
            f"{flag}: the logits of rows in one sequence, or of the same rows by themselves, are not finite numbers: "
            f"whether rows stay apart cannot be checked. See whether the run goes well another way: {advice}."
        )
    if error > limit:
        raise FailedRunError(
            f"{flag}: the logits of rows in one sequence are {error:.1%} away from those of the same rows by "
            f"themselves; rounding explains at most {limit:.1%}. This model does not keep rows apart: {advice}."
        )
