"""ROUGE-1, ROUGE-2 and ROUGE-L, counted by the `rouge-score` package, which published Python numbers come from.

    rouge(["It is Paris"], ["Paris"])      # {"rouge1": 0.5, …}

Its own tokenizer drops every character but a-z and 0-9, so that a text in Cyrillic or Chinese has no words. Here
letters, marks and digits of every script are kept. On ASCII text the words, and so the scores, are the same.

Sources: https://aclanthology.org/W04-1013, https://pypi.org/project/rouge-score/
"""

import unicodedata
from collections.abc import Sequence
from functools import cache
from statistics import fmean
from typing import Any

TYPES = ("rouge1", "rouge2", "rougeL")


class _WordCharacters(dict):
    """What `str.translate` does with a character: one of a word stays, any other becomes a space."""

    def __missing__(self, code: int) -> int:
        self[code] = code if unicodedata.category(chr(code))[0] in "LMN" else ord(" ")
        return self[code]


WORD_CHARACTERS = _WordCharacters()


class WordTokenizer:
    """Words in lower case; with a stemmer, the stems of those longer than three characters, as `rouge-score` does."""

    def __init__(self, stemmer: Any = None):
        self.stemmer = stemmer

    def tokenize(self, text: str) -> list[str]:
        words = text.lower().translate(WORD_CHARACTERS).split()
        return words if self.stemmer is None else [self.stemmer.stem(word) if len(word) > 3 else word for word in words]


@cache
def _scorer(use_stemmer: bool) -> Any:
    from nltk.stem.porter import PorterStemmer
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(TYPES), tokenizer=WordTokenizer(PorterStemmer() if use_stemmer else None))


def row_rouge(prediction: str, reference: str | Sequence[str], use_stemmer: bool = False) -> dict[str, float]:
    """Return the F measures `rouge1`, `rouge2` and `rougeL`, from 0 to 1; of several references, each of the best."""
    references = [reference] if isinstance(reference, str) else reference
    scores = _scorer(use_stemmer).score_multi(references, prediction)
    return {name: float(scores[name].fmeasure) for name in TYPES}


def rouge(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]], use_stemmer: bool = False
) -> dict[str, float]:
    """Return the means over rows of the F measures `rouge1`, `rouge2` and `rougeL`, from 0 to 1.

    Words are runs of letters and digits in lower case. `use_stemmer` compares stems (Porter's, for English). By default
    there is none, as in `rouge-score`, so that numbers mean the same in every language. In one
    written without spaces a clause is one word; chrF tells more there. One word has no pair: its `rouge2` is 0.

    Raises:
        ValueError: the two differ in length, are empty, or a row has no reference; says which.
    """
    _refuse_missing(references)
    rows = [row_rouge(*pair, use_stemmer) for pair in zip(predictions, references, strict=True)]
    return {name: fmean(row[name] for row in rows) for name in TYPES}


def _refuse_missing(references: Sequence[str | Sequence[str]]) -> None:
    for row, reference in enumerate(references):
        if not isinstance(reference, str) and (not reference or None in reference):
            raise ValueError(f"references[{row}] is {reference}: a text is needed, or a list of one or more")
