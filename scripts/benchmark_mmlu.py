"""Seconds of MMLU scoring: a whole forward pass for each question against questions over shared prefixes, in one run.

    python -m scripts.benchmark_mmlu data/mmlu/five_shot_mmlu_val.json --model DIR
    python -m scripts.benchmark_mmlu data/mmlu/five_shot_mmlu_val.json --tokenizer DIR --every 10

Without --model a random Llama in fp32 is scored, with the tokenizer that is given. Seconds are this machine's; the
ratios are what to read. Shared prefixes include the check that comes before them; loading and tokenizing count nowhere.
"""

import argparse
import resource
import shlex
import sys
from collections.abc import Callable
from datetime import date
from typing import Any

from scripts.benchmark import hardware, now, random_llama


def load(options: argparse.Namespace) -> tuple[Any, Any]:
    """The model, in evaluation mode, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer or options.model)
    if options.model:
        model = AutoModelForCausalLM.from_pretrained(options.model)
    else:
        model = random_llama(len(tokenizer), options.hidden, options.layers)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer


def choose(rows: list[dict], subjects: int | None) -> list[dict]:
    """All questions of `subjects` subjects, evenly spaced by name: a sample of questions would leave less to share."""
    names = sorted({row["subject"] for row in rows})
    kept = set(names[:: -(-len(names) // (subjects or len(names)))])
    return [row for row in rows if row["subject"] in kept]


def ways(model: Any, prompts: list, columns: list[int], every: int) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Name → of how many questions one is scored, and a function that gives their logits, (questions, letters)."""
    import torch
    from tqdm import tqdm

    from eval.prefix import each_alone, next_logits

    some = prompts[::every]

    def whole(prompt: Any) -> Any:
        ids = torch.tensor([prompt.ids], device=model.device)
        return model(input_ids=ids).logits[:, -1, columns].float().cpu()

    def alone() -> Any:
        found = tqdm(each_alone(model, some), total=len(some), leave=False)
        return torch.cat([logits[:, columns].float().cpu() for _, logits in found])

    return {
        "one forward pass a question": (
            every,
            lambda: torch.cat([whole(prompt) for prompt in tqdm(some, leave=False)]),
        ),
        "the same, head at the answer alone": (every, alone),
        "over shared prefixes": (1, lambda: next_logits(model, prompts, columns, progress=True)),
    }


def measure(options: argparse.Namespace) -> None:
    import torch

    from eval.mmlu_prompts import encode_prompts, letter_tokens, load_mmlu

    model, tokenizer = load(options)
    rows = choose(load_mmlu(options.file, "eval"), options.subjects)
    letters = letter_tokens(tokenizer)
    prompts = encode_prompts(tokenizer, [row["input"] for row in rows], letters, options.max_tokens)
    tokens = [len(prompt.ids) for prompt in prompts]
    size = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"    {shlex.join(['python', '-m', 'scripts.benchmark_mmlu', *sys.argv[1:]])}")
    print(f"    {hardware()}, {date.today()}; {size:.1f} M parameters, {model.dtype}")
    print(f"    {len(rows):,} questions, prompts of {sum(tokens) / len(tokens):,.0f} tokens, {max(tokens):,} at most\n")
    print("| scored | questions | seconds for all | ratio | largest logit difference | same answers |")
    print("|---|--:|--:|--:|--:|--:|", flush=True)
    first, first_seconds = None, 0.0
    with torch.no_grad():
        for name, (every, way) in ways(model, prompts, list(letters.ids), options.every).items():
            began = now()
            logits = way()
            # A sample takes as much longer for all as all have more tokens.
            seconds = (now() - began) * sum(tokens) / sum(tokens[::every])
            questions, compared = len(logits), logits[:: options.every // every]
            if first is None:
                first, first_seconds = logits, seconds
            same = (compared.argmax(1) == first.argmax(1)).sum().item()
            difference, ratio = (compared - first).abs().max().item(), first_seconds / seconds
            cells = f"{questions:,} | {seconds:.1f} | {ratio:.2f} | {difference:.1e} | {same:,} of {len(first):,}"
            print(f"| {name} | {cells} |", flush=True)
    peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else memory()
    print(f"\npeak memory {peak:.2f} GB")


def memory() -> float:
    """Peak resident memory of this process, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="an MMLU prompt file, see data/mmlu/README.md")
    parser.add_argument("--model", help="directory of a base model (default: a random Llama)")
    parser.add_argument("--tokenizer", help="directory of a tokenizer, if not the model's")
    parser.add_argument("--hidden", type=int, default=640, help="hidden size of the random Llama")
    parser.add_argument("--layers", type=int, default=12, help="layers of the random Llama")
    parser.add_argument("--subjects", type=int, help="score this many subjects, all their questions (default: all)")
    parser.add_argument("--every", type=int, default=1, help="run the slow ways on every so-many-th question alone")
    parser.add_argument("--max_tokens", type=int, default=2048, help="longest prompt, in tokens")
    options = parser.parse_args(argv)
    if not (options.model or options.tokenizer):
        parser.error("give --model, or --tokenizer for a random Llama")
    measure(options)


if __name__ == "__main__":
    main()
