"""distinct-1 and distinct-2 for `evaluate.load("eval/metrics/distinct_n")`."""

import datasets
import evaluate

from .scoring import distinct_n


class DistinctN(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=distinct_n.__doc__,
            citation="Li et al. 2016, https://aclanthology.org/N16-1014",
            inputs_description="predictions: texts; there are no references.",
            features=datasets.Features({"predictions": datasets.Value("string")}),
        )

    def _compute(self, predictions: list[str]) -> dict[str, float]:
        return {"distinct_1": distinct_n(predictions, 1), "distinct_2": distinct_n(predictions, 2)}
