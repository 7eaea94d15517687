"""Token F1 of answers, as SQuAD defines it.

    token_f1(["It is Paris"], ["Paris"])      # 0.5

Source: https://arxiv.org/abs/1606.05250, section 6.1; of empty answers: the evaluation script of SQuAD 2.0,
https://rajpurkar.github.io/SQuAD-explorer/
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

ARTICLES = re.compile(r"\b(a|an|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized_tokens(text: str) -> list[str]:
    """Return the words of a text in lower case, without ASCII punctuation and English articles.

    >>> normalized_tokens("The U.S. President's\\n cat!")
    ['us', 'presidents', 'cat']
    """
    return ARTICLES.sub(" ", text.lower().translate(NO_PUNCTUATION)).split()


def row_f1(prediction: str, reference: str | Sequence[str]) -> float:
    """Return the F1, from 0 to 1, of the two bags of words; of several references, that of the best.

    Where nothing is left of one of the two, it is 1 if nothing is left of the other either, else 0.
    """
    references = [reference] if isinstance(reference, str) else reference
    words = normalized_tokens(prediction)
    return max(_f1(words, normalized_tokens(text)) for text in references)


def _f1(words: list[str], right: list[str]) -> float:
    if not words or not right:
        return float(words == right)
    return 2 * (Counter(words) & Counter(right)).total() / (len(words) + len(right))


def token_f1(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> float:
    """Return the mean over rows of the F1, from 0 to 1, of the words that an answer and its reference share.

    Words are compared as SQuAD does: in lower case, without ASCII punctuation and the articles a, an and the. Words are
    what stands between white space: in a language written without spaces an answer is one word, and the F1 is
    0 or 1; chrF tells more there.

    Raises:
        ValueError: the two differ in length, are empty, or a row has no reference; says which.
    """
    _refuse_missing(references)
    return fmean(row_f1(*pair) for pair in zip(predictions, references, strict=True))


def _refuse_missing(references: Sequence[str | Sequence[str]]) -> None:
    for row, reference in enumerate(references):
        if not isinstance(reference, str) and (not reference or None in reference):
            raise ValueError(f"references[{row}] is {reference}: a text is needed, or a list of one or more")
