"""Token F1 for `evaluate.load("eval/metrics/token_f1")`."""

import datasets
import evaluate

from .scoring import token_f1


class TokenF1(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=token_f1.__doc__,
            citation="Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250",
            inputs_description="predictions: texts; references: for each a text, or a list: the best counts.",
            # The list comes first: a list that is read as a text becomes the text of a list.
            features=[
                datasets.Features({"predictions": text, "references": datasets.List(text)}),
                datasets.Features({"predictions": text, "references": text}),
            ],
        )

    def _compute(self, predictions: list[str], references: list) -> dict[str, float]:
        return {"token_f1": token_f1(predictions, references)}
