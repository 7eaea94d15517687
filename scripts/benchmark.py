"""Tokens per second and memory of training on the same rows: this tool, ways of it, and a plain script, in one run.

    python -m scripts.benchmark                                     # demo rows, a random Llama of 4 layers of 256
    python -m scripts.benchmark --dataset alpaca_data.json --tokenizer DIR --hidden 768 --layers 12 --rounds 3
    python -m scripts.benchmark --dataset my.jsonl --model DIR --only "qlora.py" "plain script" -- --bf16

Each contestant trains one epoch on the same rows, in steps of as many rows, in a process of its own; all take turns,
several times. Tokens are those of prompts and answers, each counted in its row, padding never; seconds are those of
training, first step included. Flags behind `--` go to qlora.py. Numbers are this machine's; the ratios are what to
read.
"""

import argparse
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from common.files import read_json
from common.outputs import DATA_REPORT
from common.text import table

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "data" / "demo"
PLAIN = "plain script"
STDERR = 2  # its file descriptor: what contestants say stands beside the table, not in it
OFF, RECOMPUTED = ["--shared_prefix", "off"], ["--gradient_checkpointing"]
# Contestant → the flags of qlora.py that make it; the plain script has none.
CONTESTANTS: dict[str, list[str] | None] = {
    "qlora.py": [],
    "every layer recomputed": RECOMPUTED,
    "padded": OFF,
    "padded, every layer recomputed": [*OFF, *RECOMPUTED],
    "packed": ["--packing"],
    PLAIN: None,
}


@dataclass(frozen=True)
class Work:
    """What every contestant is measured on; `--help` says what each is."""

    dataset: str
    model: str | None
    tokenizer: str
    hidden: int
    layers: int
    rows: int
    batch: int
    accumulation: int
    rounds: int
    only: list[str]
    flags: list[str]


@dataclass(frozen=True)
class Run:
    """What one run of a contestant gave: seconds of training and in all, peak memory in bytes, the last loss."""

    seconds: float
    wall: float
    memory: int
    loss: float


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


def make_model(directory: str, work: Work) -> str:
    """Save a random Llama with a tokenizer; gives its directory."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(work.tokenizer)
    random_llama(len(tokenizer), work.hidden, work.layers).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def now() -> float:
    """Return the time in seconds at which the device has done what it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def commands(work: Work, model: str, output: str) -> dict[str, list[str]]:
    """Return contestant → its command line, which writes to `output`."""
    size = ["--source_max_len", "384", "--target_max_len", "128", "--lora_r", "64", "--learning_rate", "0.0002"]
    size += ["--output_dir", output, "--dataset", work.dataset]
    ours = [*size, "--model_name_or_path", model, "--max_train_samples", str(work.rows), "--max_steps", "-1"]
    ours += ["--num_train_epochs", "1", "--per_device_train_batch_size", str(work.batch), "--save_strategy", "no"]
    ours += ["--gradient_accumulation_steps", str(work.accumulation), "--disable_tqdm", "True", "--logging_steps", "1"]
    plain = [*size, "--model", model, "--rows", str(work.rows), "--batch", str(work.batch)]
    plain += ["--accumulation", str(work.accumulation)]
    return {
        name: [sys.executable, "-m", "scripts.plain_trainer", *plain]
        if flags is None
        else [sys.executable, "qlora.py", *ours, *flags, *work.flags]
        for name, flags in CONTESTANTS.items()
        if not work.only or name in work.only
    }


def run(command: list[str], output: str) -> Run:
    """Run one contestant to its end, and measure it from outside; what it says goes to stderr."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=STDERR)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {shlex.join(command)}")
    results = read_json(Path(output) / "train_results.json")
    memory = usage.ru_maxrss * 1024  # Linux counts in KiB
    return Run(results["train_runtime"], time.perf_counter() - start, memory, results["train_loss_last"])


def hardware() -> str:
    """Return what this machine is, in words."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{gpu}, {platform.machine()}, {len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads"


def compare(work: Work) -> None:
    """Measure every contestant, round by round, and print the table."""
    with tempfile.TemporaryDirectory() as scratch:
        model = work.model or make_model(f"{scratch}/model", work)
        runs: dict[str, list[Run]] = {}
        tokens = 0
        for number in range(work.rounds):
            for name in commands(work, model, ""):
                output = f"{scratch}/{number}-{len(runs.get(name, []))}-{name}"
                print(f"round {number + 1} of {work.rounds}: {name}", file=sys.stderr, flush=True)
                runs.setdefault(name, []).append(run(commands(work, model, output)[name], output))
                if (Path(output) / DATA_REPORT).is_file():
                    tokens = read_json(Path(output) / DATA_REPORT)["train"]["tokens"]
    print(f"    {shlex.join(['python', '-m', 'scripts.benchmark', *sys.argv[1:]])}")
    print(f"    {hardware()}, {date.today()}; {work.rows} rows, {work.batch} x {work.accumulation} a step\n")
    slowest = PLAIN if PLAIN in runs else list(runs)[-1]
    rows = [
        [
            "contestant",
            "tokens/s",
            "lowest to highest",
            f"times {slowest}",
            "peak GB",
            "beside training, s",
            "last loss",
        ]
    ]
    for name, measured in runs.items():
        rates = [tokens / one.seconds for one in measured]
        ratio = median(other.seconds / one.seconds for one, other in zip(measured, runs[slowest], strict=True))
        memory, beside = max(one.memory for one in measured), median(one.wall - one.seconds for one in measured)
        spread = f"{min(rates):,.1f} to {max(rates):,.1f}"
        numbers = [f"{median(rates):,.1f}", spread, f"{ratio:.2f}", f"{memory / 1e9:.2f}", f"{beside:.1f}"]
        rows.append([name, *numbers, f"{measured[-1].loss:.4f}"])
    print(table(rows, markdown=True))


def main(argv: list[str] | None = None) -> None:
    """Measure what a command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default=str(DEMO / "train.jsonl"), help="file whose first rows are trained on")
    parser.add_argument("--model", help="directory of a base model (default: a random Llama)")
    parser.add_argument("--tokenizer", default=str(DEMO / "base"), help="directory of the random Llama's tokenizer")
    parser.add_argument("--hidden", type=int, default=256, help="hidden size of the random Llama")
    parser.add_argument("--layers", type=int, default=4, help="layers of the random Llama")
    parser.add_argument("--rows", type=int, default=64, help="rows to train on: whole steps of them")
    parser.add_argument("--batch", type=int, default=4, help="rows of a micro-batch")
    parser.add_argument("--accumulation", type=int, default=4, help="micro-batches of a step")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is run")
    parser.add_argument("--only", nargs="+", default=[], choices=tuple(CONTESTANTS), help="these contestants alone")
    parser.add_argument("flags", nargs="*", help="flags of qlora.py, behind --")
    compare(Work(**vars(parser.parse_args(argv))))


if __name__ == "__main__":
    main()
