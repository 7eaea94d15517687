"""Lets a model judge which of two answers to a question is better, for every pair of answer files, in both orders.

    python -m eval.judge --questions question.jsonl --answers guanaco.jsonl vicuna.jsonl \\
        --base_url http://127.0.0.1:8000/v1 --model Qwen/Qwen3-32B --output ratings
    python -m eval.judge … --dry_run                 # how many requests, and one whole prompt; asks nothing
    python -m eval.judge … --prompt scores           # a score out of ten for each answer instead of win, lose or tie
    python -m eval.judge … --names base,tuned        # for files that do not say whose answers they hold

Questions are lines of {"question_id", "text", "category"}; answers lines of {"question_id", "text", "model_id"}
(FastChat), or a predictions.jsonl of qlora.py. Any OpenAI-compatible endpoint serves; OPENAI_BASE_URL, OPENAI_API_KEY
and OPENAI_MODEL are read. Each reply is on the disk before the next is asked for: stopped in any way, the same command
goes on where it was. Ratings are read by `python -m eval.elo`.

Exit status: 0 done, 2 the request was wrong, 1 judgements are missing, 130/143 stopped by a signal.
"""

import argparse
import math
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from common.commands import exit_status
from common.errors import DataError
from common.text import first_of
from eval.judge.client import OPENAI_URL, Judge, Pace, api_key, check_url
from eval.judge.inputs import Comparison, Player, Question, plan, read_players, read_questions
from eval.judge.output import Ratings, origin_of
from eval.judge.prompts import FAILED, KINDS, judge_prompt
from eval.judge.run import Outcome, judge_all
from eval.judge.summary import position_warning, tally_pairs, tally_table, token_counts

CHARACTERS_PER_TOKEN = 4  # of English, about


@dataclass(frozen=True)
class Settings:
    """What was asked for; `--help` says what each is."""

    questions: str
    answers: list[str]
    output: str
    names: list[str] | None
    prompt: str
    model: str
    base_url: str
    temperature: float
    max_tokens: int
    seed: int | None
    concurrency: int
    requests_per_minute: float | None
    timeout: float
    max_retries: int
    retry_wait: float
    retry_failures: bool
    allow_missing: bool
    dry_run: bool
    command: str  # the same again

    @property
    def how_to_go_on(self) -> str:
        """The command that goes on where this one ends."""
        return f"To go on:\n    {self.command}"


def main(argv: list[str] | None = None) -> int:
    """Read, judge what is not judged yet, and sum up."""
    settings = parse(sys.argv[1:] if argv is None else argv)
    return exit_status("eval.judge", lambda: run(settings), interrupted="the same command goes on")


def run(settings: Settings) -> int:
    """Carry out a command; gives its exit status."""
    questions = read_questions(settings.questions)
    players = read_players(settings.answers, questions, settings.names)
    comparisons = plan_comparisons(questions, players, settings.allow_missing)
    sampling = {"temperature": settings.temperature, "max_tokens": settings.max_tokens, "seed": settings.seed}
    origin = origin_of(questions, players, settings.prompt, settings.model, sampling)
    if not settings.dry_run:
        api_key(settings.base_url)  # before anything is written
    with Ratings(settings.output, origin, note, dry=settings.dry_run) as ratings:
        ratings.read(comparisons)
        todo = [comparison for comparison in comparisons if not ratings.is_done(comparison, settings.retry_failures)]
        if settings.dry_run:
            print(f"{len(questions):,} questions; players: {', '.join(player.name for player in players)}")
            show_plan(settings, comparisons, todo)
            return 0
        outcome, client = judge(settings, ratings, comparisons, todo)
        if not isinstance(outcome.error, OSError):
            ratings.tidy(questions, players)
    judged = f"{len(ratings.records):,} of {len(comparisons):,} comparisons are judged."
    if outcome.error is not None:
        if ratings.records:
            note(f"{judged} {settings.how_to_go_on}")
        raise outcome.error
    print(f"{judged} Ratings: {settings.output}")
    print_summary(settings.output, players, ratings, client)
    return status_of(outcome, settings, len(todo), judged, ratings)


def judge(
    settings: Settings, ratings: Ratings, comparisons: list[Comparison], todo: list[Comparison]
) -> tuple[Outcome, Judge]:
    """Ask for what is missing; each reply is among the ratings before the next is asked for."""
    stop = threading.Event()
    client = make_client(settings, stop)

    def ask(comparison: Comparison) -> None:
        ratings.append(comparison, client.ask(prompt_of(comparison, settings.prompt)))

    return judge_all(todo, len(comparisons), ask, settings.concurrency, stop), client


def plan_comparisons(questions: list[Question], players: list[Player], allow_missing: bool) -> list[Comparison]:
    """Return every pair in both orders on every question; answers that are missing need --allow_missing."""
    keys = {question.key for question in questions}
    for player in players:
        others = [key for key in player.answers if key not in keys]
        if others:
            note(f"note: {player.name} has {len(others):,} answers to no question here: {first_of(others)}")
    comparisons, missing = plan(questions, players)
    for name, unanswered in missing.items():
        message = f"{name} has no answer to {len(unanswered):,} of {len(questions):,} questions: {first_of(unanswered)}"
        if not allow_missing:
            raise DataError(f"{message}\n--allow_missing leaves these questions out of its pairs")
        note(f"note: {message}")
    pairs = len(questions) * math.comb(len(players), 2)
    skipped = pairs - len(comparisons) // 2
    if skipped:
        note(f"note: --allow_missing: {skipped:,} of {pairs:,} pairs of answers are skipped")
    if not comparisons:
        raise DataError("no question has answers of two players; do the files belong to these questions?")
    return comparisons


def make_client(settings: Settings, stop: threading.Event) -> Judge:
    """Return the judge behind the endpoint."""
    # OpenAI's newer models take only the one name, and many other servers know only the other.
    is_openai = urlsplit(settings.base_url).hostname == urlsplit(OPENAI_URL).hostname
    sampling: dict[str, Any] = {
        "temperature": settings.temperature,
        "max_completion_tokens" if is_openai else "max_tokens": settings.max_tokens,
    }
    if settings.seed is not None:
        sampling["seed"] = settings.seed
    return Judge(
        base_url=settings.base_url,
        model=settings.model,
        sampling=sampling,
        pace=Pace(settings.requests_per_minute, stop),
        timeout=settings.timeout,
        max_retries=settings.max_retries,
        retry_wait=settings.retry_wait,
        note=note,
    )


def prompt_of(comparison: Comparison, kind: str) -> str:
    """Return what the judge is asked of a comparison."""
    key = comparison.question.key
    return judge_prompt(kind, comparison.question.text, comparison.first.answers[key], comparison.second.answers[key])


# ---- Messages --------------------------------------------------------------------------------------------------------


def note(message: str) -> None:
    """Print a line on stderr that leaves a progress bar whole."""
    from tqdm import tqdm

    tqdm.write(message, file=sys.stderr)


def show_plan(settings: Settings, comparisons: list[Comparison], todo: list[Comparison]) -> None:
    """Print the number of requests and the first prompt."""
    print(f"{len(comparisons):,} comparisons in both orders, {len(comparisons) - len(todo):,} of them judged already")
    characters = sum(len(prompt_of(comparison, settings.prompt)) for comparison in todo)
    read, written = characters // CHARACTERS_PER_TOKEN, len(todo) * settings.max_tokens
    print(
        f"{len(todo):,} requests to {settings.model} at {settings.base_url}, about {read:,} tokens to read and at most "
        f"{written:,} to write"
    )
    if todo:
        question, first, second = todo[0].key
        print(f"\nThe first prompt (question {question}, {first} against {second}):\n")
        print(prompt_of(todo[0], settings.prompt))


def print_summary(output: str, players: list[Player], ratings: Ratings, client: Judge) -> None:
    """Print who won, what could not be read, what the run cost, and the next command."""
    records = list(ratings.records.values())
    failed = sum(record["score"] == FAILED for record in records)
    if records:
        tallies = tally_pairs(players, ratings.records)
        print(f"\n{tally_table(tallies)}\n")
        if warning := position_warning(tallies):
            print(f"{warning}\n")
    cut_off = sum(record.get("finish_reason") == "length" for record in records)
    advice = f"; {cut_off:,} were cut off: a larger --max_tokens with it leaves room to think" if cut_off else ""
    advice = f" (--retry_failures asks again{advice})" if failed else ""
    print(f"replies that could not be read: {failed:,}{advice}")
    print(f"requests of this run: {client.requests:,}, {client.retries:,} of them retries")
    if records:
        print(token_counts(records))
    if len(records) > failed:
        directory = shlex.quote(output.rstrip("/") or "/")
        print(f"next: python -m eval.elo {directory}/*.jsonl --output {directory}/elo")


def status_of(outcome: Outcome, settings: Settings, asked: int, judged: str, ratings: Ratings) -> int:
    """Say what is missing of what was to be asked, why, and how to get it; gives the exit status."""
    if outcome.signum is not None:
        note(f"eval.judge: stopped by {signal.Signals(outcome.signum).name}: {judged} {settings.how_to_go_on}")
        return 128 + outcome.signum
    if outcome.refused:
        note(refusals(outcome.refused, settings.allow_missing))
    if outcome.given_up:
        comparison, error = outcome.given_up[-1]
        not_asked = asked - outcome.replies - len(outcome.given_up) - len(outcome.refused)
        ended = f"\n{not_asked:,} were not asked, as several failed in a row" if not_asked else ""
        note(
            f"eval.judge: failed: {asked - outcome.replies:,} comparisons got no reply\nfor {len(outcome.given_up):,} "
            f"every try failed, the last of them {' / '.join(comparison.key)}: {error}{ended}\n{settings.how_to_go_on}"
        )
    if outcome.given_up or (outcome.refused and not settings.allow_missing):
        return 1
    if ratings.records and all(record["score"] == FAILED for record in ratings.records.values()):
        note(f"eval.judge: failed: no reply could be read; see what they say in {settings.output}")
        return 1
    return 0


def refusals(refused: list[tuple[Comparison, Exception]], allowed: bool) -> str:
    """Return what the endpoint did not take, and what to do about it."""
    questions = list(dict.fromkeys(comparison.question.key for comparison, _ in refused))
    message = (
        f"{'note: --allow_missing:' if allowed else 'eval.judge: failed:'} {len(refused):,} comparisons have no "
        f"rating, as their prompts are refused; by question_id: {first_of(questions)}\nthe last: {refused[-1][1]}"
    )
    advice = "\nor do without: the same command with --allow_missing. Other answers need another --output."
    return message if allowed else message + advice


# ---- The command line ------------------------------------------------------------------------------------------------


def parse(argv: list[str]) -> Settings:
    """Return what a command line asks for; a wrong one ends the program with a message and status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.judge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_flags(parser)
    flags = vars(parser.parse_args(argv))
    if flags["names"] is not None:
        flags["names"] = [name.strip() for name in flags["names"].split(",")]
        if not all(flags["names"]):
            parser.error("--names: a name is empty; one for each answer file is needed, with commas between them")
    if not flags["model"]:
        parser.error("--model (or OPENAI_MODEL) is needed: the name under which the endpoint serves the judge")
    try:
        check_url(flags["base_url"])
    except DataError as error:
        parser.error(str(error))
    return Settings(**flags, command=shlex.join(["python", "-m", "eval.judge", *argv]))


def add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    environ = os.environ
    add("--questions", required=True, metavar="FILE", help="lines of question_id, text and category")
    add("--answers", required=True, nargs="+", metavar="FILE", help="two or more files of answers to them")
    add("--output", required=True, metavar="DIR", help="directory of the ratings files; a stopped run goes on there")
    add("--names", metavar="A,B,…", help="of the players, one for each file (default: model_id, else the file's name)")
    add("--prompt", choices=KINDS, default=KINDS[0], help="win, lose or tie, or 0 to 10 each (default: %(default)s)")
    add("--model", default=environ.get("OPENAI_MODEL"), help="the judge (default: OPENAI_MODEL)")
    add(
        "--base_url",
        metavar="URL",
        default=environ.get("OPENAI_BASE_URL") or OPENAI_URL,
        help=f"of the endpoint (default: OPENAI_BASE_URL, else {OPENAI_URL})",
    )
    add("--temperature", type=at_least(0.0), default=0.0, help="0 is greedy (default: %(default)s)")
    add("--max_tokens", type=at_least(1), default=1024, help="of a reply (default: %(default)s)")
    add("--seed", type=int, help="passed to the endpoint, for servers that sample with one")
    add("--concurrency", type=at_least(1), default=4, help="requests under way at once (default: %(default)s)")
    add("--requests_per_minute", type=at_least(0.01), help="tries included (default: no limit)")
    add("--timeout", type=at_least(0.01), default=300.0, help="seconds without any byte (default: %(default)s)")
    add("--max_retries", type=at_least(0), default=6, help="further tries of a request (default: %(default)s)")
    add("--retry_wait", type=at_least(0.0), default=1.0, help="seconds before the second try (default: %(default)s)")
    add("--retry_failures", action="store_true", help="ask again where the reply could not be read")
    add("--allow_missing", action="store_true", help="do without pairs where one has no answer or the endpoint refuses")
    add("--dry_run", action="store_true", help="show the number of requests and one prompt, and ask nothing")


def at_least(least: float) -> Callable[[str], float]:
    """Return what reads a number of the type of `least` that is not smaller, for argparse."""

    def read(text: str) -> float:
        value = type(least)(text)
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is out of range; at least {least} is needed")
        return value

    read.__name__ = "whole number" if isinstance(least, int) else "number"
    return read


if __name__ == "__main__":
    sys.exit(main())
