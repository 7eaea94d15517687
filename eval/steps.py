"""The steps of a run that evaluate: losses, MMLU and answers, of the tuned model and, before it, of its base.

    measured = new_measurements(compare_base=True, max_new_tokens=64)     # {"base": …, "tuned": …}
    metrics = evaluate(trainer, measured, mmlu, do_eval=True, prompts="mmlu-fs")
    metrics |= predict(trainer, measured, rows, collator, EvaluationMetrics(len(rows)), "output/mine")
    compare_models(measured, "output/mine", seed=42)

Metrics of the base have names that start with `base_`.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from common.files import write_json
from common.outputs import BASE_PREDICTIONS, COMPARISON, PREDICTIONS
from data.tokens.store import column
from eval.compare.compare import Measured, compare, format_comparison, stopping, to_json
from eval.generation.predictions import line_metrics, prediction_lines, write_predictions

if TYPE_CHECKING:
    import numpy
    from accelerate import Accelerator
    from datasets import Dataset
    from torch import nn
    from transformers import EvalPrediction, GenerationConfig
    from transformers.trainer_utils import PredictionOutput

    from data.batches.collator import DataCollatorForCausalLM
    from eval.mmlu.scoring import MMLUEvalCallback

PREFIXES = {"base": "base_", "tuned": ""}
FILES = {"base": BASE_PREDICTIONS, "tuned": PREDICTIONS}


class MeasuringTrainer(Protocol):
    """What is used here of `training.loop.trainer.QLoRATrainer`, which this room does not import.

    Attributes:
        bars: whose `label` stands before the progress bar.
        generation: how answers are written.
        compute_metrics: whose `row_losses` are those of the last evaluation; see `training.loop.evaluation`.
    """

    model: "nn.Module"
    accelerator: "Accelerator"
    eval_dataset: "Dataset"
    data_collator: Callable
    compute_metrics: Any
    generation: "GenerationConfig"
    bars: Any

    def evaluate(self, *, metric_key_prefix: str) -> dict[str, float]: ...

    def predict(self, rows: "Dataset", *, metric_key_prefix: str) -> "PredictionOutput": ...

    def is_world_process_zero(self) -> bool: ...


def new_measurements(compare_base: bool, max_new_tokens: int) -> dict[str, Measured]:
    """Return an empty measurement of each model that is asked for, in the order in which they are measured."""
    names = ("base", "tuned") if compare_base else ("tuned",)
    return {name: Measured(max_new_tokens=max_new_tokens) for name in names}


@contextlib.contextmanager
def as_model(trainer: MeasuringTrainer, name: str, mmlu: "MMLUEvalCallback | None" = None) -> Iterator[str]:
    """Let the trainer's model be the base (adapter off) or the tuned one; gives what its metrics' names start with."""
    with contextlib.ExitStack() as stack:
        if name == "base":
            stack.enter_context(trainer.accelerator.unwrap_model(trainer.model).disable_adapter())
        if mmlu is not None:
            mmlu.prefix = PREFIXES[name]
            stack.callback(setattr, mmlu, "prefix", "")
        yield PREFIXES[name]


def answer_metrics(
    generated: "numpy.ndarray", rows: "Dataset", collator: "DataCollatorForCausalLM", ends: list[int]
) -> dict[str, float]:
    """Return the metrics of generated answers, by names without a prefix, as `EvaluationMetrics` wants them."""
    metrics = line_metrics(prediction_lines(rows, generated, collator, ends), prefix="")
    return {name.removeprefix("_"): value for name, value in metrics.items()}


def evaluate(
    trainer: MeasuringTrainer,
    measured: dict[str, Measured],
    mmlu: "MMLUEvalCallback | None",
    do_eval: bool,
    prompts: str,
) -> dict[str, Any]:
    """Evaluate on the held-out rows, which brings MMLU with it, or on MMLU alone; gives the metrics.

    Args:
        mmlu: an `eval.mmlu.scoring.MMLUEvalCallback` that the trainer has, or None.
        prompts: what its questions are called.
    """
    metrics: dict[str, Any] = {}
    for name, model in measured.items():
        with as_model(trainer, name, mmlu) as prefix:
            if do_eval:
                trainer.bars.label = f"{prefix}eval"
                metrics |= trainer.evaluate(metric_key_prefix=f"{prefix}eval")
                metrics[f"{prefix}eval_samples"] = len(trainer.eval_dataset)
                model.losses = trainer.compute_metrics.row_losses
            else:
                metrics |= mmlu.score()
        if mmlu is not None:
            model.subjects, model.right = mmlu.answers()
            metrics[f"{prefix}mmlu_{mmlu.split}_prompts"] = prompts
    return timeless(metrics)


def predict(
    trainer: MeasuringTrainer,
    measured: dict[str, Measured],
    rows: "Dataset",
    collator: "DataCollatorForCausalLM",
    loss_metrics: Callable[["EvalPrediction"], dict[str, float]],
    output_dir: str,
    batches: Callable | None = None,
) -> dict[str, Any]:
    """Generate an answer to each row and write predictions.jsonl; the first process gives all the metrics.

    Args:
        rows: a tokenized `datasets.Dataset`.
        collator: encodes rows, and makes batches with prompts.
        batches: makes these batches in its place, of its rows.
        loss_metrics: the trainer's `compute_metrics` meanwhile; answers are measured once they are written.
    """
    trainer.data_collator, trainer.compute_metrics = batches or collator, loss_metrics
    metrics, outputs = {}, {}
    # Prompts of similar length together need little padding; the longest first, as what does not fit fails at once.
    order = (-column(rows, "prompt_length")).argsort(kind="stable")
    by_length = rows.select(order)
    for name in measured:
        with as_model(trainer, name) as prefix:
            trainer.bars.label = f"{prefix}predict"
            outputs[name] = trainer.predict(by_length, metric_key_prefix=f"{prefix}predict")
    for name, model in measured.items():  # all or none, so that files beside each other are of one run
        kind, output = f"{PREFIXES[name]}predict", outputs[name]
        metrics |= {**output.metrics, f"{kind}_samples": len(rows)}
        if not trainer.is_world_process_zero():
            continue
        path = Path(output_dir) / FILES[name]
        generated = output.predictions[: len(rows)]  # processes repeat rows to fill their last batch
        generated = generated[order.argsort()]  # in the order of the data set again
        metrics |= write_predictions(path, rows, generated, collator, end_ids(trainer.generation), kind)
        model.lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
        if not metrics[f"{kind}_references"]:  # questions without answers have no loss either
            for what in ("loss", "perplexity", "supervised_tokens"):
                metrics.pop(f"{kind}_{what}")
    if len(measured) == 1:  # else the comparison says it
        for warning in stopping(measured["tuned"], "the model"):
            print(warning)
    return timeless(metrics)


def timeless(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return metrics without the epoch, which a later command does not know, and the time that preparing took."""
    return {name: value for name, value in metrics.items() if name != "epoch" and not name.endswith("preparation_time")}


def end_ids(generation: "GenerationConfig") -> list[int]:
    """Return the ids that end an answer, of a `transformers.GenerationConfig`."""
    ends = generation.eos_token_id
    return ends if isinstance(ends, list) else [ends]


def compare_models(measured: dict[str, Measured], output_dir: str, seed: int) -> None:
    """Print what the adapter changed, and write it to comparison.json."""
    comparison = compare(measured["base"], measured["tuned"], seed)
    write_json(Path(output_dir) / COMPARISON, to_json(comparison))
    print(f"\n{format_comparison(comparison)}")
