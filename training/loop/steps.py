"""Optimizer steps that come as one list of micro-batches: who gets which rows, and whether packed rows stay apart."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import BatchSampler, Sampler

from common.errors import FailedRunError
from training.loop.loss import IGNORED, supervised_logits, supervised_only
from training.model.base import ModelError

Step = list[dict[str, torch.Tensor]]
# Model types whose packed logits equal the unpacked ones; tests/test_packing.py proves each.
PACKABLE = (
    "cohere", "gemma", "gemma2", "gemma3_text", "glm4", "gpt2", "gpt_bigcode", "gpt_neox", "gptj", "granite", "llama",
    "mistral", "olmo", "olmo2", "phi", "phi3", "qwen2", "qwen3", "smollm3", "starcoder2",
)  # fmt: skip
CHECKED_ROWS = 4  # the last ones of a sequence, which would see all that stands before them
# `packing_error` of models that keep rows apart is at most 4e-7 in fp32, and 0.007 in bf16 at up to 32 layers; with
# 8-bit layers 0.006 in the trained models of data/demo and stories260K, and 0.013 in a random one of 32 layers; of
# trained models that do not, 0.3 and more (random ones of two layers: OPT, Falcon and MPT 0.4, BLOOM 0.013). 8-bit
# layers have more room: no deep trained model in 8 bits has been measured.
EXACT, ROUNDED, ROUNDED_INT8 = 1e-3, 0.05, 0.15


class StepSampler(Sampler[list[int]]):
    """The row numbers of each optimizer step, in equal shares, one for each process in turn.

    accelerate gives the shares out to the processes in this order. The last step of an epoch is what is left, shared
    out in the same way; where that is fewer rows than there are processes, its first row is repeated.

    Args:
        sampler: the order of the rows.
        rows: those of a step, over all processes.
        processes: how many there are.
        drop_last: leave out a last step that is not full.
    """

    def __init__(self, sampler: Sampler[int], rows: int, processes: int, drop_last: bool):
        self.sampler = sampler  # accelerate puts one with a seed of its own here
        self.rows, self.processes, self.drop_last = rows, processes, drop_last

    def steps(self) -> BatchSampler:
        return BatchSampler(self.sampler, self.rows, self.drop_last)

    def __len__(self) -> int:
        return len(self.steps()) * self.processes

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps():
            for process in range(self.processes):
                yield step[process :: self.processes] or step[:1]


def all_tokens(step: Step) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` of all micro-batches behind one another, each (tokens, padding included)."""
    masks = [batch.get("attention_mask", torch.ones_like(batch["input_ids"])) for batch in step]
    return {
        "input_ids": torch.cat([batch["input_ids"].flatten() for batch in step]),
        "attention_mask": torch.cat([mask.flatten() for mask in masks]),
    }


# ---- Packing -------------------------------------------------------------------------------------------------------


def check_packable(model_type: str) -> None:
    """Refuse --packing for an architecture in which packed rows might see one another.

    Raises:
        ModelError: naming it, and those that are known to keep rows apart.
    """
    if model_type not in PACKABLE:
        raise ModelError(
            f"--packing with a model of type {model_type}: it is not known to keep packed rows apart, and where they "
            f"see one another training goes wrong in silence. Leave --packing out. Known are: {', '.join(PACKABLE)}."
        )


def unpack(sequence: Mapping[str, torch.Tensor], last: int) -> dict[str, torch.Tensor]:
    """The last rows of a packed sequence, (1, tokens), as a padded batch, (at most `last`, longest of them)."""
    starts = (sequence["position_ids"][0] == 0).nonzero().flatten()[-last:].tolist()
    ids, labels = (torch.tensor_split(sequence[name][0], starts)[1:] for name in ("input_ids", "labels"))
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    }


def packing_error(model: nn.Module, sequence: Mapping[str, torch.Tensor], skips_head: bool) -> float:
    """How far the logits of packed rows are from those of the same rows by themselves.

    Returns:
        The norm of the difference over the norm of the logits, at the supervised positions of the last rows; each
        position's logits count from their mean, as a softmax does not see it.
    """
    alone = supervised_logits(model, supervised_only(unpack(sequence, CHECKED_ROWS)), skips_head).float()
    packed = supervised_logits(model, supervised_only(dict(sequence)), skips_head).float()
    packed = packed[len(packed) - len(alone) :]
    alone, packed = (logits - logits.mean(dim=-1, keepdim=True) for logits in (alone, packed))
    return ((packed - alone).norm() / alone.norm()).item()


def rows_in(sequence: Mapping[str, torch.Tensor]) -> int:
    """How many rows a packed sequence holds."""
    return int((sequence["position_ids"] == 0).sum())


def check_packing(model: nn.Module, step: Step, skips_head: bool, args: Any) -> None:
    """Compare packed rows of a step with the same rows by themselves, once, before they are trained on.

    Where no sequence of the step holds two rows, this compares a row with itself and says nothing.

    Raises:
        FailedRunError: they differ by more than rounding does, or the logits are not finite.
    """
    rounds = args.bf16 or args.fp16 or args.tf32 or any(p.dtype.itemsize == 2 for p in model.parameters())
    limit = ROUNDED_INT8 if args.bits == 8 else ROUNDED if rounds else EXACT
    model.eval()  # the step puts it back to training
    with torch.no_grad():
        error = packing_error(model, max(step, key=rows_in), skips_head)
    if math.isnan(error):
        raise FailedRunError(
            "--packing: the logits of packed rows, or of the same rows by themselves, are not finite numbers: whether "
            "rows stay apart cannot be checked. See whether the run goes well without --packing."
        )
    if error > limit:
        raise FailedRunError(
            f"--packing: the logits of packed rows are {error:.1%} away from those of the same rows by themselves; "
            f"rounding explains at most {limit:.1%}. This model does not keep packed rows apart: leave --packing out."
        )
