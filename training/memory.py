"""What memory a training step takes, part by part, and how many layers to recompute so that it fits.

    usage = measure(model, bytes_per_weight("adamw_torch"))
    chosen = choose(usage, tokens=4096, supervised=1024, free=free_memory(device))
    chosen.every, chosen.bytes        # 2: one of two layers is computed again in the backward pass

The activations are not guessed from the shape of a model: a few tokens go through it, and what autograd keeps of them
is counted, layer by layer. All of it grows with the tokens.
"""

import contextlib
import itertools
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from common.forward import takes

PROBE = (2, 64)  # rows and tokens of each that are sent through the model
# Which layers are recomputed, from the fastest: none, every fourth, every second, all.
EVERY = (0, 4, 2, 1)
# What an optimizer keeps of a weight, by a part of its name; two float32 numbers, as Adam does, where none is known.
STATE_BYTES = {"8bit": 2, "4bit": 1, "sgd": 0, "adafactor": 0, "lion": 4, "rmsprop": 4, "adagrad": 4, "ademamix": 12}
LOGITS = 3  # tensors of their size that the loss of whole logits needs at a time: log-softmax, and two gradients
GRADIENTS = 0.25  # of what a layer keeps: its gradients that are needed at a time; measured, see tests/test_training
ROOM = 0.85  # of what is free: allocators lose some, and other programs want some
CGROUPS = (  # limit, what is used of it, statistics: version 2 and version 1
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


@dataclass(frozen=True)
class Usage:
    """What a model takes in training, in bytes.

    Attributes:
        layers: how many there are.
        layer, layer_input: what one of them keeps of a token for the backward pass, and its input alone.
        outside: what is kept of a token outside of layers, but for logits.
        logits: of a supervised token.
        fixed: gradients and the state of the optimizer.
        piece: the most bytes of logits, where the loss takes them in pieces (`training.shortcuts.head`), else None.
    """

    layers: int
    layer: float
    layer_input: float
    outside: float
    logits: float
    fixed: int
    piece: int | None = None

    def step(self, tokens: int, supervised: int, every: int) -> int:
        """Return what a micro-batch takes beside the model itself.

        Args:
            tokens, supervised: of the micro-batch.
            every: of so many layers one is recomputed, 0 for none.
        """
        kept = [self.layer_input if every and number % every == 0 else self.layer for number in range(self.layers)]
        # While a layer is computed again, those behind it are done with and have let go of what they kept.
        again = [sum(kept[: number + 1]) + self.layer for number in range(self.layers) if kept[number] < self.layer]
        logits = supervised * self.logits
        logits = LOGITS * logits if self.piece is None else min(logits, self.piece)
        most = max([tokens * sum(kept) + logits, *(tokens * bytes_kept for bytes_kept in again)])
        return int(self.fixed + most + tokens * (self.outside + GRADIENTS * self.layer))


@dataclass(frozen=True)
class Recomputation:
    """How many layers are recomputed, and why.

    Attributes:
        every: of so many layers one, 0 for none.
        bytes, least: what a step takes beside the model so, and with every layer recomputed.
        free: bytes that were free.
    """

    every: int
    bytes: int
    least: int
    free: int

    def __str__(self) -> str:
        needs, least, free = (f"{number / 1e9:.2f}" for number in (self.bytes, self.least, self.free))
        others = "" if self.every == 1 else f"; recomputing every layer, {least} GB"
        tight = "; that is tight" if self.bytes > ROOM * self.free else ""
        layers = layers_in_words(self.every)
        return f"recomputing {layers}: a step takes about {needs} GB of {free} GB that are free{others}{tight}"


def layers_in_words(every: int) -> str:
    """Return which layers are recomputed, as text."""
    return {0: "no layer", 1: "every layer"}.get(every, f"one of {every} layers")


def slower(every: int | None) -> int | None:
    """Return what takes less memory than recomputing one of `every` layers; None where nothing does."""
    after = dict(itertools.pairwise(EVERY))
    return after.get(every)


def bytes_per_weight(optimizer: str) -> float:
    """Return the bytes that an optimizer of transformers, by its name, keeps of a trained weight."""
    return next((size for part, size in STATE_BYTES.items() if part in optimizer), 8)


def choose(usage: Usage, tokens: int, supervised: int, free: int) -> Recomputation:
    """Return the fastest way that leaves room, or the smallest where none does.

    Args:
        tokens, supervised: of the largest micro-batch.
        free: bytes.
    """
    sizes = {every: usage.step(tokens, supervised, every) for every in EVERY}
    every = next((every for every, size in sizes.items() if size <= ROOM * free), EVERY[-1])
    return Recomputation(every, sizes[every], sizes[1], free)


def measure(model: nn.Module, trainable_state: float, piece: int | None = None) -> Usage | None:
    """Send a few tokens through a model, and count what is kept for its backward pass.

    Args:
        model: with all that is trained; its gradients stay as they are.
        trainable_state: bytes of the optimizer's state for each trainable weight.
        piece: see `Usage`.

    Returns:
        None where it has no layers that transformers could recompute.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        return None
    rows, length = PROBE
    device = model.get_input_embeddings().weight.device
    ids = torch.zeros(PROBE, dtype=torch.long, device=device)
    options = {"use_cache": False} if takes(model, "use_cache") else {}
    modes = {module: module.training for module in model.modules()}
    model.train()
    devices = [device] if device.type == "cuda" else []
    with counting(model, layers) as (kept, inputs), torch.random.fork_rng(devices=devices):
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **options).logits
    for module, training in modes.items():
        module.training = training
    tokens, layer = rows * length, statistics.median(kept[number] for number in range(len(layers)))
    trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    gradients = sum(weight.nbytes for weight in model.parameters() if weight.requires_grad and weight.grad is None)
    return Usage(
        layers=len(layers),
        layer=layer / tokens,
        layer_input=max(inputs) / tokens,
        outside=(kept.total() - layer * len(layers)) / tokens,  # the first layer keeps what all use, too
        logits=logits.shape[-1] * 4,
        fixed=int(gradients + trainable * trainable_state),
        piece=piece,
    )


@contextlib.contextmanager
def counting(model: nn.Module, layers: list[nn.Module]) -> Iterator[tuple[Counter, list[int]]]:
    """Count the bytes that autograd keeps of a forward pass, by layer; and those of what each layer is given.

    Yields:
        (kept, inputs): layer → bytes, None for what is outside of layers; the bytes of each layer's input.
    """
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: Counter = Counter()
    inputs: list[int] = []
    where: list[int | None] = [None]
    alive: dict[int, torch.Tensor] = {}  # so that no memory is used again while it is counted

    def enters(number: int):
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            where[0] = number
            states = next(value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
            inputs.append(states.nbytes)

        return hook

    def leaves(module: nn.Module, args: tuple, output: object) -> None:
        where[0] = None

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and storage.data_ptr() not in alive:
            alive[storage.data_ptr()] = tensor
            kept[where[0]] += storage.nbytes()
        return tensor

    handles = [layer.register_forward_hook(leaves) for layer in layers]
    handles += [
        layer.register_forward_pre_hook(enters(number), with_kwargs=True) for number, layer in enumerate(layers)
    ]
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            yield kept, inputs
    finally:
        for handle in handles:
            handle.remove()


def free_memory(device: torch.device, limit: int | None = None) -> int:
    """Return the bytes that this process may still take on a device.

    Args:
        limit: bytes of a GPU that it may take in all.
    """
    if device.type != "cuda":
        return min(psutil.virtual_memory().available, *cgroup_memory())
    free, _ = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    free += torch.cuda.memory_reserved(device) - allocated
    return free if limit is None else min(free, limit - allocated)


def cgroup_memory(root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Return the bytes that are left of each limit that a container sets; files that are only cached count as free."""
    left = []
    for limit, used, counts in CGROUPS:
        try:
            most, taken = ((root / name).read_text().strip() for name in (limit, used))
            lines = dict(line.split() for line in (root / counts).read_text().splitlines())
        except OSError:
            continue
        if most != "max":
            cached = int(lines.get("total_inactive_file", lines.get("inactive_file", 0)))
            left.append(int(most) - int(taken) + cached)
    return left
