"""distinct-1 and distinct-2: how varied the words of all answers are.

    distinct_n(["a b a"], 1)      # 0.67

Source: https://aclanthology.org/N16-1014, section 5.1
"""

from collections.abc import Iterable


def distinct_n(predictions: Iterable[str], n: int) -> float:
    """Return the number of distinct n-grams over the number of all, from 0 to 1, counted over all answers together.

    Words are what stands between white space, as they are written; an n-gram does not reach from one answer into the
    next. More text repeats more words: compare numbers of the same questions only. Where there is no n-gram it is 0.
    """
    seen, count = set(), 0
    for prediction in predictions:
        words = prediction.split()
        grams = list(zip(*(words[start:] for start in range(n)), strict=False))
        seen.update(grams)
        count += len(grams)
    return len(seen) / max(count, 1)
