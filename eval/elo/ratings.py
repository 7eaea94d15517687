"""Elo ratings from files of pairwise judgements, with intervals, a win matrix and the agreement between judges.

    python -m eval.elo ratings/*.jsonl --output elo                    # elo/elo.json, elo/elo.md, elo/elo.png
    python -m eval.elo ratings/*.jsonl --output elo --judge gpt-4      # by one judge's verdicts only
    python -m eval.elo ratings/*.jsonl --output elo --category coding  # of one kind of question
    python -m eval.elo ratings/*.jsonl --output elo --orders 500       # a quick look

Each line of a file is a JSON object: `score` (1 the first wins, 2 the second, 3 a tie), `model_1` and `model_2` (or a
file called FIRST-vs-SECOND-….jsonl), and, where they are known, `question_id`, `judge` and `category`; `python -m
eval.judge` writes such files. Ratings hold within one set of players: with another set, all of them move.
"""

import argparse
import io
import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy

from common.commands import exit_status
from common.errors import DataError
from common.files import check_writable, write_json, write_whole
from eval.elo.agreement import agreement, position_bias
from eval.elo.games import FileCount, Game, read_games
from eval.elo.picture import draw
from eval.elo.report import FEW_GAMES, format_report
from eval.elo.tournament import (
    ORDERS_PER_RESAMPLE,
    PERCENTILES,
    Tournament,
    ended_alike,
    groups_of,
    make_tournament,
    play,
    question_interval,
    random_orders,
    resampled_orders,
)
from eval.verdicts import FIRST, SECOND, TIE

ORDERS_TO_A_RESAMPLE = 20  # --orders 10000 makes 500 resamples, which take half as long as the orders themselves
COUNTS = ("wins", "ties", "losses")
MOST_K = 1000  # with more, the ratings only jump about
NO_WIDTH = 1e-6  # points: what rounding leaves of an interval whose ends are the same


@dataclass(frozen=True)
class Settings:
    """What was asked for; elo.json holds it.

    Attributes:
        output: the directory to write to.
        k: points that a game moves a rating by at most; start: every rating before the first game.
        judge, category: use only such verdicts; None uses all.
        players: names to look for in names of files.
    """

    files: list[str]
    output: str
    orders: int = 10_000
    k: float = 32.0
    start: float = 1000.0
    seed: int = 42
    judge: str | None = None
    category: str | None = None
    players: tuple[str, ...] = ()


# ---- The result ------------------------------------------------------------------------------------------------------


def rate(games: Sequence[Game], settings: Settings) -> dict[str, Any]:
    """Return all that is reported, ready for JSON: `players` (best first in a group), `matrix`, `agreement`, …"""
    tournament = make_tournament(games)
    finals = random_finals(tournament, settings, "orders")
    questions = int(tournament.question.max()) + 1
    resamples = settings.orders // ORDERS_TO_A_RESAMPLE
    interval = None
    if questions > 1 and resamples > 1:
        orders = resampled_orders(tournament, resamples, settings.seed)
        bar = shown(orders, "bootstrap", resamples * ORDERS_PER_RESAMPLE)
        others = play(tournament, bar, settings.k, settings.start)
        interval = question_interval(finals.mean(axis=0), others.reshape(resamples, ORDERS_PER_RESAMPLE, -1))
    by_judge = ratings_by_judge(games, settings)
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


def random_finals(tournament: Tournament, settings: Settings, name: str) -> numpy.ndarray:
    """Return (orders, players) final ratings of random orders, with a progress bar called `name`."""
    orders = shown(random_orders(tournament, settings.orders, settings.seed), name, settings.orders)
    return play(tournament, orders, settings.k, settings.start)


def shown(orders: Iterable[numpy.ndarray], name: str, total: int) -> Iterable[numpy.ndarray]:
    """Return the same orders, with a progress bar on stderr as they are taken."""
    from tqdm import tqdm

    return tqdm(orders, desc=name, total=total, unit="order", leave=False)


def player_rows(
    tournament: Tournament, finals: numpy.ndarray, interval: numpy.ndarray | None, matrix: Mapping[str, Mapping]
) -> list[dict[str, Any]]:
    """Return one object for each player, best first within a group of players that can be compared."""
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


def ratings_by_judge(games: Sequence[Game], settings: Settings) -> dict[str, dict[str, float]]:
    """Return judge → player → rating by that judge's verdicts alone; with one judge, which needs none, {} for it."""
    judges = sorted({game.judge for game in games})
    if len(judges) == 1:
        return {judges[0]: {}}
    ratings = {}
    for judge in judges:
        tournament = make_tournament([game for game in games if game.judge == judge])
        rating = random_finals(tournament, settings, f"orders, {judge}").mean(axis=0)
        ratings[judge] = dict(zip(tournament.players, rating.tolist(), strict=True))
    return ratings


def win_matrix(games: Iterable[Game], players: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
    """Return player → each that it met → `wins`, `ties` and `losses` of the first named."""
    met: dict = {name: {} for name in players}
    for game in games:
        for one, other, won in ((game.first, game.second, FIRST), (game.second, game.first, SECOND)):
            counts = met[one].setdefault(other, dict.fromkeys(COUNTS, 0))
            counts["ties" if game.verdict == TIE else "wins" if game.verdict == won else "losses"] += 1
    return met


# ---- The command -----------------------------------------------------------------------------------------------------


def parse(argv: Sequence[str] | None) -> Settings:
    """Return what a command line asks for; a wrong one ends the program with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.elo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="pairwise judgements, .jsonl or .csv")
    parser.add_argument("--output", required=True, metavar="DIR", help="directory to write to")
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
    settings = Settings(**vars(options) | {"players": tuple(filter(None, options.players.split(",")))})
    if settings.orders < 1:
        parser.error(f"--orders {settings.orders}: at least 1 is needed")
    if not 0 < settings.k <= MOST_K:
        parser.error(f"--k {settings.k:g}: a number above 0 and up to {MOST_K} is needed")
    if not math.isfinite(settings.start):
        parser.error(f"--start {settings.start:g}: a finite number is needed")
    if Path(settings.output).exists() and not Path(settings.output).is_dir():
        parser.error(f"--output {settings.output}: it is a file; a directory is needed")
    if settings.seed < 0:
        parser.error(f"--seed {settings.seed}: 0 or more is needed")
    return settings


def select(games: Sequence[Game], files: Sequence[FileCount], settings: Settings) -> list[Game]:
    """Return the games that --judge and --category leave.

    Raises:
        DataError: there are none; says what there is.
    """
    if not games:
        ignored = sum((count.ignored for count in files), Counter())
        reasons = ", ".join(f"{reason}: {times}" for reason, times in ignored.most_common(5))
        raise DataError(f"no line has a score of 1, 2 or 3 ({reasons}); 1 is the first wins, 2 the second, 3 a tie")
    for flag, asked in (("judge", settings.judge), ("category", settings.category)):
        if asked is None:
            continue
        values = Counter(getattr(game, flag) for game in games)
        games = [game for game in games if getattr(game, flag) == asked]
        if not games:
            there = ", ".join(f"{name or '(none)'}: {times}" for name, times in values.most_common(20))
            raise DataError(f"--{flag} {asked}: no verdict is left; verdicts by {flag}: {there}")
    return list(games)


def report(result: Mapping[str, Any], output: Path) -> None:
    """Write elo.json, elo.md and elo.png, each whole or not at all, and then print the tables, as a pipe may break."""
    text = format_report(result)
    write_json(output / "elo.json", result)
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


def rate_files(settings: Settings) -> None:
    """Read, rate, write, and say what came of it."""
    games, files = read_games(settings.files, settings.players)
    chosen = select(games, files, settings)
    try:
        check_writable(Path(settings.output))
    except OSError as error:
        raise DataError(f"--output {settings.output} cannot be written: {error.strerror or error}") from error
    result = rate(chosen, settings) | {
        "settings": asdict(settings),
        "files": [vars(count) for count in files],
        "left_out": len(games) - len(chosen),
    }
    report(result, Path(settings.output))


def main(argv: Sequence[str] | None = None) -> int:
    """Rate the players of files of judgements; gives the exit status."""
    settings = parse(argv)
    return exit_status("eval.elo", lambda: rate_files(settings))


if __name__ == "__main__":
    sys.exit(main())
