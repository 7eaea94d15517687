"""Time and memory of an optimizer step, each way of taking it against the first, within one run.

    python -m scripts.benchmark                  # a random Llama of 26 M parameters, vocabulary 32,000
    python -m scripts.benchmark --model DIR --rows 8 --source 384 --target 128 --steps 5 -- --bf16

Every variant takes the same rows in a process of its own, so that its peak memory is its own. Flags behind `--` go
to all of them.
Absolute times are this machine's; the ratios are what to read.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOKENIZER = Path(__file__).resolve().parent.parent / "data" / "demo" / "base"
# name → (flags, whether the head runs at supervised positions only)
VARIANTS = {
    "whole logits, micro-batches of 1": (["--per_device_train_batch_size", "1"], False),
    "supervised positions, micro-batches of 1": (["--per_device_train_batch_size", "1"], True),
    "supervised positions, one micro-batch": ([], True),
    "the same without checkpointing": (["--gradient_checkpointing", "False"], True),
}


def make_model(directory: str) -> str:
    """Save a random Llama of 26 M parameters with the demo's tokenizer; gives its directory."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32000, hidden_size=320, intermediate_size=864, num_hidden_layers=4, num_attention_heads=5
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(directory)
    return directory


def rows(options: argparse.Namespace) -> list[dict[str, str]]:
    """Rows whose source and target are both longer than their limits, so that every one is cut to the same length."""
    text = "The capital of Peru is Lima. " * (options.source + options.target)
    return [{"input": text, "output": text}] * options.rows


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step, the first left out, and peak memory of the process or, where there is one, the GPU."""
    import torch
    from transformers import TrainerCallback

    from data.collator import DataCollatorForCausalLM
    from data.loading import to_dataset
    from training.arguments import parse
    from training.model import get_accelerate_model
    from training.trainer import TrainingArguments, build_trainer

    class Clock(TrainerCallback):
        times = []

        def on_step_begin(self, *args, **kwargs):
            self.began = time.perf_counter()

        def on_step_end(self, *args, **kwargs):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.times.append(time.perf_counter() - self.began)

    flags, skips_head = VARIANTS[options.variant]
    with tempfile.TemporaryDirectory() as output:
        argv = ["--model_name_or_path", options.model, "--output_dir", output, "--max_steps", str(options.steps + 1)]
        argv += ["--per_device_train_batch_size", str(options.rows), "--save_strategy", "no", "--disable_tqdm", "True"]
        argv += [*flags, *options.flags]
        model_args, data_args, training_args, generation_args = parse(TrainingArguments, argv)
        micro_batch = training_args.per_device_train_batch_size
        training_args.gradient_accumulation_steps = options.rows // micro_batch
        training_args.train_sampling_strategy = "sequential"
        args = argparse.Namespace(**vars(model_args), **vars(data_args), **vars(training_args))
        model, tokenizer = get_accelerate_model(args, None)
        collator = DataCollatorForCausalLM(tokenizer, options.source, options.target, False, False)
        module = {"train_dataset": to_dataset(rows(options)), "eval_dataset": None, "data_collator": collator}
        trainer = build_trainer(model, tokenizer, training_args, generation_args, module)
        trainer.skips_head = skips_head
        trainer.add_callback(Clock)
        trainer.train()
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": statistics.median(Clock.times[1:]), "megabytes": peak / 1e6}


def compare(options: argparse.Namespace) -> None:
    """Run each variant in its own process and print the table."""
    with tempfile.TemporaryDirectory() as directory:
        model = options.model or make_model(directory)
        first = None
        print(f"{options.rows} rows of {options.source} + {options.target} tokens a step, {options.steps} steps")
        print(f"{'':42} {'s/step':>8} {'ratio':>6} {'peak MB':>9} {'ratio':>6}")
        for variant in VARIANTS:
            command = [sys.executable, "-m", "scripts.benchmark", "--model", model, "--variant", variant]
            for name in ("rows", "source", "target", "steps"):
                command += [f"--{name}", str(getattr(options, name))]
            run = subprocess.run([*command, "--", *options.flags], stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(run.stdout.splitlines()[-1])
            first = first or found
            time_ratio, memory_ratio = (found[name] / first[name] for name in ("seconds", "megabytes"))
            line = f"{variant:42} {found['seconds']:8.3f} {time_ratio:6.2f}"
            print(f"{line} {found['megabytes']:9,.0f} {memory_ratio:6.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="base model to measure with (default: a random one)")
    parser.add_argument("--rows", type=int, default=8, help="rows of an optimizer step")
    parser.add_argument("--source", type=int, default=96, help="source length in tokens")
    parser.add_argument("--target", type=int, default=32, help="target length in tokens")
    parser.add_argument("--steps", type=int, default=5, help="steps to measure, after one to warm up")
    parser.add_argument("--variant", choices=list(VARIANTS), help="measure this one alone and print JSON")
    parser.add_argument("flags", nargs="*", help="flags of qlora.py for every variant, behind --")
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(measure(options)))
    else:
        compare(options)


if __name__ == "__main__":
    main()
