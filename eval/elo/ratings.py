"""Elo ratings from files of pairwise judgements, with intervals, a win matrix and the agreement between judges.

    python -m eval.elo ratings/*.jsonl --output elo                    # elo/elo.json, elo/elo.md, elo/elo.png
    python -m eval.elo ratings/*.jsonl --output elo --judge gpt-4      # by one judge's verdicts only
    python -m eval.elo ratings/*.jsonl --output elo --category coding  # of one kind of question
    python -m eval.elo ratings/*.jsonl --output elo --orders 500       # a quick look

Each line of a file is a JSON object: `score` (1 the first wins, 2 the second, 3 a tie), `model_1` and `model_2` (or a
file called FIRST-vs-SECOND-….jsonl), and, where they are known, `question_id`, `judge` and `category`; `python -m
eval.judge` writes such files. Ratings hold within one set of players: with another set, all of them move.

Sources: Elo, The Rating of Chessplayers, 1978; the mean over random orders is that of section 5.2 of
https://arxiv.org/abs/2305.14314
"""

import argparse
import io
import itertools
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from common.commands import exit_status
from common.errors import DataError
from common.files import check_writable, write_whole
from eval.elo.agreement import agreement, position_bias
from eval.elo.games import FIRST, SECOND, TIE, FileCount, Game, read_games
from eval.elo.report import FEW_GAMES, draw, format_report

SLOPE = math.log(10) / 400  # of the expected score, by Elo's convention that 400 points are odds of ten to one
PERCENTILES = (2.5, 97.5)
ORDERS_PER_RESAMPLE = 10
ORDERS_TO_A_RESAMPLE = 20  # --orders 10000 makes 500 resamples, which take half as long as the orders themselves
CHUNK_GAMES = 8_000_000  # places of games in memory at a time: 32 MB
COUNTS = ("wins", "ties", "losses")
MOST_K = 1000  # with more, the ratings only jump about
NO_WIDTH = 1e-6  # points: what rounding leaves of an interval whose ends are the same


# Ratings


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
    done: Callable[[int], Any] = lambda orders: None,
) -> numpy.ndarray:
    """Play the games in every order; all orders of a chunk advance together, one game a step.

    Args:
        orders: each the numbers of the games in the order they are played; they may differ in length and repeat games.
        k: points that a game moves a rating by at most.
        start: rating of every player before the first game.
        done: told the number of orders that were played since it was last called.

    Returns:
        (orders, players) final ratings.
    """
    null = len(tournament.first)  # a tie of player 0 with itself, which moves nothing, fills up the shorter orders
    first, second = numpy.append(tournament.first, 0), numpy.append(tournament.second, 0)
    won = numpy.append(tournament.won, 0.5) * k
    players, finals = len(tournament.players), []
    for chunk in _chunks(orders, chunk_games):
        steps = numpy.full((max(map(len, chunk)), len(chunk)), null, dtype=numpy.int32)  # (steps, orders)
        for column, order in enumerate(chunk):
            steps[: len(order), column] = order
        row = numpy.arange(len(chunk)) * players
        ratings = numpy.full(len(chunk) * players, float(start))  # (orders * players,)
        for games in steps:
            games = games.astype(numpy.intp)  # once, which each `take` would do by itself
            one, other = first.take(games) + row, second.take(games) + row
            rating, against = ratings.take(one), ratings.take(other)
            gained = won.take(games) - k / (1 + numpy.exp((against - rating) * SLOPE))
            ratings[one] = rating + gained
            ratings[other] = against - gained
        finals.append(ratings.reshape(len(chunk), players))
        done(len(chunk))
    return numpy.concatenate(finals)


def _chunks(orders: Iterable[numpy.ndarray], chunk_games: int) -> Iterator[list[numpy.ndarray]]:
    orders = iter(orders)
    for one in orders:
        yield [one, *itertools.islice(orders, max(chunk_games // max(len(one), 1), 1) - 1)]


def random_orders(tournament: Tournament, orders: int, seed: int) -> Iterator[numpy.ndarray]:
    """Give `orders` random orders of all games."""
    rng = numpy.random.default_rng(seed)
    games = numpy.arange(len(tournament.first), dtype=numpy.int32)
    return (rng.permutation(games) for _ in range(orders))


def resampled_orders(tournament: Tournament, resamples: int, seed: int) -> Iterator[numpy.ndarray]:
    """Give ORDERS_PER_RESAMPLE random orders of each resample: as many questions, drawn with replacement, whole."""
    rng = numpy.random.default_rng([seed, 1])  # other numbers than those of the plain orders
    games = numpy.argsort(tournament.question, kind="stable").astype(numpy.int32)
    counts = numpy.bincount(tournament.question)
    by_question = numpy.split(games, numpy.cumsum(counts)[:-1])
    for _ in range(resamples):
        drawn = numpy.concatenate([by_question[index] for index in rng.integers(len(counts), size=len(counts))])
        for _ in range(ORDERS_PER_RESAMPLE):
            yield rng.permutation(drawn)


def question_interval(rating: numpy.ndarray, finals: numpy.ndarray) -> numpy.ndarray:
    """The 95 % interval that other questions would leave a rating in.

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
    """(players,) number of the group that a player's games connect it to; groups cannot be compared."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = len(tournament.players)
    met = coo_array((numpy.ones(len(tournament.first)), (tournament.first, tournament.second)), shape=(size, size))
    return connected_components(met, directed=False)[1]


def ended_alike(tournament: Tournament, groups: numpy.ndarray) -> numpy.ndarray:
    """(players,) whether in a player's group each player, and every two that met, have one score in every question.

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
        groups[one] for (one, _), found in met.items() if len({sum(won) / len(won) for won in found.values()}) > 1
    ]
    return ~numpy.isin(groups, differ)


# The result


def rate(games: Sequence[Game], options: argparse.Namespace) -> dict[str, Any]:
    """Compute all that is reported, ready for JSON: `players` (best first in a group), `matrix`, `agreement`, …"""
    tournament = make_tournament(games)
    finals = play_random_orders(tournament, options, "orders")
    interval, resamples = None, options.orders // ORDERS_TO_A_RESAMPLE
    questions = int(tournament.question.max()) + 1
    if questions > 1 and resamples > 1:
        with progress("bootstrap", resamples * ORDERS_PER_RESAMPLE) as done:
            orders = resampled_orders(tournament, resamples, options.seed)
            other = play(tournament, orders, options.k, options.start, done=done)
        interval = question_interval(finals.mean(axis=0), other.reshape(resamples, ORDERS_PER_RESAMPLE, -1))
    by_judge = ratings_by_judge(games, options)
    matrix = win_matrix(games, tournament.players)
    return {
        "players": player_rows(tournament, finals, interval, matrix),
        "matrix": matrix,
        "games": len(games),
        "questions": questions,
        "resamples": 0 if interval is None else resamples,
        "orders_per_resample": ORDERS_PER_RESAMPLE,
        "least_orders_for_interval": 2 * ORDERS_TO_A_RESAMPLE,
        "position": position_bias(games),
        "agreement": agreement(games, by_judge),
        "ratings_by_judge": by_judge if len(by_judge) > 1 else {},
    }


def play_random_orders(tournament: Tournament, options: argparse.Namespace, name: str) -> numpy.ndarray:
    """(orders, players) final ratings, with a progress bar called `name`."""
    with progress(name, options.orders) as done:
        orders = random_orders(tournament, options.orders, options.seed)
        return play(tournament, orders, options.k, options.start, done=done)


def player_rows(
    tournament: Tournament, finals: numpy.ndarray, interval: numpy.ndarray | None, matrix: Mapping[str, Mapping]
) -> list[dict[str, Any]]:
    """One object for each player, best first within a group of players that can be compared."""
    rating, spread = finals.mean(axis=0), numpy.percentile(finals, PERCENTILES, axis=0)
    error = finals.std(axis=0, ddof=1) / math.sqrt(len(finals)) if len(finals) > 1 else None
    groups, rows = groups_of(tournament), []
    alike = ended_alike(tournament, groups)
    has_width = [False] * len(groups) if interval is None else (interval[1] - interval[0] > NO_WIDTH) & ~alike
    for index, name in enumerate(tournament.players):
        counts = {what: sum(cell[what] for cell in matrix[name].values()) for what in COUNTS}
        rows.append(
            {
                "player": name,
                "group": int(groups[index]) + 1,
                "rating": float(rating[index]),
                "interval": interval[:, index].tolist() if has_width[index] else None,
                "ended_alike": bool(alike[index]),
                "single_order": spread[:, index].tolist(),
                "standard_error": None if error is None else float(error[index]),
                "games": sum(counts.values()),
                **counts,
                "few_games": sum(counts.values()) < FEW_GAMES,
            }
        )
    return sorted(rows, key=lambda row: (row["group"], -row["rating"]))


def ratings_by_judge(games: Sequence[Game], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Judge → player → rating by that judge's verdicts alone; with one judge, which needs none, {} for it."""
    judges = sorted({game.judge for game in games})
    if len(judges) == 1:
        return {judges[0]: {}}
    found = {}
    for judge in judges:
        tournament = make_tournament([game for game in games if game.judge == judge])
        rating = play_random_orders(tournament, options, f"orders, {judge}").mean(axis=0)
        found[judge] = dict(zip(tournament.players, rating.tolist(), strict=True))
    return found


def win_matrix(games: Iterable[Game], players: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
    """Player → each that it met → `wins`, `ties` and `losses` of the first named."""
    met: dict = {name: {} for name in players}
    for game in games:
        for one, other, won in ((game.first, game.second, FIRST), (game.second, game.first, SECOND)):
            counts = met[one].setdefault(other, dict.fromkeys(COUNTS, 0))
            counts["ties" if game.verdict == TIE else "wins" if game.verdict == won else "losses"] += 1
    return met


@contextmanager
def progress(name: str, orders: int) -> Iterator[Callable[[int], Any]]:
    """A bar on stderr; gives the function that moves it."""
    from tqdm import tqdm

    with tqdm(total=orders, desc=name, unit="order", leave=False) as bar:
        yield bar.update


# The command


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; a wrong one ends the program with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.elo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="pairwise judgements, .jsonl or .csv")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="directory to write to")
    parser.add_argument("--orders", type=int, default=10_000, help="random orders to average over (default: 10000)")
    parser.add_argument("--k", type=float, default=32.0, help="points a game moves a rating by at most (default: 32)")
    parser.add_argument("--start", type=float, default=1000.0, help="rating before the first game (default: 1000)")
    parser.add_argument("--seed", type=int, default=42, help="of the orders and the bootstrap (default: 42)")
    parser.add_argument("--judge", metavar="NAME", help="use only this judge's verdicts")
    parser.add_argument("--category", metavar="NAME", help="use only questions of this category")
    parser.add_argument(
        "--players",
        default="",
        metavar="NAME,NAME",
        help="names to find in file names that leave open where a name ends; it leaves no player out",
    )
    options = parser.parse_args(argv)
    options.players = [name for name in options.players.split(",") if name]
    if options.orders < 1:
        parser.error(f"--orders {options.orders}: at least 1 is needed")
    if not 0 < options.k <= MOST_K:
        parser.error(f"--k {options.k:g}: a number above 0 and up to {MOST_K} is needed")
    if not math.isfinite(options.start):
        parser.error(f"--start {options.start:g}: a finite number is needed")
    if options.output.exists() and not options.output.is_dir():
        parser.error(f"--output {options.output}: it is a file; a directory is needed")
    if options.seed < 0:
        parser.error(f"--seed {options.seed}: 0 or more is needed")
    return options


def select(games: Sequence[Game], files: Sequence[FileCount], options: argparse.Namespace) -> list[Game]:
    """The games that --judge and --category leave.

    Raises:
        DataError: there are none; says what there is.
    """
    kept = list(games)
    if not kept:
        ignored = sum((count.ignored for count in files), Counter())
        reasons = ", ".join(f"{reason}: {times}" for reason, times in ignored.most_common(5))
        raise DataError(f"no line has a score of 1, 2 or 3 ({reasons}); 1 is the first wins, 2 the second, 3 a tie")
    for flag in ("judge", "category"):
        wanted = getattr(options, flag)
        if wanted is not None:
            values = Counter(getattr(game, flag) for game in kept)
            kept = [game for game in kept if getattr(game, flag) == wanted]
            if not kept:
                there = ", ".join(f"{name or '(none)'}: {times}" for name, times in values.most_common(20))
                raise DataError(f"--{flag} {wanted}: no verdict is left; verdicts by {flag}: {there}")
    return kept


def report(result: Mapping[str, Any], output: Path) -> None:
    """Write elo.json, elo.md and elo.png, each whole or not at all, and then print the tables, as a pipe may break."""
    text = format_report(result)
    write_whole(output / "elo.json", json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    write_whole(output / "elo.md", text)
    picture = io.BytesIO()
    lacks_characters = draw(result, picture)
    write_whole(output / "elo.png", picture.getvalue())
    print(text)
    print("wrote " + ", ".join(str(output / f"elo.{ending}") for ending in ("json", "md", "png")))
    if lacks_characters:
        print("note: the picture's font lacks some characters of the names; the tables have them")
    if len(result["agreement"]["judges"]) == 1 and not result["settings"]["judge"]:
        print("next: have another judge decide the same pairs, to see whether it agrees: python -m eval.judge --help")


def rate_files(options: argparse.Namespace) -> None:
    """Read, rate, write, and say what came of it."""
    games, files = read_games(options.files, options.players)
    kept = select(games, files, options)
    try:
        check_writable(options.output)
    except OSError as error:
        raise DataError(f"--output {options.output} cannot be written: {error.strerror or error}") from error
    result = rate(kept, options)
    result["settings"] = {name: str(value) if name == "output" else value for name, value in vars(options).items()}
    result["files"] = [vars(count) for count in files]
    result["left_out"] = len(games) - len(kept)
    report(result, options.output)


def main(argv: Sequence[str] | None = None) -> int:
    """Rate the players of files of judgements; returns the exit status."""
    options = parse(argv)
    return exit_status("eval.elo", lambda: rate_files(options))


if __name__ == "__main__":
    sys.exit(main())
