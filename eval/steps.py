"""The steps of a run that evaluate: losses, MMLU and answers, of the tuned model and, before it, of its base.

    measured = new_measurements(args)                       # {"tuned": …}, with --compare_base {"base": …, "tuned": …}
    metrics = evaluate(trainer, args, mmlu, measured)
    metrics |= predict(trainer, args, data_module, measured)
    compare_models(trainer, args, measured)

Metrics of the base have names that start with `base_`.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.files import write_whole
from eval.compare.compare import Measured, compare, format_comparison, stopping, to_json
from eval.generation.generation import score_generated, write_predictions

PREFIXES = {"base": "base_", "tuned": ""}
PREDICTIONS = {"base": "predictions_base.jsonl", "tuned": "predictions.jsonl"}
COMPARISON = "comparison.json"


def new_measurements(args: Any) -> dict[str, Measured]:
    """An empty measurement of each model that is asked for, in the order in which they are measured."""
    names = ("base", "tuned") if args.compare_base else ("tuned",)
    return {name: Measured(max_new_tokens=args.max_new_tokens) for name in names}


@contextlib.contextmanager
def as_model(trainer: Any, name: str, mmlu: Any = None) -> Iterator[str]:
    """Let the trainer's model be the base (adapter off) or the tuned one; gives what its metrics' names start with."""
    with contextlib.ExitStack() as stack:
        if name == "base":
            stack.enter_context(trainer.accelerator.unwrap_model(trainer.model).disable_adapter())
        if mmlu is not None:
            mmlu.prefix = PREFIXES[name]
            stack.callback(setattr, mmlu, "prefix", "")
        yield PREFIXES[name]


def measure_evaluated_answers(trainer: Any, collator: Any) -> None:
    """Let evaluations that generate (--predict_with_generate) measure the answers as prediction does."""

    def measure(rows: Any, generated: Any, prefix: str) -> dict[str, float]:
        return score_generated(rows, generated, collator, end_ids(trainer), prefix)[1]

    trainer.measure_answers = measure


def end_ids(trainer: Any) -> list[int]:
    ends = trainer.generation.eos_token_id
    return ends if isinstance(ends, list) else [ends]


def evaluate(trainer: Any, args: Any, mmlu: Any, measured: dict[str, Measured]) -> dict[str, Any]:
    """Evaluate on the held-out rows, which brings MMLU with it, or on MMLU alone; gives the metrics."""
    metrics: dict[str, Any] = {}
    for name, found in measured.items():
        with as_model(trainer, name, mmlu) as prefix:
            if args.do_eval:
                metrics |= trainer.evaluate(metric_key_prefix=f"{prefix}eval")
                metrics[f"{prefix}eval_samples"] = len(trainer.eval_dataset)
                found.losses = trainer.row_losses
            else:
                metrics |= mmlu.score()
        if mmlu is not None:
            found.subjects, found.right = mmlu.answers()
            metrics[f"{prefix}mmlu_{args.mmlu_split}_prompts"] = args.mmlu_dataset
    return metrics


def predict(trainer: Any, args: Any, data_module: dict[str, Any], measured: dict[str, Measured]) -> dict[str, Any]:
    """Generate an answer to each row and write predictions.jsonl; the first process gives all the metrics."""
    rows, metrics, outputs = data_module["predict_dataset"], {}, {}
    for name in measured:
        with as_model(trainer, name) as prefix:
            outputs[name] = trainer.predict(rows, metric_key_prefix=f"{prefix}predict")
    for name, found in measured.items():  # all or none, so that files beside each other are of one run
        kind, output = f"{PREFIXES[name]}predict", outputs[name]
        metrics |= {**output.metrics, f"{kind}_samples": len(rows)}
        if not trainer.is_world_process_zero():
            continue
        path, collator = Path(args.output_dir) / PREDICTIONS[name], data_module["data_collator"]
        metrics |= write_predictions(path, rows, output.predictions, collator, end_ids(trainer), kind)
        found.lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
        if not metrics[f"{kind}_references"]:  # questions without answers have no loss either
            for what in ("loss", "perplexity", "supervised_tokens"):
                metrics.pop(f"{kind}_{what}")
    if not args.compare_base:  # else the comparison says it
        for warning in stopping(measured["tuned"], "the model"):
            print(warning)
    return metrics


def compare_models(trainer: Any, args: Any, measured: dict[str, Measured]) -> None:
    """Print what the adapter changed, and write it to comparison.json."""
    if not args.compare_base or not trainer.is_world_process_zero():
        return
    comparison = compare(measured["base"], measured["tuned"], args.seed)
    text = json.dumps(to_json(comparison), ensure_ascii=False, indent=2) + "\n"
    write_whole(Path(args.output_dir) / COMPARISON, text)
    print(f"\n{format_comparison(comparison)}")
