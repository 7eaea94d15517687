"""What an evaluation measures: the loss by supervised token, and generated answers where these are asked for.

    metrics = EvaluationMetrics(rows=len(eval_dataset))
    Trainer(..., compute_metrics=metrics)
    metrics.row_losses                        # (rows, 2), of the evaluation that was last

The trainer gathers losses by row instead of logits, so that memory does not grow with the vocabulary.
"""

import math
from collections.abc import Callable

import numpy
from transformers import EvalPrediction

MeasureAnswers = Callable[[numpy.ndarray], dict[str, float]]


class EvaluationMetrics:
    """The trainer's `compute_metrics`, of what `QLoRATrainer.prediction_step` gives.

    Args:
        rows: how many are evaluated. Processes repeat rows to fill their last batch; the surplus comes at the end.
        measure_answers: (rows, longest) generated ids, filled up with −100 → metrics; None where there are no answers
            to measure.

    Attributes:
        row_losses: (rows, 2), sums of losses in nats and supervised tokens of each row that was evaluated last.
    """

    def __init__(self, rows: int, measure_answers: MeasureAnswers | None = None):
        self.rows, self.measure_answers = rows, measure_answers
        self.row_losses = numpy.zeros((0, 2))

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """Return metrics by names without a prefix."""
        self.row_losses = prediction.label_ids[: self.rows]
        metrics = loss_metrics(self.row_losses)
        if self.measure_answers is not None:
            metrics |= self.measure_answers(prediction.predictions[: self.rows])
        return metrics


def loss_metrics(row_losses: numpy.ndarray) -> dict[str, float]:
    """Return the loss weighted by supervised tokens, whatever the batches were, the perplexity, and the tokens."""
    loss_sum, tokens = row_losses.sum(axis=0, dtype="float64")
    loss = float(loss_sum / tokens) if tokens else math.nan
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)) if tokens else math.nan,  # exp(710) overflows
        "supervised_tokens": int(tokens),
    }
