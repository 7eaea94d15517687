"""BLEU-4 of a corpus or of one row, from 0 to 1.

    counts = [bleu_counts(*pair) for pair in zip(predictions, references)]  # counts of rows add up to those of a corpus
    bleu_score([sum(column) for column in zip(*counts)])

Numbers are those of sacreBLEU's defaults (BLEU|case:mixed|tok:13a|smooth:exp) divided by 100, wherever an answer has
four tokens or more. nltk counts and clips the n-grams; its `corpus_bleu` is not used, as it counts an n-gram
for each answer that is too short to have one, so that right answers of one word score near 0.

Sources: BLEU, https://aclanthology.org/P02-1040; the tokens of mteval-v13a and their use,
https://aclanthology.org/W18-6319; smoothing of rows, https://aclanthology.org/W14-3346, method 3.
"""

import math
import re
from collections.abc import Sequence

ORDER = 4
# ASCII punctuation stands alone, but for an apostrophe, a hyphen that no digit precedes, and a point or comma between
# two digits.
TOKEN = re.compile(r"(?:[^\s!-/:-@\[-`{-~]|'|(?<![0-9])-|(?<=[0-9])[.,](?=[0-9]))+|\S")


def bleu_tokens(text: str) -> list[str]:
    """Return the tokens that mteval-v13a makes, but for two marks in a row beside a digit ("a,.1"), and HTML entities.

    >>> bleu_tokens("It's well-known: $3.88.")
    ["It's", 'well-known', ':', '$', '3.88', '.']
    """
    return TOKEN.findall(text)


def bleu_counts(prediction: str, reference: str | Sequence[str]) -> list[int]:
    """Return matching 1- to 4-grams, all of the prediction's, its tokens, and those of the reference nearest in length.

    These are 4 + 4 + 1 + 1 numbers. An n-gram matches as often as it stands in the one of several references that has
    it most often.
    """
    from nltk.translate.bleu_score import closest_ref_length, modified_precision

    references = [bleu_tokens(text) for text in ([reference] if isinstance(reference, str) else reference)]
    words = bleu_tokens(prediction)
    matches = [modified_precision(references, words, n).numerator for n in range(1, ORDER + 1)]
    totals = [max(len(words) - n + 1, 0) for n in range(1, ORDER + 1)]
    return [*matches, *totals, len(words), closest_ref_length(references, len(words))]


def bleu_score(counts: Sequence[int]) -> float:
    """Return the BLEU, from 0 to 1, of counts as `bleu_counts` gives them, of one row or summed over rows.

    An order without a match counts a half, the next such one a quarter, and so on. An order that nothing predicted is
    long enough for is left out. No shared token is 0.
    """
    from nltk.translate.bleu_score import brevity_penalty

    matches, totals = counts[:ORDER], counts[ORDER : 2 * ORDER]
    if not any(matches):
        return 0.0
    logarithms, smoothed = [], 1.0
    for match, total in zip(matches, totals, strict=True):
        if total:
            smoothed = smoothed if match else smoothed / 2
            logarithms.append(math.log((match or smoothed) / total))
    length, reference_length = counts[2 * ORDER :]
    return brevity_penalty(reference_length, length) * math.exp(sum(logarithms) / len(logarithms))


def bleu(predictions: Sequence[str], references: Sequence[str | Sequence[str]]) -> float:
    """Return the corpus BLEU-4, from 0 to 1: n-grams are counted over all rows, not averaged over them.

    Tokens are those of mteval-v13a, case counts, and orders without a match are smoothed (method 3 of Chen and Cherry).

    Raises:
        ValueError: the two differ in length, or a row has no reference; says which.
    """
    _refuse_missing(references)
    counts = [bleu_counts(*pair) for pair in zip(predictions, references, strict=True)]
    return bleu_score([sum(column) for column in zip(*counts, strict=True)])


def _refuse_missing(references: Sequence[str | Sequence[str]]) -> None:
    for row, reference in enumerate(references):
        if not isinstance(reference, str) and (not reference or None in reference):
            raise ValueError(f"references[{row}] is {reference}: a text is needed, or a list of one or more")
