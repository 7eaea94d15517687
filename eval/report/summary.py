"""What a run says at its end: what was made, where it is, how good it is, and which command comes next.

    print_summary(data, training, tuned=True, command=argv)

Its numbers are those of metrics.json.
"""

import shlex
from collections.abc import Sequence
from typing import Any

from arguments.data import DataArguments
from arguments.training import TrainingArguments
from common.outputs import COMPARISON, METRICS, PREDICTIONS
from eval.metrics.names import LABELS
from eval.report.card import public_command
from eval.report.metrics import read_metrics


def print_summary(data: DataArguments, training: TrainingArguments, tuned: bool, command: Sequence[str]) -> None:
    """Print the summary of a command; what it did not do is not repeated.

    Args:
        data, training: the flags as they were carried out.
        tuned: whether the output directory holds tuned weights.
        command: the command line.
    """
    output_dir, metrics = training.output_dir, read_metrics(training.output_dir)
    lines = []
    if tuned:
        label = "weights" if training.full_finetune else "adapter"
        lines.append((label, f"{output_dir}  ({metrics.get('train_steps', 0):,} steps)"))
    if training.do_train and "train_loss_first" in metrics:
        lines.append(("loss", f"{metrics['train_loss_first']:.4f} at the start → {metrics['train_loss_last']:.4f}"))
    if training.do_eval:
        # Of the rows of this run; those that a later command evaluates may be others.
        has_before = training.do_train and "eval_loss_before" in metrics
        before = f"{metrics['eval_loss_before']:.4f} before → " if has_before else ""
        lines.append(
            ("eval loss", f"{before}{metrics['eval_loss']:.4f}  (perplexity {metrics['eval_perplexity']:.3g})")
        )
    if training.do_mmlu_eval:
        lines += mmlu_lines(f"mmlu_{training.mmlu_split}_accuracy", metrics)
    if training.do_predict:
        if "predict_exact_match" in metrics:
            lines.append(("answers", answers_line(metrics)))
        lines.append(("predictions", f"{output_dir}/{PREDICTIONS}"))
    if training.compare_base:
        lines.append(("comparison", f"{output_dir}/{COMPARISON}"))
    lines += [("metrics", f"{output_dir}/{METRICS}"), ("next", next_command(data, training, command))]
    print("\nsummary")
    for name, text in lines:
        print(f"  {name + ':' if name else '':<12} {text}")


def mmlu_lines(name: str, metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the mean accuracy with its interval, and on a line of its own those of the paper's groups of subjects."""
    low, high = metrics[f"{name}_low"], metrics[f"{name}_high"]
    mean = f"{metrics[name]:.1%}, 95% interval {low:.1%} to {high:.1%}  ({name}, mean over subjects)"
    start = f"{name}_group_"
    groups = [f"{key.removeprefix(start)} {metrics[key]:.1%}" for key in metrics if key.startswith(start)]
    return [("MMLU", mean)] + ([("", ", ".join(groups))] if groups else [])


def answers_line(metrics: dict[str, Any]) -> str:
    """Return how good the predictions with a reference are."""
    names = ("exact_match", "token_f1", "rougeL", "chrf")
    scores = [f"{LABELS[name]} {metrics[f'predict_{name}']:.1%}" for name in names]
    return f"{', '.join(scores)} of {metrics['predict_references']:,}"


def next_command(data: DataArguments, training: TrainingArguments, command: Sequence[str]) -> str:
    """Return the command that would most likely be wanted next."""
    if training.do_predict:
        return f"python -m eval.generation {shlex.quote(training.output_dir)}/{PREDICTIONS}"
    # Without held-out rows every row of the data set was trained on: predicting them would prove nothing.
    questions = [] if training.do_eval or data.eval_dataset else ["--eval_dataset", "QUESTIONS.jsonl"]
    no_training = [] if "--do_train" in command and not training.do_train else ["--do_train", "False"]
    return f"python qlora.py {public_command([*command, *questions, *no_training, '--do_predict'])}"
