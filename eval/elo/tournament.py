"""Elo ratings of numbered games: played in random orders, in resamples of the questions, and how sure they are.

    tournament = make_tournament(games)
    finals = play(tournament, random_orders(tournament, orders=10_000, seed=42))      # (orders, players)
    finals.mean(axis=0)                                                               # the ratings

Sources: Elo, The Rating of Chessplayers, 1978; the mean over random orders is that of section 5.2 of
https://arxiv.org/abs/2305.14314
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy

from eval.elo.games import Game
from eval.verdicts import FIRST, TIE

SLOPE = math.log(10) / 400  # of the expected score, by Elo's convention that 400 points are odds of ten to one
PERCENTILES = (2.5, 97.5)
ORDERS_PER_RESAMPLE = 10
CHUNK_GAMES = 1_000_000  # places of games in memory at a time: 4 MB


@dataclass(frozen=True)
class Tournament:
    """Games by number.

    Attributes:
        players: their names, sorted.
        first, second: (games,) number of the player that was shown first and second.
        won: (games,) score of the first: 1, 0, or 0.5 for a tie.
        question: (games,) number of the question.
    """

    players: list[str]
    first: numpy.ndarray
    second: numpy.ndarray
    won: numpy.ndarray
    question: numpy.ndarray


def make_tournament(games: Sequence[Game]) -> Tournament:
    """Number the players and the questions of `games`, the same whatever the order that these come in."""
    games = sorted(games, key=lambda game: (game.question, game.first, game.second, game.judge, game.verdict))
    players = sorted({name for game in games for name in (game.first, game.second)})
    number = {name: index for index, name in enumerate(players)}
    _, question = numpy.unique([game.question for game in games], return_inverse=True)
    return Tournament(
        players,
        numpy.array([number[game.first] for game in games]),
        numpy.array([number[game.second] for game in games]),
        numpy.array([0.5 if game.verdict == TIE else float(game.verdict == FIRST) for game in games]),
        question,
    )


def play(
    tournament: Tournament,
    orders: Iterable[numpy.ndarray],
    k: float = 32.0,
    start: float = 1000.0,
    chunk_games: int = CHUNK_GAMES,
) -> numpy.ndarray:
    """Play the games in every order; all orders of a chunk advance together, one game a step.

    Args:
        orders: each the numbers of the games in the order they are played; they may differ in length and repeat games.
        k: points that a game moves a rating by at most.
        start: rating of every player before the first game.
        chunk_games: how many games of all orders are in memory at a time, about.

    Returns:
        (orders, players) final ratings.
    """
    null = len(tournament.first)  # a tie of player 0 with itself, which moves nothing, fills up the shorter orders
    first, second = numpy.append(tournament.first, 0), numpy.append(tournament.second, 0)
    won = numpy.append(tournament.won, 0.5) * k
    players, finals = len(tournament.players), []
    for chunk in chunks(orders, chunk_games):
        steps = numpy.full((max(map(len, chunk)), len(chunk)), null, dtype=numpy.int32)  # (steps, orders)
        for column, order in enumerate(chunk):
            steps[: len(order), column] = order
        row = numpy.arange(len(chunk)) * players
        ratings = numpy.full(len(chunk) * players, float(start))  # (orders * players,)
        for games in steps:
            games = games.astype(numpy.intp)  # once, which each `take` would do by itself
            mine, theirs = first.take(games) + row, second.take(games) + row  # places of the two players
            rating, against = ratings.take(mine), ratings.take(theirs)
            gained = won.take(games) - k / (1 + numpy.exp((against - rating) * SLOPE))
            ratings[mine] = rating + gained
            ratings[theirs] = against - gained
        finals.append(ratings.reshape(len(chunk), players))
    return numpy.concatenate(finals)


def chunks(orders: Iterable[numpy.ndarray], chunk_games: int) -> Iterator[list[numpy.ndarray]]:
    """Yield as many orders at a time as have about `chunk_games` games together."""
    orders = iter(orders)
    for order in orders:
        yield [order, *itertools.islice(orders, max(chunk_games // max(len(order), 1), 1) - 1)]


def random_orders(tournament: Tournament, orders: int, seed: int) -> Iterator[numpy.ndarray]:
    """Return `orders` random orders of all games."""
    rng = numpy.random.default_rng(seed)
    games = numpy.arange(len(tournament.first), dtype=numpy.int32)
    return (rng.permutation(games) for _ in range(orders))


def resampled_orders(tournament: Tournament, resamples: int, seed: int) -> Iterator[numpy.ndarray]:
    """Yield ORDERS_PER_RESAMPLE random orders of each resample: as many questions, drawn with replacement, whole."""
    rng = numpy.random.default_rng([seed, 1])  # other numbers than those of the plain orders
    games = numpy.argsort(tournament.question, kind="stable").astype(numpy.int32)
    counts = numpy.bincount(tournament.question)
    by_question = numpy.split(games, numpy.cumsum(counts)[:-1])
    for _ in range(resamples):
        drawn = numpy.concatenate([by_question[index] for index in rng.integers(len(counts), size=len(counts))])
        for _ in range(ORDERS_PER_RESAMPLE):
            yield rng.permutation(drawn)


def question_interval(rating: numpy.ndarray, finals: numpy.ndarray) -> numpy.ndarray:
    """Return the 95 % interval that other questions would leave a rating in.

    The mean over a resample's few orders still holds noise of these, which is no doubt about the mean over all orders.
    One-way analysis of variance tells how much, and the deviations are shrunk to what is left.

    Args:
        rating: (players,) mean over the orders of the questions as they are.
        finals: (resamples, orders of each, players).

    Returns:
        (2, players) low and high.
    """
    means = finals.mean(axis=1)  # (resamples, players)
    total, noise = means.var(axis=0, ddof=1), finals.var(axis=1, ddof=1).mean(axis=0) / finals.shape[1]
    left = numpy.divide(total - noise, total, out=numpy.zeros_like(total), where=total > 0)
    deviations = (means - means.mean(axis=0)) * numpy.sqrt(numpy.clip(left, 0, 1))
    return rating + numpy.percentile(deviations, PERCENTILES, axis=0)


def groups_of(tournament: Tournament) -> numpy.ndarray:
    """Return (players,) the number of the group that a player's games connect it to; groups cannot be compared."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = len(tournament.players)
    met = coo_array((numpy.ones(len(tournament.first)), (tournament.first, tournament.second)), shape=(size, size))
    return connected_components(met, directed=False)[1]


def ended_alike(tournament: Tournament, groups: numpy.ndarray) -> numpy.ndarray:
    """Return (players,) whether in its group each player, and every two that met, have one score in every question.

    Other draws of such questions change no score; what width an interval has then comes of the orders and of how many
    games were drawn.
    """
    met: dict = {}  # two players, or one and None → question → scores of the first
    rows = zip(tournament.first, tournament.second, tournament.won, tournament.question, strict=True)
    for first, second, won, question in rows:
        pair, won = ((first, second), won) if first < second else ((second, first), 1 - won)
        for who, score in ((pair, won), ((pair[0], None), won), ((pair[1], None), 1 - won)):
            met.setdefault(who, {}).setdefault(question, []).append(score)
    differ = [
        groups[player]
        for (player, _), by_question in met.items()
        if len({sum(scores) / len(scores) for scores in by_question.values()}) > 1
    ]
    return ~numpy.isin(groups, differ)
