"""Speed and memory on the same rows: this tool, ways of it, a plain script and TRL, in one run.

    python -m scripts.benchmark                                     # demo rows, a random Llama of 4 layers of 256
    python -m scripts.benchmark --dataset alpaca_data.json --tokenizer DIR --hidden 768 --layers 12 --install_peers
    python -m scripts.benchmark --dataset my.jsonl --model DIR --only "qlora.py" "plain script" -- --bf16
    python -m scripts.benchmark --what predict --dataset my.jsonl --model DIR --rows 128 --batch 8 --png predict.png

Each contestant does the same work in a process of its own; all take turns, several times. `--what train` is one epoch
over the rows, in steps of as many rows: tokens are those of prompts and answers, each counted in its row, never of
padding; seconds are those of training, first step included. `--what startup` is one step: what counts is when it is
done, from the command on. `--what eval` and `predict` take an adapter of one step: rows per second of evaluation, and
of greedy answers. The share of the limit is of what this machine's bare matrix products reach, measured in the same
run: operations that are really needed, by formula, attention left out. Flags behind `--` go to qlora.py. Numbers are
this machine's; the ratios are what to read.
"""

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from common.files import read_json
from common.outputs import DATA_REPORT, PREDICTIONS
from common.text import table
from scripts.matrix_limit import Operations, operations, products_per_second

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "data" / "demo"
PEERS = ROOT / ".peers"  # packages of other tools, ignored by git
TRL = "trl==1.16.0"
QLORA, PLAIN, PLAIN32 = "qlora.py", "plain script", "plain script in float32"
OFF, RECOMPUTED = ["--shared_prefix", "off"], ["--gradient_checkpointing"]
# Contestant → the flags of qlora.py that make it.
WAYS: dict[str, list[str]] = {
    QLORA: [],
    "every layer recomputed": RECOMPUTED,
    "padded": OFF,
    "padded, every layer recomputed": [*OFF, *RECOMPUTED],
    "packed": ["--packing"],
}
# Contestant → its module and flags beside those of the work.
PEERS_WAYS: dict[str, tuple[str, list[str]]] = {
    PLAIN: ("scripts.plain_trainer", []),
    PLAIN32: ("scripts.plain_trainer", ["--float32"]),
    "TRL as it comes": ("scripts.trl_trainer", []),
    "TRL at its best": ("scripts.trl_trainer", ["--padding_free", "--fp32_adapters"]),
    "TRL packed": ("scripts.trl_trainer", ["--packing", "--fp32_adapters"]),
}
TRL_WAYS = [name for name in PEERS_WAYS if "TRL" in name]
CONTESTANTS = {
    "train": (*WAYS, PLAIN, *TRL_WAYS),
    "startup": (QLORA, PLAIN, *TRL_WAYS),
    "eval": (QLORA, PLAIN, PLAIN32),
    "predict": (QLORA, PLAIN, PLAIN32),
}
RESULTS = {"train": "train", "startup": "train", "eval": "eval", "predict": "predict"}  # whose seconds count


@dataclass(frozen=True)
class Work:
    """What every contestant is measured on; `--help` says what each is."""

    what: str
    dataset: str
    model: str | None
    tokenizer: str
    hidden: int
    layers: int
    rows: int
    batch: int
    accumulation: int
    new_tokens: int
    rounds: int
    only: list[str]
    install_peers: bool
    json: str | None
    png: str | None
    flags: list[str]

    @property
    def contestants(self) -> list[str]:
        """Who takes part: those that are asked for, or all whose packages are there."""
        names = self.only or [name for name in CONTESTANTS[self.what] if name not in TRL_WAYS or PEERS.is_dir()]
        return [name for name in names if name in CONTESTANTS[self.what]]


@dataclass(frozen=True)
class Run:
    """What one run of a contestant gave.

    Attributes:
        seconds: of the work itself, as the contestant counts them.
        wall: from the command to its end.
        first_step: from the command to the first step's line; None where there is no training.
        memory: at its peak, in bytes.
        loss: the last one of training; None where there is none.
    """

    seconds: float
    wall: float
    first_step: float | None
    memory: int
    loss: float | None


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


def commands(work: Work, model: str, output: str, adapter: str | None) -> dict[str, list[str]]:
    """Return contestant → its command line, which writes to `output`.

    Args:
        adapter: directory of a finished run, of which qlora.py finds a copy in `output`; None to train.
    """
    rows = work.batch * work.accumulation if work.what == "startup" else work.rows
    size = ["--source_max_len", "384", "--target_max_len", "128", "--lora_r", "64", "--learning_rate", "0.0002"]
    size += ["--output_dir", output]
    ours = [*size, "--model_name_or_path", model, "--disable_tqdm", "True", "--prompt_format", "alpaca"]
    plain = [*size, "--model", model, "--rows", str(rows), "--batch", str(work.batch), "--dataset", work.dataset]
    plain += ["--accumulation", str(work.accumulation)]
    if adapter is None:
        ours += ["--dataset", work.dataset, "--max_train_samples", str(rows), "--max_steps", "-1"]
        ours += ["--num_train_epochs", "1", "--save_strategy", "no", "--logging_steps", "1"]
        ours += ["--per_device_train_batch_size", str(work.batch)]
        ours += ["--gradient_accumulation_steps", str(work.accumulation)]
    else:
        ours += ["--do_train", "False", f"--do_{work.what}", "--eval_dataset", work.dataset]
        ours += ["--max_eval_samples", str(rows), "--per_device_eval_batch_size", str(work.batch)]
        ours += ["--max_new_tokens", str(work.new_tokens)]
        plain += ["--adapter", adapter, "--what", work.what, "--new_tokens", str(work.new_tokens)]
    named = {name: [sys.executable, "qlora.py", *ours, *flags, *work.flags] for name, flags in WAYS.items()}
    named |= {name: [sys.executable, "-m", module, *plain, *flags] for name, (module, flags) in PEERS_WAYS.items()}
    return {name: named[name] for name in work.contestants}


def run(command: list[str], output: str, results: str) -> Run:
    """Run one contestant to its end, and measure it from outside; what it says goes to stderr.

    Args:
        results: which results of it have the seconds.
    """
    start, first_step = time.perf_counter(), None
    paths = [str(ROOT), *([str(PEERS)] if "scripts.trl_trainer" in command else [])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "'loss'" in line and first_step is None:
            first_step = time.perf_counter() - start
        print(line, end="", file=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"failed: {shlex.join(command)}")
    numbers = read_json(Path(output) / f"{results}_results.json")
    memory = usage.ru_maxrss * 1024  # Linux counts in KiB
    return Run(numbers[f"{results}_runtime"], wall, first_step, memory, numbers.get("train_loss_last"))


def hardware() -> str:
    """Return what this machine is, in words."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{gpu}, {platform.machine()}, {len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads"


def install_peers() -> None:
    """Put the packages of other tools beside those that are installed, into a folder of their own."""
    if not PEERS.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        subprocess.run([*pip, str(PEERS), TRL], check=True)


def same_answers(one: str, other: str) -> str:
    """Return how many answers of two runs are the same text, as text."""
    answers = []
    for output in (one, other):
        lines = (Path(output) / PREDICTIONS).read_text(encoding="utf-8").splitlines()
        answers.append([json.loads(line)["prediction"].strip() for line in lines])
    return f"{sum(a == b for a, b in zip(*answers, strict=True))} of {len(answers[0])}"


def measure(work: Work, scratch: str) -> dict[str, Any]:
    """Run every contestant, round by round; gives all that was measured."""
    model = work.model or make_model(f"{scratch}/model", work)
    adapter = None
    if work.what in ("eval", "predict"):
        adapter = f"{scratch}/adapter"
        training = Work(**{**asdict(work), "what": "train", "only": [QLORA], "rows": work.batch * work.accumulation})
        run(commands(training, model, adapter, None)[QLORA], adapter, "train")
    runs: dict[str, list[Run]] = {name: [] for name in work.contestants}
    outputs: dict[str, str] = {}
    rates, report = [], None
    for number in range(work.rounds):
        rates.append(products_per_second())
        for name in work.contestants:
            outputs[name] = output = f"{scratch}/{number}-{name}"
            print(f"round {number + 1} of {work.rounds}: {name}", file=sys.stderr, flush=True)
            if adapter is not None:
                shutil.copytree(adapter, output)
            command = commands(work, model, output, adapter)[name]
            runs[name].append(run(command, output, RESULTS[work.what]))
            if adapter is None and (Path(output) / DATA_REPORT).is_file():
                report = report or read_json(Path(output) / DATA_REPORT)
    needed = operations(model, report, lora_r=64) if report else None
    answers = {}
    if work.what == "predict":
        reference = outputs[next(name for name in (PLAIN32, PLAIN, QLORA) if name in outputs)]
        answers = {name: same_answers(output, reference) for name, output in outputs.items()}
    return {"runs": runs, "rates": rates, "needed": needed, "answers": answers}


def rows_of_table(work: Work, measured: dict[str, Any]) -> list[list[str]]:
    """Return the table, its header first."""
    runs: dict[str, list[Run]] = measured["runs"]
    needed: Operations | None = measured["needed"]
    slowest = PLAIN if PLAIN in runs else list(runs)[-1]
    amount, unit = (needed.tokens, "tokens/s") if needed else (work.rows, "rows/s")
    header = ["contestant", unit, "lowest to highest", f"times {slowest}", "spread", "peak GB", "beside it, s"]
    if needed:
        header += ["first step, s", "of the limit", "last loss"]
    header += ["same answers"] if measured["answers"] else []
    rows = [header]
    for name, own in runs.items():
        speeds = [amount / seconds_of(work, one) for one in own]
        ratios = [seconds_of(work, b) / seconds_of(work, a) for a, b in zip(own, runs[slowest], strict=True)]
        row = [name, f"{median(speeds):,.1f}", f"{min(speeds):,.1f} to {max(speeds):,.1f}", f"{median(ratios):.2f}"]
        row += [f"{min(ratios):.2f} to {max(ratios):.2f}", f"{max(one.memory for one in own) / 1e9:.2f}"]
        row += [f"{median(one.wall - one.seconds for one in own):.1f}"]
        if needed:
            shares = [needed.total / rate / one.seconds for rate, one in zip(measured["rates"], own, strict=True)]
            row += [f"{median(one.first_step for one in own):.1f}", f"{median(shares):.0%}", f"{own[-1].loss:.4f}"]
        rows.append(row + [measured["answers"][name]] if measured["answers"] else row)
    return rows


def seconds_of(work: Work, one: Run) -> float:
    """Return the seconds of a run that count."""
    return one.first_step if work.what == "startup" else one.seconds


def draw(path: str, work: Work, measured: dict[str, Any]) -> None:
    """Draw the speed of each contestant, the median as a bar and all rounds as points."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    amount, unit = (measured["needed"].tokens, "tokens/s") if measured["needed"] else (work.rows, "rows/s")
    names = list(measured["runs"])[::-1]
    speeds = [[amount / seconds_of(work, one) for one in measured["runs"][name]] for name in names]
    figure = Figure(figsize=(8, 1.2 + 0.45 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    bars = axes.barh(names, [median(each) for each in speeds], color="#4477aa")
    axes.bar_label(bars, fmt="{:,.1f}", padding=6)
    for place, each in enumerate(speeds):
        axes.plot(each, [place] * len(each), "o", color="#222222", markersize=3)
    axes.set_xlabel(f"{unit}, median of {work.rounds} rounds; points are rounds")
    axes.set_title(f"{work.what}: {work.rows} rows; {hardware()}", fontsize=9)
    axes.margins(x=0.12)
    figure.savefig(path, dpi=150)


def compare(work: Work) -> None:
    """Measure, print the table, and write what is asked for."""
    if work.install_peers:
        install_peers()
    with tempfile.TemporaryDirectory() as scratch:
        measured = measure(work, scratch)
    command = shlex.join(["python", "-m", "scripts.benchmark", *sys.argv[1:]])
    limit = f"bare matrix products {median(measured['rates']) / 1e9:,.0f} GFLOP/s"
    about = f"{hardware()}, {date.today()}; {limit}; {work.rows} rows, {work.batch} x {work.accumulation} a step"
    print(f"    {command}\n    {about}\n")
    print(table(rows_of_table(work, measured), markdown=True))
    if work.json:
        runs = {name: [asdict(one) for one in own] for name, own in measured["runs"].items()}
        needed = measured["needed"] and asdict(measured["needed"])
        numbers = {"command": command, "about": about, "work": asdict(work), **measured, "needed": needed, "runs": runs}
        Path(work.json).write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    if work.png:
        draw(work.png, work, measured)


def main(argv: list[str] | None = None) -> None:
    """Measure what a command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everyone = tuple(dict.fromkeys(name for names in CONTESTANTS.values() for name in names))
    parser.add_argument("--what", choices=tuple(CONTESTANTS), default="train", help="what is measured")
    parser.add_argument("--dataset", default=str(DEMO / "train.jsonl"), help="file whose first rows are used")
    parser.add_argument("--model", help="directory of a base model (default: a random Llama)")
    parser.add_argument("--tokenizer", default=str(DEMO / "base"), help="directory of the random Llama's tokenizer")
    parser.add_argument("--hidden", type=int, default=256, help="hidden size of the random Llama")
    parser.add_argument("--layers", type=int, default=4, help="layers of the random Llama")
    parser.add_argument("--rows", type=int, default=64, help="rows to train on, whole steps of them, or to measure")
    parser.add_argument("--batch", type=int, default=4, help="rows of a micro-batch, or of a batch of evaluation")
    parser.add_argument("--accumulation", type=int, default=4, help="micro-batches of a step")
    parser.add_argument("--new_tokens", type=int, default=64, help="tokens of an answer at most")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is run")
    parser.add_argument("--only", nargs="+", default=[], choices=everyone, help="these contestants alone")
    parser.add_argument("--install_peers", action="store_true", help=f"install {TRL} into {PEERS.name}/, to take part")
    parser.add_argument("--json", help="file for all that was measured")
    parser.add_argument("--png", help="file for a picture of it")
    parser.add_argument("flags", nargs="*", help="flags of qlora.py, behind --")
    compare(Work(**vars(parser.parse_args(argv))))


if __name__ == "__main__":
    main()
