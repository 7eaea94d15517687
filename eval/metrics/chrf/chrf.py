"""chrF for `evaluate.load("eval/metrics/chrf")`."""

import datasets
import evaluate

from .scoring import chrf


class Chrf(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=chrf.__doc__,
            citation="Popović 2015, https://aclanthology.org/W15-3049",
            inputs_description="predictions: texts; references: for each a text, or a list: the best counts.",
            # The list comes first: a list that is read as a text becomes the text of a list.
            features=[
                datasets.Features({"predictions": text, "references": datasets.List(text)}),
                datasets.Features({"predictions": text, "references": text}),
            ],
        )

    def _compute(self, predictions: list[str], references: list) -> dict[str, float]:
        return {"chrf": chrf(predictions, references)}
