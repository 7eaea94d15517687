"""Seconds of MMLU scoring: a whole forward pass for each question against questions over shared prefixes, in one run.

    python -m scripts.benchmark_mmlu data/mmlu/five_shot_mmlu_val.json --model DIR
    python -m scripts.benchmark_mmlu data/mmlu/five_shot_mmlu_val.json --tokenizer DIR --every 10

Without --model a random Llama in fp32 is scored, with the tokenizer that is given. The ways take turns of seconds.
Seconds are this machine's; the ratios are what to read. On a CPU that does other work too, --cpu_seconds with
OMP_NUM_THREADS=1 counts what the process itself computed. Shared prefixes include the check that comes before them, and
their cache is kept from group to group, as in a run; loading and tokenizing count nowhere.
"""

import argparse
import resource
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any

from common.text import table
from scripts.benchmark import hardware, random_llama
from scripts.matrix_limit import now

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from eval.mmlu.prompts import Prompt

WHOLE, SHARED = "one forward pass a question", "over shared prefixes"


@dataclass(frozen=True)
class Work:
    """What is scored, and how; `--help` says what each is."""

    file: str
    model: str | None
    tokenizer: str | None
    hidden: int
    layers: int
    subjects: int | None
    every: int
    packed_tokens: int | None
    max_tokens: int
    cpu_seconds: bool


def load(work: Work) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Return the model, in evaluation mode, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(work.tokenizer or work.model)
    if work.model:
        model = AutoModelForCausalLM.from_pretrained(work.model)
    else:
        model = random_llama(len(tokenizer), work.hidden, work.layers)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer


def choose(rows: list[dict], subjects: int | None) -> list[dict]:
    """Return all questions of so many subjects, evenly spaced by name: a sample of questions would share less."""
    names = sorted({row["subject"] for row in rows})
    chosen = set(names[:: -(-len(names) // (subjects or len(names)))])
    return [row for row in rows if row["subject"] in chosen]


def ways_alone(model: "PreTrainedModel", columns: list[int]) -> dict[str, Callable[["Prompt"], "torch.Tensor"]]:
    """Name → a function of one prompt, which gives its logits, (letters,)."""
    import torch

    from eval.mmlu.prefix import run

    def whole(prompt: "Prompt") -> "torch.Tensor":
        return model(input_ids=torch.tensor([prompt.ids], device=model.device)).logits[0, -1, columns]

    return {
        WHOLE: whole,
        "the same, head at the answer alone": lambda prompt: run(model, prompt.ids, [len(prompt.ids) - 1])[0, columns],
    }


def take_turns(
    model: "PreTrainedModel",
    prompts: list,
    columns: list[int],
    every: int,
    packed_tokens: int,
    clock: Callable[[], float],
) -> tuple[dict[str, float], dict[str, Any]]:
    """Run some prompts over a shared prefix, then a sample of these by themselves, and so on.

    Turns last seconds, so that what else the machine does meets all ways alike.

    Returns:
        Seconds of each way for all prompts, and its logits, (prompts, letters), NaN where it was not run.
    """
    import torch
    from tqdm import tqdm

    from eval.mmlu.prefix import PrefixCache, cannot_share, group, shared_logits

    cache, alone = PrefixCache(model), ways_alone(model, columns)
    seconds = Counter()
    logits = {name: torch.full((len(prompts), len(columns)), torch.nan) for name in (*alone, SHARED)}

    def timed(name: str, way: Callable[[], Any], scale: float = 1.0) -> Any:
        began = clock()
        result = way()
        seconds[name] += (clock() - began) * scale
        return result

    if why_not := timed(SHARED, partial(cannot_share, cache, prompts)):
        raise SystemExit(f"benchmark_mmlu: prompts cannot share a prefix with this model: {why_not}")
    with tqdm(total=len(prompts), unit="question", leave=False) as bar:
        for members in group(prompts, cache.ids):
            sample = set(members[::every])
            # A sample takes as much longer for all as all have more tokens.
            scale = tokens(prompts, members) / tokens(prompts, sample)
            shared = shared_logits(cache, [prompts[index] for index in members], packed_tokens)
            while (turn := timed(SHARED, partial(next, shared, None))) is not None:
                indices = [members[place] for place in turn[0]]
                logits[SHARED][indices] = turn[1][:, columns].float().cpu()
                for name, way in alone.items():
                    for index in sample.intersection(indices):
                        logits[name][index] = timed(name, partial(way, prompts[index]), scale).float().cpu()
                bar.update(len(indices))
    return seconds, logits


def tokens(prompts: list, chosen: Iterable[int]) -> int:
    """Return the tokens of the prompts that are chosen by their index."""
    return sum(len(prompts[index].ids) for index in chosen)


def measure(work: Work) -> None:
    """Score the questions in every way, and print how long each took and how far their logits are apart."""
    import torch

    from eval.mmlu.prefix import PACKED_TOKENS
    from eval.mmlu.prompts import letter_tokens, load_mmlu
    from eval.mmlu.scoring import encode_mmlu

    model, tokenizer = load(work)
    rows = choose(load_mmlu(work.file, "eval"), work.subjects)
    letters = letter_tokens(tokenizer)
    prompts = encode_mmlu(model, tokenizer, rows, work.max_tokens)
    lengths = [len(prompt.ids) for prompt in prompts]
    size = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"    {shlex.join(['python', '-m', 'scripts.benchmark_mmlu', *sys.argv[1:]])}")
    print(f"    {hardware()}, {date.today()}; {size:.1f} M parameters, {model.dtype}")
    print(f"    {len(rows):,} questions, prompts of {sum(lengths) / len(rows):,.0f} tokens, {max(lengths):,} at most\n")
    with torch.no_grad():
        seconds, logits = take_turns(
            model,
            prompts,
            list(letters.ids),
            work.every,
            work.packed_tokens or PACKED_TOKENS,
            time.process_time if work.cpu_seconds else now,
        )
    rows = [["scored", "questions", "seconds for all", "ratio", "difference of logits, share of norm", "same answers"]]
    compared = ~logits[WHOLE].isnan().any(dim=1)
    first = logits[WHOLE][compared]
    for name, scored in logits.items():
        questions = (~scored.isnan().any(dim=1)).sum().item()
        difference = ((scored[compared] - first).norm() / first.norm()).item()
        same = (scored[compared].argmax(dim=1) == first.argmax(dim=1)).sum().item()
        timed = [f"{seconds[name]:.1f}", f"{seconds[WHOLE] / seconds[name]:.2f}"]
        rows.append([name, f"{questions:,}", *timed, f"{difference:.1e}", f"{same:,} of {len(first):,}"])
    print(table(rows, markdown=True))
    peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else memory()
    print(f"\npeak memory {peak:.2f} GB")


def memory() -> float:
    """Return peak resident memory of this process, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main(argv: list[str] | None = None) -> None:
    """Measure what a command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="an MMLU prompt file, see data/mmlu/README.md")
    parser.add_argument("--model", help="directory of a base model (default: a random Llama)")
    parser.add_argument("--tokenizer", help="directory of a tokenizer, if not the model's")
    parser.add_argument("--hidden", type=int, default=640, help="hidden size of the random Llama")
    parser.add_argument("--layers", type=int, default=12, help="layers of the random Llama")
    parser.add_argument("--subjects", type=int, help="score this many subjects, all their questions (default: all)")
    parser.add_argument("--every", type=int, default=1, help="run the slow ways on every so-many-th of a group alone")
    parser.add_argument("--packed_tokens", type=int, help="tokens of several prompts in one pass (default: a run's)")
    parser.add_argument("--max_tokens", type=int, default=2048, help="longest prompt, in tokens")
    parser.add_argument("--cpu_seconds", action="store_true", help="CPU seconds of this process, not the clock's")
    work = Work(**vars(parser.parse_args(argv)))
    if not (work.model or work.tokenizer):
        parser.error("give --model, or --tokenizer for a random Llama")
    measure(work)


if __name__ == "__main__":
    main()
