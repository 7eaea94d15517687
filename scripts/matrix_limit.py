"""What a training step needs of matrix products, and how many of them this machine computes in a second.

    needed = operations("path/to/model", report, lora_r=64)      # of a run's data report
    needed.total / products_per_second()                         # seconds that no way of training gets below

Attention is left out, which is a few per cent of rows of some hundred tokens; so is all that is done twice.
"""

import statistics
import time
from dataclasses import dataclass
from typing import Any

ROUNDS = 15


@dataclass(frozen=True)
class Operations:
    """Of one pass over the rows.

    Attributes:
        tokens: of all rows, each counted in its row.
        computed: those that are left where rows of a step have what they begin with in common.
        supervised: tokens that are predicted.
        total: additions and multiplications.
    """

    tokens: int
    computed: float
    supervised: int
    total: float


def operations(model: str, report: dict[str, Any], lora_r: int) -> Operations:
    """Count the products of forward and backward passes of LoRA on all linear layers but the head.

    A product of one token with a weight takes two operations for each of its numbers: once forward, once backward for
    the gradient of what comes in, and of LoRA's own weights once more for theirs.

    Args:
        model: directory, of which config.json is read.
        report: `data_report.json` of a run.
    """
    import torch
    from torch import nn
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    head = skeleton.get_output_embeddings()
    layers = [layer for layer in skeleton.modules() if isinstance(layer, nn.Linear) and layer is not head]
    weights = sum(layer.weight.numel() for layer in layers)
    lora = sum(lora_r * (layer.in_features + layer.out_features) for layer in layers)
    train = report["train"]
    tokens, supervised = train["tokens"], train["supervised"]["tokens"]
    computed = tokens * (1 - report["batching"].get("shared_share", 0.0))
    return Operations(
        tokens, computed, supervised, computed * (4 * weights + 6 * lora) + supervised * 4 * head.weight.numel()
    )


def products_per_second(tokens: int = 640, size: int = 768, inner: int = 2048) -> float:
    """Return the operations a second of a bare product of the shape of a layer, in what training computes in."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    scale = 8 if device == "cuda" else 1  # so that a GPU has enough to do
    states = torch.randn(tokens * scale, size * scale, device=device, dtype=dtype)
    weight = torch.randn(inner * scale, size * scale, device=device, dtype=dtype)
    seconds = []
    for _ in range(ROUNDS):
        start = now()
        states @ weight.T
        seconds.append(now() - start)
    return 2 * states.numel() * inner * scale / statistics.median(seconds)


def now() -> float:
    """Return the time in seconds at which the device has done what it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
