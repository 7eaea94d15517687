"""All measures of generated text together: of one row, and of many.

    compare("It is Paris.", "Paris").means["token_f1"]       # from 0 to 1
    text_metrics(predictions, references, prefix="predict")  # {"predict_exact_match": …, …}

What each one is, and where it comes from, stands in `eval/metrics/NAME/scoring.py`.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from eval.metrics.bleu.scoring import bleu_counts, bleu_score
from eval.metrics.chrf.scoring import chrf_counts, chrf_score
from eval.metrics.distinct_n.scoring import distinct_n
from eval.metrics.exact_match.scoring import is_exact_match
from eval.metrics.rouge.scoring import row_rouge
from eval.metrics.token_f1.scoring import row_f1

PREFIX = "predict"  # before the name of a metric, with an underscore
PROGRESS_DELAY = 3  # seconds before a bar is shown


@dataclass(frozen=True)
class Comparison:
    """A prediction beside its reference.

    Attributes:
        means: the scores, from 0 to 1, whose mean over rows is that of the corpus: exact_match, token_f1, rouge1, …
        bleu, chrf: counts whose sums over rows are those of the corpus.
    """

    means: dict[str, float]
    bleu: list[int]
    chrf: list[int]


@functools.lru_cache(maxsize=2**16)  # base against tuned compares what the metrics have compared
def compare(prediction: str, reference: str) -> Comparison:
    means = {
        "exact_match": float(is_exact_match(prediction, reference)),
        "token_f1": row_f1(prediction, reference),
        **row_rouge(prediction, reference),
    }
    return Comparison(means, bleu_counts(prediction, reference), chrf_counts(prediction, reference))


def compare_all(predictions: Sequence[str], references: Sequence[str | None]) -> list[Comparison | None]:
    """Compare row by row, with a bar where it takes long.

    None where there is no reference; an empty one, or one of white space alone, is none.
    """
    from tqdm import tqdm

    pairs = tqdm(
        zip(predictions, references, strict=True),
        desc="scoring answers",
        total=len(predictions),
        delay=PROGRESS_DELAY,
        leave=False,
    )
    return [
        compare(prediction, reference) if reference and reference.strip() else None for prediction, reference in pairs
    ]


def text_metrics(
    predictions: Sequence[str],
    references: Sequence[str | None],
    *,
    tokens: Sequence[int] | None = None,
    stopped: Sequence[bool] | None = None,
    prefix: str = PREFIX,
) -> dict[str, float]:
    """Return every measure of a set of answers, by names that start with `prefix` and an underscore.

    Args:
        predictions: the answers.
        references: the right answer to each; None, or nothing but white space, where there is none.
        tokens: number of new tokens of each, the one that ended it included.
        stopped: whether each ended by itself.

    Returns:
        `references`, the rows that have a reference; over these rows alone, and only where there are any,
        `exact_match`, `token_f1`, `bleu`, `chrf`, `rouge1`, `rouge2` and `rougeL`; over all rows `distinct_1`,
        `distinct_2`, `stopped` (a share) and `new_tokens` (a mean), the last two where they are known. But for
        `references` and `new_tokens`, all are from 0 to 1.

    Raises:
        ValueError: the lists differ in length.
    """
    return corpus_metrics(predictions, compare_all(predictions, references), tokens, stopped, prefix)


def corpus_metrics(
    predictions: Sequence[str],
    compared: Sequence[Comparison | None],
    tokens: Sequence[int] | None,
    stopped: Sequence[bool] | None,
    prefix: str,
) -> dict[str, float]:
    """As `text_metrics`, of rows that have been compared."""
    rows = [row for row in compared if row is not None]
    metrics: dict[str, float] = {"references": len(rows)}
    if rows:
        metrics |= {name: fmean(row.means[name] for row in rows) for name in rows[0].means}
        metrics["bleu"] = bleu_score([sum(column) for column in zip(*(row.bleu for row in rows), strict=True)])
        metrics["chrf"] = chrf_score([sum(column) for column in zip(*(row.chrf for row in rows), strict=True)])
    metrics |= {"distinct_1": distinct_n(predictions, 1), "distinct_2": distinct_n(predictions, 2)}
    if stopped:
        metrics["stopped"] = fmean(map(float, stopped))
    if tokens:
        metrics["new_tokens"] = fmean(tokens)
    return {f"{prefix}_{name}": value for name, value in metrics.items()}
