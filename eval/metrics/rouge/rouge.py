"""ROUGE for `evaluate.load("eval/metrics/rouge")`."""

import datasets
import evaluate

from .scoring import rouge


class Rouge(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=rouge.__doc__,
            citation="Lin 2004, https://aclanthology.org/W04-1013",
            inputs_description=(
                "predictions: texts; references: for each a text, or a list: the best counts; "
                "use_stemmer: compare English stems (default: no)."
            ),
            # The list comes first: a list that is read as a text becomes the text of a list.
            features=[
                datasets.Features({"predictions": text, "references": datasets.List(text)}),
                datasets.Features({"predictions": text, "references": text}),
            ],
        )

    def _compute(self, predictions: list[str], references: list, use_stemmer: bool = False) -> dict[str, float]:
        return rouge(predictions, references, use_stemmer)
