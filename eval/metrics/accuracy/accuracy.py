"""Accuracy for `evaluate.load("eval/metrics/accuracy")`."""

import datasets
import evaluate

from .scoring import accuracy


class Accuracy(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        # float64, as int64 would cut 1.5 to 1 and call it right.
        labels = [datasets.Value("string"), datasets.Value("float64")]
        return evaluate.MetricInfo(
            description=accuracy.__doc__,
            citation="",
            inputs_description="predictions and references: one label for each row, all texts or all numbers.",
            features=[datasets.Features({"predictions": label, "references": label}) for label in labels],
        )

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        return {"accuracy": accuracy(predictions, references)}
