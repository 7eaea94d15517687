"""GPU memory that each scripts/finetune_*.sh needs: computed from the model's shape and the script's flags.

    python -m scripts.memory_table        # the table, in Markdown

Nothing here is measured. In bytes, with s = 2 for bf16 and 4 for fp32:

    quantized weights  1/2 + 1/64 + 4/(64·256) = 0.516 each: 4 bits, an 8-bit constant for every 64 of them, and an
                       fp32 constant for every 256 of those
    other weights      s each: embeddings, norms, and the head where it is not the embedding itself
    LoRA               16 for each of r·(in + out) weights in every linear layer: fp32 weight 4, gradient 4, AdamW 8
    activations        s·hidden·layers for each token (checkpointing keeps the input of each layer) and the larger of
                       one layer: its largest matrix dequantized, and for each token (8 + 2s)·hidden for the norms,
                       6s·heads·head_dim for attention, 7s·intermediate (4s without a gate) for the MLP and its
                       gradients, with dropout s + 1 for each input of a linear layer
                       the logits: 14·vocabulary for each supervised token (fp32 copies, log-softmax, gradient)
    CUDA               1 GiB: context, workspaces, kernels

Every row is taken to be source_max_len + target_max_len long. AdamW's moments (8 of the 16) are paged: they move to
main memory when the GPU is full, and steps take longer.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from arguments.parser import parse

GIB = 2**30
CARDS = (8, 12, 16, 24, 32, 40, 48, 80, 96, 141)  # GiB of one GPU
SPARE = 1.1  # what the driver keeps and the allocator cannot use


@dataclass
class Shape:
    """A decoder: sizes as in its config.json."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    head_dim: int = 128
    tied: bool = False  # the head is the embedding
    neox: bool = False  # query, key and value in one matrix, no gate in the MLP

    def linear_layers(self) -> list[tuple[int, int]]:
        """Return (in, out) of each linear layer of one block."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        qkv = [queries + 2 * keys] if self.neox else [queries, keys, keys]
        up = [self.intermediate] if self.neox else [self.intermediate] * 2
        inward = [(self.hidden, n) for n in qkv + up]
        return [*inward, (queries, self.hidden), (self.intermediate, self.hidden)]

    def quantized(self) -> int:
        return self.layers * sum(n * m for n, m in self.linear_layers())

    def other(self) -> int:
        return self.vocab * self.hidden * (1 if self.tied else 2) + (2 * self.layers + 1) * self.hidden

    def lora(self, r: int) -> int:
        return self.layers * sum(r * (n + m) for n, m in self.linear_layers())


SHAPES = {
    "EleutherAI/pythia-12b": Shape(5120, 36, 40, 40, 20480, 50688, neox=True),
    "huggyllama/llama-7b": Shape(4096, 32, 32, 32, 11008, 32000),
    "huggyllama/llama-13b": Shape(5120, 40, 40, 40, 13824, 32000),
    "huggyllama/llama-30b": Shape(6656, 60, 52, 52, 17920, 32000),
    "huggyllama/llama-65b": Shape(8192, 80, 64, 64, 22016, 32000),
    "meta-llama/Llama-2-7b-hf": Shape(4096, 32, 32, 32, 11008, 32000),
    "meta-llama/Llama-3.1-8B": Shape(4096, 32, 32, 8, 14336, 128256),
    "meta-llama/Llama-3.1-70B": Shape(8192, 80, 64, 8, 28672, 128256),
    "Qwen/Qwen3-0.6B-Base": Shape(1024, 28, 16, 8, 3072, 151936, tied=True),
    "Qwen/Qwen3-4B-Base": Shape(2560, 36, 32, 8, 9728, 151936, tied=True),
    "Qwen/Qwen3-8B-Base": Shape(4096, 36, 32, 8, 12288, 151936),
    "Qwen/Qwen3-32B": Shape(5120, 64, 64, 8, 25600, 151936),
}


class Need:
    """What one script needs, in GiB.

    Attributes:
        parts: name → size, as at the top of this file; `total` is their sum.
        paged: the part of them that may be paged out.
    """

    def __init__(self, script: Path):
        model, data, training, _ = parse(recipe_argv(script))
        self.model, self.r = model.model_name_or_path, training.lora_r
        rows, source, target = training.per_device_train_batch_size, data.source_max_len, data.target_max_len
        self.batch = f"{rows} x ({source} + {target})"
        shape, s = SHAPES[self.model], 2 if training.bf16 else 4
        layers, tokens, adapter = shape.linear_layers(), rows * (source + target), shape.lora(self.r)
        one_token = (8 + 2 * s) * shape.hidden + 6 * s * shape.heads * shape.head_dim
        one_token += (4 if shape.neox else 7) * s * shape.intermediate
        one_token += (s + 1) * sum(n for n, _ in layers) if training.lora_dropout else 0
        one_layer = s * max(n * m for n, m in layers) + one_token * tokens
        checkpoints = s * shape.hidden * shape.layers * tokens
        self.parts = {
            "quantized weights": shape.quantized() * (1 / 2 + 1 / 64 + 4 / (64 * 256)) / GIB,
            "other weights": shape.other() * s / GIB,
            "LoRA": 16 * adapter / GIB,
            "activations": (checkpoints + max(one_layer, 14 * shape.vocab * rows * target)) / GIB,
            "CUDA": 1.0,
        }
        self.paged, self.total = 8 * adapter / GIB, sum(self.parts.values())

    def cards(self) -> str:
        """Return the smallest GPU that holds all, and the one that does with AdamW's moments paged out."""
        full, paged = (next(card for card in CARDS if card >= n * SPARE) for n in (self.total, self.total - self.paged))
        return f"{full} GB" if paged == full else f"{full} GB ({paged} GB paged)"

    def comment(self) -> str:
        """Return the comment that belongs in the script."""
        return (
            f"# GPU memory: {self.total:.1f} GiB for micro-batches of {self.batch} tokens; one GPU of {self.cards()}.\n"
            f"#   = {' + '.join(f'{name} {size:.1f}' for name, size in self.parts.items())}\n"
            "#   Computed, not measured: the top of scripts/memory_table.py says how."
        )


def recipe_argv(script: Path) -> list[str]:
    """Return the flags that a recipe gives to qlora.py: it runs with an `exec` that shows its arguments instead."""
    show = 'exec() { printf "%s\\n" "${@:3}"; }; source "$0"'
    run = subprocess.run(["bash", "-c", show, str(script)], capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


def table(scripts: list[Path]) -> str:
    """Return Markdown, one row for each script, the smallest need first."""
    lines = [
        "| script | base model | r | micro-batch, tokens | weights | LoRA, AdamW | activations | in all | one GPU of |",
        "|---|---|--:|---|--:|--:|--:|--:|---|",
    ]
    for need, script in sorted(((Need(path), path) for path in scripts), key=lambda pair: pair[0].total):
        weights = need.parts["quantized weights"] + need.parts["other weights"]
        sizes = f"{weights:.1f} | {need.parts['LoRA']:.1f} | {need.parts['activations']:.1f} | {need.total:.1f}"
        lines.append(f"| `{script.name}` | {need.model} | {need.r} | {need.batch} | {sizes} GiB | {need.cards()} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(list(Path(__file__).parent.glob("finetune_*.sh"))))
