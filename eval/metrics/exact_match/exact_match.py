"""Exact match for `evaluate.load("eval/metrics/exact_match")`."""

import datasets
import evaluate

from .scoring import exact_match


class ExactMatch(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=exact_match.__doc__,
            citation="",
            inputs_description="predictions: texts; references: for each a text, or a list of right ones.",
            # The list comes first: a list that is read as a text becomes the text of a list.
            features=[
                datasets.Features({"predictions": text, "references": datasets.List(text)}),
                datasets.Features({"predictions": text, "references": text}),
            ],
        )

    def _compute(self, predictions: list[str], references: list) -> dict[str, float]:
        return {"exact_match": exact_match(predictions, references)}
