"""Rows per second and padding of each way to make micro-batches of the same rows, against random ones, in one run.

    python -m scripts.benchmark                                     # demo rows, a random Llama of 4 layers of 256
    python -m scripts.benchmark --dataset alpaca_data.json --model DIR --rows 512 -- --bf16
    python -m scripts.benchmark --hidden 512 --layers 8 --batch 4 --accumulation 16 --max_tokens 4096

Every way trains one epoch on the same rows, in steps of the same size, from the same weights. Flags behind `--` go to
all of them. Rows per second leave out the first step, which also builds what later ones find ready. Absolute numbers
are this machine's; the ratios are what to read.
"""

import argparse
import contextlib
import os
import platform
import shlex
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from common.text import table

DEMO = Path(__file__).resolve().parent.parent / "data" / "demo"


@dataclass(frozen=True)
class Work:
    """What every way is measured on; `--help` says what each is."""

    dataset: str
    model: str | None
    hidden: int
    layers: int
    rows: int
    batch: int
    accumulation: int
    max_tokens: int
    flags: list[str]


def ways(max_tokens: int) -> dict[str, list[str]]:
    """Return name → the flags that ask for it."""
    budget = str(max_tokens)
    return {
        "random, fixed size": ["--group_by_length", "False"],
        "split by length": [],
        f"at most {max_tokens:,} tokens": ["--max_tokens_per_batch", budget],
        f"packed, {max_tokens:,} tokens": ["--packing", "--max_tokens_per_batch", budget],
    }


def random_llama(vocabulary: int, hidden: int, layers: int) -> Any:
    """Return A Llama of this size with seeded random weights, in fp32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=8 * hidden // 3 // 64 * 64,
        num_hidden_layers=layers,
        num_attention_heads=max(hidden // 64, 1),
    )
    return LlamaForCausalLM(config)


def make_model(directory: str, hidden: int, layers: int) -> str:
    """Save a random Llama with the demo's tokenizer; gives its directory."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DEMO / "base")
    random_llama(len(tokenizer), hidden, layers).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def now() -> float:
    """Return the time in seconds at which the device has done what it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(argv: list[str]) -> dict[str, float]:
    """Train one epoch; gives rows per second, padding (share of the tokens computed) and peak GPU memory in GB."""
    import torch
    from transformers import TrainerCallback, set_seed

    from arguments.parser import parse
    from data.loading import make_data_module
    from training.loop.arguments import library_arguments
    from training.loop.evaluation import EvaluationMetrics
    from training.loop.train import build_trainer, generation_config
    from training.model.build import build_model, read_base
    from training.plan import make_plan

    class Clock(TrainerCallback):
        def __init__(self):
            self.ends: list[float] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any):
            self.ends.append(now())

    clock = Clock()
    plan = make_plan(parse(argv))
    settings = library_arguments(plan.training)
    set_seed(plan.training.seed)
    base = read_base(plan.model, plan.data, plan.training, plan.generation.max_new_tokens, plan.checkpoint)
    model = build_model(plan.model, plan.training, base, plan.checkpoint)
    module = make_data_module(base.tokenizer, plan.data, plan.training, context=base.context)
    trainer = build_trainer(
        model,
        base.tokenizer,
        settings,
        generation_config(plan.generation, model, base.tokenizer, module.collator.text_marks),
        train=module.train,
        evaluated=None,
        collator=module.collator,
        step_collator=module.step_collator,
        joins_rows=module.joins_rows,
        largest=None,
        metrics=EvaluationMetrics(0),
    )
    trainer.add_callback(clock)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    rows = module.train
    tokens = sum(int(module.collator([row])["attention_mask"].sum()) for row in rows)
    first = settings.per_device_train_batch_size * settings.gradient_accumulation_steps  # rows of the first step
    return {
        "rate": (len(rows) - first) / (clock.ends[-1] - clock.ends[0]),
        "padding": 1 - tokens / trainer.state.num_input_tokens_seen,
        "memory": torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0,
    }


def hardware() -> str:
    """Return what this machine is, in words."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{gpu}, {platform.machine()}, {len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads"


def compare(work: Work) -> None:
    """Measure every way and print the table."""
    # What is measured speaks too: that goes to stderr.
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
        model = work.model or make_model(f"{scratch}/model", work.hidden, work.layers)
        shared = ["--model_name_or_path", model, "--dataset", work.dataset, "--output_dir", f"{scratch}/out"]
        shared += ["--max_train_samples", str(work.rows), "--max_steps", "-1", "--num_train_epochs", "1"]
        shared += ["--per_device_train_batch_size", str(work.batch), "--save_strategy", "no"]
        shared += ["--gradient_accumulation_steps", str(work.accumulation), "--disable_tqdm", "True"]
        shared += ["--source_max_len", "384", "--target_max_len", "128", "--include_num_input_tokens_seen"]
        results = {name: measure([*shared, *flags, *work.flags]) for name, flags in ways(work.max_tokens).items()}
    print(f"    {shlex.join(['python', '-m', 'scripts.benchmark', *sys.argv[1:]])}")
    print(f"    {hardware()}, {date.today()}; {work.rows} rows, {work.batch} x {work.accumulation} a step\n")
    rows = [["micro-batches", "padding", "rows/s", "ratio", "peak GPU GB"]]
    random_rate = next(iter(results.values()))["rate"]
    for name, result in results.items():
        memory = f"{result['memory']:.1f}" if result["memory"] else "–"
        rate = [f"{result['rate']:.2f}", f"{result['rate'] / random_rate:.2f}"]
        rows.append([name, f"{result['padding']:.1%}", *rate, memory])
    print(table(rows, markdown=True))


def main(argv: list[str] | None = None) -> None:
    """Measure what a command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default=str(DEMO / "train.jsonl"), help="file whose first rows are trained on")
    parser.add_argument("--model", help="directory of a base model (default: a random Llama)")
    parser.add_argument("--hidden", type=int, default=256, help="hidden size of the random Llama")
    parser.add_argument("--layers", type=int, default=4, help="layers of the random Llama")
    parser.add_argument("--rows", type=int, default=512, help="rows to train on, at least two steps of them")
    parser.add_argument("--batch", type=int, default=4, help="rows of a micro-batch")
    parser.add_argument("--accumulation", type=int, default=4, help="micro-batches of a step")
    parser.add_argument("--max_tokens", type=int, default=1024, help="tokens of a micro-batch, padding included")
    parser.add_argument("flags", nargs="*", help="flags of qlora.py for all, behind --")
    compare(Work(**vars(parser.parse_args(argv))))


if __name__ == "__main__":
    main()
