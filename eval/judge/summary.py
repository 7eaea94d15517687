"""What a judge said, in a table.

    tallies = tally_pairs(players, records)
    print(tally_table(tallies), position_warning(tallies))

The table is Markdown, for a terminal and a page.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from common.text import table
from eval.judge.inputs import Player
from eval.judge.output import Key
from eval.verdicts import FAILED, FIRST, SECOND, TIE

# Two answers that are equally good change places by chance in half of the questions; a judge that goes by position also
# leans to one side. Questions judged in both orders, and how far from half the wins of the one shown first.
FEWEST, LEANING = 10, 0.25
TURNED = {FIRST: SECOND, SECOND: FIRST, TIE: TIE}  # a result, with the answers in the other order


@dataclass
class Tally:
    """The judgements of a pair, over both orders.

    Attributes:
        wins, ties, losses: of the first player of the pair.
        failed: replies that did not say a result.
        both: questions judged in both orders; changed: those of them where the order changed the result.
        shown_first: wins of the answer that was shown first, whoever's it was.
        scores: (first player's, second player's) of the ten-point prompt.
    """

    wins: int = 0
    ties: int = 0
    losses: int = 0
    failed: int = 0
    both: int = 0
    changed: int = 0
    shown_first: int = 0
    scores: list[tuple[float, float]] = field(default_factory=list)

    @property
    def decided(self) -> int:
        """Judgements that are no tie."""
        return self.wins + self.losses

    @property
    def mean_scores(self) -> tuple[float, float] | None:
        """Mean score of either player, 0 to 10, or None without scores."""
        if not self.scores:
            return None
        first, second = zip(*self.scores, strict=True)
        return sum(first) / len(first), sum(second) / len(second)


def tally(records: Mapping[Key, dict[str, Any]], first: str, second: str) -> Tally:
    """Count the judgements of two players."""
    pair = Tally()
    for question in dict.fromkeys(key[0] for key in records):
        results = set()
        orders = [records.get((question, *order)) for order in ((first, second), (second, first))]
        for record in filter(None, orders):
            if record["score"] == FAILED:
                pair.failed += 1
                continue
            is_turned = record["model_1"] != first
            pair.shown_first += record["score"] == FIRST
            if "scores" in record:
                pair.scores.append(tuple(reversed(record["scores"]) if is_turned else record["scores"]))
            result = TURNED[record["score"]] if is_turned else record["score"]
            results.add(result)
            pair.wins += result == FIRST
            pair.ties += result == TIE
            pair.losses += result == SECOND
        if all(record is not None and record["score"] != FAILED for record in orders):
            pair.both += 1
            pair.changed += len(results) > 1
    return pair


def tally_pairs(players: Iterable[Player], records: Mapping[Key, dict[str, Any]]) -> dict[tuple[str, str], Tally]:
    """Return the judgements of every two players, by their names."""
    pairs = itertools.combinations([player.name for player in players], 2)
    return {(a, b): tally(records, a, b) for a, b in pairs}


def tally_table(tallies: Mapping[tuple[str, str], Tally]) -> str:
    """Return a Markdown table, one row for each pair, with what the columns mean below."""
    header = ["A", "B", "A wins", "ties", "B wins", "failed", "order changed it", "shown first wins"]
    has_scores = any(pair.mean_scores for pair in tallies.values())
    rows = [header + ["mean A", "mean B"] * has_scores]
    for names, pair in tallies.items():
        counts = map(str, (pair.wins, pair.ties, pair.losses, pair.failed))
        row = [*names, *counts, _share(pair.changed, pair.both), _share(pair.shown_first, pair.decided)]
        means = [f"{mean:.2f}" for mean in pair.mean_scores or ()] or ["–", "–"]
        rows.append(row + means * has_scores)
    return (
        f"{table(rows, left=(0, 1), markdown=True)}\n"
        "Wins and ties count both orders. order changed it: of the questions judged in both orders, those with two "
        "different results. shown first wins: of the judgements that are no tie; half of them where the order has no "
        "weight."
    )


def position_warning(tallies: Mapping[tuple[str, str], Tally]) -> str | None:
    """Return a sentence where the judge goes by the order in which answers are shown more than by the answers."""
    names = ("both", "changed", "shown_first", "decided")
    both, changed, first, decided = (sum(getattr(pair, name) for pair in tallies.values()) for name in names)
    if both < FEWEST or changed <= both / 2 or abs(first / max(decided, 1) - 0.5) < LEANING:
        return None
    return (
        f"warning: this judge goes by position: the order changed {_share(changed, both)} of the results, and the "
        f"answer shown first won {_share(first, decided)} of the decided ones. Ratings made of them say little."
    )


def token_counts(records: Iterable[Mapping[str, Any]]) -> str:
    """Return the tokens of all replies in words, as far as the server counted them."""
    sums, uncounted = {"prompt_tokens": 0, "completion_tokens": 0}, 0
    for record in records:
        for name in sums:
            sums[name] += record.get(name) or 0
        uncounted += record.get("prompt_tokens") is None
    unknown = f"; {uncounted:,} replies came without a count" if uncounted else ""
    return f"tokens of all replies: {sums['prompt_tokens']:,} read, {sums['completion_tokens']:,} written{unknown}"


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.0%})" if whole else "–"
