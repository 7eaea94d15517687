"""Agreement between judges, and of a judge with itself when the same two answers change places.

    agreement(games, {"gpt-4": {"base": 980.0, "tuned": 1020.0}, "human": {…}})
    position_bias(games)

An item is one question with two players in one order of showing. Where the judges that are compared saw no order in
common, it is a question with two players, and what a judge said in its own orders is taken together. Several verdicts
of one judge on an item count as that of their majority, as a tie where there is none.

Sources: Cohen, A coefficient of agreement for nominal scales, 1960; Fleiss, Measuring nominal scale agreement among
many raters, 1971; Kendall, The treatment of ties in ranking problems, 1945 (tau-b). Both levels, Fleiss' kappa of the
verdicts and Kendall's tau of the ranking of systems, as in https://arxiv.org/abs/2305.14314
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from eval.elo.games import Game
from eval.verdicts import TIE

Pair = tuple[str, str]
TIED = ""  # the verdict for none of the two players


def verdict_of(game: Game) -> str:
    """Return the player that won, "" for a tie."""
    return TIED if game.verdict == TIE else (game.first, game.second)[game.verdict - 1]


def majority(verdicts: Sequence[str]) -> str:
    """Return what was said most often, a tie where two things were."""
    ranked = Counter(verdicts).most_common(2)
    return TIED if len(ranked) == 2 and ranked[0][1] == ranked[1][1] else ranked[0][0]


def _by_question(games: Iterable[Game]) -> dict[tuple, dict[str, dict[Pair, list[str]]]]:
    """Return (question, the two players, sorted) → judge → order of showing → verdicts."""
    verdicts: dict = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for game in games:
        order = (game.first, game.second)
        verdicts[game.question, *sorted(order)][game.judge][order].append(verdict_of(game))
    return verdicts


def shared_items(games: Iterable[Game], judges: Sequence[str]) -> list[tuple[str, ...]]:
    """Return what each of `judges` said on every item that all of them judged: "first", "second" or "tie".

    First and second are those of showing, or of the alphabet where the judges saw no order in common.
    """
    items = []
    for (_, *pair), verdicts in _by_question(games).items():
        if not all(judge in verdicts for judge in judges):
            continue
        shared = set.intersection(*(set(verdicts[judge]) for judge in judges))
        for order in sorted(shared):
            items.append(tuple(_place(majority(verdicts[judge][order]), order) for judge in judges))
        if not shared:
            whole = {judge: majority(sum(verdicts[judge].values(), [])) for judge in judges}
            items.append(tuple(_place(whole[judge], pair) for judge in judges))
    return items


def _place(verdict: str, order: Sequence[str]) -> str:
    return "tie" if verdict == TIED else ("first", "second")[order.index(verdict)]


# ---- Coefficients ----------------------------------------------------------------------------------------------------


def cohen_kappa(items: Sequence[tuple[str, str]]) -> float | None:
    """Return Cohen's kappa of two judges; None where it is 0/0 (every verdict is the same) or there is no item."""
    return _task(items).kappa_pairwise(0, 1) if _is_defined(items) else None


def fleiss_kappa(items: Sequence[tuple[str, ...]]) -> float | None:
    """Return Fleiss' kappa of as many verdicts as each item has; None as in `cohen_kappa`."""
    # nltk calls it multi-pi: the judges' verdicts are pooled for what chance alone would give.
    return _task(items).pi() if _is_defined(items) else None


def _is_defined(items: Sequence[tuple[str, ...]]) -> bool:
    return len({verdict for item in items for verdict in item}) > 1


def _task(items: Sequence[tuple[str, ...]]) -> Any:
    from nltk.metrics.agreement import AnnotationTask

    return AnnotationTask([(judge, at, verdict) for at, item in enumerate(items) for judge, verdict in enumerate(item)])


def kendall_tau(first: Mapping[str, float], second: Mapping[str, float]) -> float | None:
    """Return Kendall's tau-b of two judges' ratings of the players that both rated; None with fewer than two of these.

    Also None where one of the judges rates them all alike.
    """
    from scipy.stats import kendalltau

    players = sorted(first.keys() & second.keys())
    if any(len({ratings[player] for player in players}) < 2 for ratings in (first, second)):
        return None
    return float(kendalltau([first[player] for player in players], [second[player] for player in players]).statistic)


# ---- What is reported ------------------------------------------------------------------------------------------------


def agreement(games: Sequence[Game], ratings: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return every coefficient.

    Args:
        ratings: judge → player → Elo rating by that judge's verdicts alone.

    Returns:
        `pairs`: of two judges each, Cohen's kappa, the share of equal verdicts, Kendall's tau, the items they share;
        `fleiss`: over the items that all judged, None with one judge; `repeats`: of each judge that judged items more
        than once, Fleiss' kappa among these verdicts (of the items with the most frequent number of them).
    """
    judges = sorted(ratings)
    pairs = []
    for two in combinations(judges, 2):
        items = shared_items(games, two)
        pairs.append(
            {
                "judges": list(two),
                "items": len(items),
                "same": sum(a == b for a, b in items) / len(items) if items else None,
                "cohen_kappa": cohen_kappa(items),
                "kendall_tau": kendall_tau(ratings[two[0]], ratings[two[1]]),
                "players": len(ratings[two[0]].keys() & ratings[two[1]].keys()),
            }
        )
    items = shared_items(games, judges) if len(judges) > 1 else []
    fleiss = {"judges": len(judges), "items": len(items), "fleiss_kappa": fleiss_kappa(items)}
    repeats = {judge: repeated for judge in judges if (repeated := _repeats(games, judge))}
    return {"judges": judges, "pairs": pairs, "fleiss": fleiss if len(judges) > 1 else None, "repeats": repeats}


def _repeats(games: Sequence[Game], judge: str) -> dict[str, Any] | None:
    repeated = [
        [_place(verdict, order) for verdict in verdicts]
        for by_judge in _by_question(games).values()
        for order, verdicts in by_judge.get(judge, {}).items()
        if len(verdicts) > 1
    ]
    if not repeated:
        return None
    times = Counter(map(len, repeated)).most_common(1)[0][0]
    items = [tuple(verdicts) for verdicts in repeated if len(verdicts) == times]
    return {"verdicts": times, "items": len(items), "fleiss_kappa": fleiss_kappa(items)}


def position_bias(games: Iterable[Game]) -> dict[str, dict[str, Any]]:
    """Return, for each judge, what became of its verdicts when the two answers changed places.

    Returns:
        judge → `questions`: with two players in both orders; of these `same` (the same player or both ties), `flipped`
        (the other player) and `to_tie` (a tie in one order alone); `first_wins`, `second_wins`: of what it said there
        in each order (the majority, where it said several things), by the place of showing; `first_share`: of those
        that are no tie, the share won by the first, None where there is none.
    """
    counts: dict[str, Counter] = defaultdict(Counter)
    for (_, *pair), by_judge in _by_question(games).items():
        for judge, verdicts in by_judge.items():
            count = counts[judge]
            if len(verdicts) < 2:
                continue
            one, other = (majority(verdicts[order]) for order in (tuple(pair), tuple(reversed(pair))))
            count["questions"] += 1
            count["same" if one == other else "to_tie" if TIED in (one, other) else "flipped"] += 1
            for order, verdict in ((pair, one), (pair[::-1], other)):
                count[_place(verdict, order)] += 1
    return {judge: _bias(counts[judge]) for judge in sorted(counts)}


def _bias(count: Counter) -> dict[str, Any]:
    decided = count["first"] + count["second"]
    return {name: count[name] for name in ("questions", "same", "flipped", "to_tie")} | {
        "first_wins": count["first"],
        "second_wins": count["second"],
        "first_share": count["first"] / decided if decided else None,
    }
