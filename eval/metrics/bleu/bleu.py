"""BLEU for `evaluate.load("eval/metrics/bleu")`."""

import datasets
import evaluate

from .scoring import bleu


class Bleu(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=bleu.__doc__,
            citation="Papineni et al. 2002, https://aclanthology.org/P02-1040",
            inputs_description="predictions: texts, not tokens; references: for each a text, or a list of texts.",
            # The list comes first: a list that is read as a text becomes the text of a list.
            features=[
                datasets.Features({"predictions": text, "references": datasets.List(text)}),
                datasets.Features({"predictions": text, "references": text}),
            ],
        )

    def _compute(self, predictions: list[str], references: list) -> dict[str, float]:
        return {"bleu": bleu(predictions, references)}
