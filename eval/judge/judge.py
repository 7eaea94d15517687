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
from typing import Any
from urllib.parse import urlsplit

from common.errors import DataError
from eval.judge.client import OPENAI_URL, Judge, Pace, RefusedError, UnavailableError, api_key, check_url
from eval.judge.inputs import Comparison, Player, Question, first_few, plan, read_players, read_questions
from eval.judge.output import Ratings, make_settings
from eval.judge.prompts import FAILED, KINDS, judge_prompt
from eval.judge.run import Outcome, judge_all
from eval.judge.summary import position_warning, table, tally_pairs, tokens

CHARACTERS_PER_TOKEN = 4  # of English, about


def main(argv: list[str] | None = None) -> int:
    """Read, judge what is not judged yet, and sum up."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse(argv)
    try:
        questions = read_questions(args.questions)
        players = read_players(args.answers, questions, args.names)
        comparisons = plan_comparisons(questions, players, args)
        if args.dry_run:
            return show_plan(args, questions, players, comparisons)
        return judge(args, argv, questions, players, comparisons)
    except (DataError, RefusedError) as error:
        print(f"eval.judge: error: {error}", file=sys.stderr)
        return 2
    except (OSError, UnavailableError) as error:
        print(f"eval.judge: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("eval.judge: interrupted; the same command goes on", file=sys.stderr)
        return 130


def judge(
    args: argparse.Namespace,
    argv: list[str],
    questions: list[Question],
    players: list[Player],
    comparisons: list[Comparison],
) -> int:
    """Ask for what is missing, then print the summary; gives the exit status."""
    api_key(args.base_url)  # before anything is written
    with Ratings(args.output, settings(args, questions, players), note) as ratings:
        ratings.read(comparisons)
        todo = [comparison for comparison in comparisons if not ratings.is_done(comparison, args.retry_failures)]
        stop = threading.Event()
        client = make_client(args, stop)

        def ask(comparison: Comparison) -> None:
            ratings.append(comparison, client.ask(prompt_of(comparison, args.prompt)))

        outcome = judge_all(todo, len(comparisons), ask, args.concurrency, stop)
        if not isinstance(outcome.error, OSError):
            ratings.tidy(questions, players)
    if outcome.error is not None:
        if ratings.records:
            note(f"{progress(ratings, comparisons)} {how_to_go_on(argv)}")
        raise outcome.error
    print_summary(args, players, comparisons, ratings, client)
    status = exit_status(outcome, args, argv, len(todo), progress(ratings, comparisons))
    if not status and ratings.records and all(record["score"] == FAILED for record in ratings.records.values()):
        note(f"eval.judge: failed: no reply could be read; see what they say in {args.output}")
        return 1
    return status


def plan_comparisons(questions: list[Question], players: list[Player], args: argparse.Namespace) -> list[Comparison]:
    """Every pair in both orders on every question; answers that are missing need --allow_missing."""
    known = {question.key for question in questions}
    for player in players:
        others = [key for key in player.answers if key not in known]
        if others:
            note(f"note: {player.name} has {len(others):,} answers to no question here: {first_few(others)}")
    comparisons, missing = plan(questions, players)
    for name, keys in missing.items():
        message = f"{name} has no answer to {len(keys):,} of {len(questions):,} questions: {first_few(keys)}"
        if not args.allow_missing:
            raise DataError(f"{message}\n--allow_missing leaves these questions out of its pairs")
        note(f"note: {message}")
    pairs = len(players) * (len(players) - 1) // 2
    skipped = len(questions) * pairs - len(comparisons) // 2
    if skipped:
        note(f"note: --allow_missing: {skipped:,} of {len(questions) * pairs:,} pairs of answers are skipped")
    if not comparisons:
        raise DataError("no question has answers of two players; do the files belong to these questions?")
    return comparisons


def settings(args: argparse.Namespace, questions: list[Question], players: list[Player]) -> dict[str, Any]:
    sampling = {"temperature": args.temperature, "max_tokens": args.max_tokens, "seed": args.seed}
    return make_settings(questions, players, args.prompt, args.model, sampling)


def make_client(args: argparse.Namespace, stop: threading.Event) -> Judge:
    # OpenAI's newer models take only the one name, and many other servers know only the other.
    is_openai = urlsplit(args.base_url).hostname == urlsplit(OPENAI_URL).hostname
    sampling = {
        "temperature": args.temperature,
        "max_completion_tokens" if is_openai else "max_tokens": args.max_tokens,
        **({} if args.seed is None else {"seed": args.seed}),
    }
    pace = Pace(args.requests_per_minute, stop)
    return Judge(
        args.base_url, args.model, sampling, pace, args.timeout, args.max_retries, args.retry_wait, note
    )  # fmt: skip


def prompt_of(comparison: Comparison, kind: str) -> str:
    key = comparison.question.key
    return judge_prompt(kind, comparison.question.text, comparison.first.answers[key], comparison.second.answers[key])


# Saying


def note(message: str) -> None:
    from tqdm import tqdm

    tqdm.write(message, file=sys.stderr)  # which leaves a progress bar whole


def show_plan(
    args: argparse.Namespace, questions: list[Question], players: list[Player], comparisons: list[Comparison]
) -> int:
    """Print the number of requests and the first prompt."""
    with Ratings(args.output, settings(args, questions, players), note, dry=True) as ratings:
        ratings.read(comparisons)
    todo = [comparison for comparison in comparisons if not ratings.is_done(comparison, args.retry_failures)]
    names = ", ".join(player.name for player in players)
    print(f"{len(questions):,} questions; players: {names}")
    print(f"{len(comparisons):,} comparisons in both orders, {len(comparisons) - len(todo):,} of them judged already")
    characters = sum(len(prompt_of(comparison, args.prompt)) for comparison in todo)
    print(
        f"{len(todo):,} requests to {args.model} at {args.base_url}, about {characters // CHARACTERS_PER_TOKEN:,} "
        f"tokens to read and at most {len(todo) * args.max_tokens:,} to write"
    )
    if todo:
        question, first, second = todo[0].key
        print(f"\nThe first prompt (question {question}, {first} against {second}):\n")
        print(prompt_of(todo[0], args.prompt))
    return 0


def progress(ratings: Ratings, comparisons: list[Comparison]) -> str:
    return f"{len(ratings.records):,} of {len(comparisons):,} comparisons are judged."


def how_to_go_on(argv: list[str]) -> str:
    return f"To go on:\n    {shlex.join(['python', '-m', 'eval.judge', *argv])}"


def print_summary(
    args: argparse.Namespace, players: list[Player], comparisons: list[Comparison], ratings: Ratings, client: Judge
) -> None:
    failed = sum(record["score"] == FAILED for record in ratings.records.values())
    print(f"{progress(ratings, comparisons)} Ratings: {args.output}")
    if ratings.records:
        tallies = tally_pairs(players, ratings.records)
        print(f"\n{table(tallies)}\n")
        if warning := position_warning(tallies):
            print(f"{warning}\n")
    print(f"replies that could not be read: {failed:,}{about_failures(failed, ratings)}")
    print(f"requests of this run: {client.requests:,}, {client.retries:,} of them retries")
    if ratings.records:
        print(tokens(ratings.records.values()))
    if len(ratings.records) > failed:
        directory = shlex.quote(args.output.rstrip("/") or "/")
        print(f"next: python -m eval.elo {directory}/*.jsonl --output {directory}/elo")


def about_failures(failed: int, ratings: Ratings) -> str:
    """What to do about replies that could not be read."""
    if not failed:
        return ""
    cut_off = sum(record.get("finish_reason") == "length" for record in ratings.records.values())
    mend = f"; {cut_off:,} were cut off: a larger --max_tokens with it leaves room to think" if cut_off else ""
    return f" (--retry_failures asks again{mend})"


def exit_status(outcome: Outcome, args: argparse.Namespace, argv: list[str], asked: int, judged: str) -> int:
    """Say what is missing of what was to be asked, why, and how to get it."""
    if outcome.signum is not None:
        note(f"eval.judge: stopped by {signal.Signals(outcome.signum).name}: {judged} {how_to_go_on(argv)}")
        return 128 + outcome.signum
    if outcome.refused:
        note(refusals(outcome.refused, args.allow_missing))
    if outcome.given_up:
        comparison, error = outcome.given_up[-1]
        not_asked = asked - outcome.replies - len(outcome.given_up) - len(outcome.refused)
        ended = f"\n{not_asked:,} were not asked, as several failed in a row" if not_asked else ""
        note(
            f"eval.judge: failed: {asked - outcome.replies:,} comparisons got no reply\nfor {len(outcome.given_up):,} "
            f"every try failed, the last of them {' / '.join(comparison.key)}: {error}{ended}\n{how_to_go_on(argv)}"
        )
    return 1 if outcome.given_up or (outcome.refused and not args.allow_missing) else 0


def refusals(refused: list[tuple[Comparison, Exception]], allowed: bool) -> str:
    """What the endpoint did not take, and what to do about it."""
    questions = list(dict.fromkeys(comparison.question.key for comparison, _ in refused))
    head = "note: --allow_missing:" if allowed else "eval.judge: failed:"
    said = (
        f"{head} {len(refused):,} comparisons have no rating, as their prompts are refused; by question_id: "
        f"{first_few(questions)}\nthe last: {refused[-1][1]}"
    )
    advice = "\nor do without: the same command with --allow_missing. Other answers need another --output."
    return said if allowed else said + advice


# The command line


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line; SystemExit with status 2 and a message where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.judge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_flags(parser)
    args = parser.parse_args(argv)
    args.names = None if args.names is None else [name.strip() for name in args.names.split(",")]
    if args.names is not None and not all(args.names):
        parser.error("--names: a name is empty; one for each answer file is needed, with commas between them")
    if not args.model:
        parser.error("--model (or OPENAI_MODEL) is needed: the name under which the endpoint serves the judge")
    try:
        check_url(args.base_url)
    except DataError as error:
        parser.error(str(error))
    return args


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
    """A number of the type of `least` that is not smaller, for argparse."""

    def read(text: str) -> float:
        value = type(least)(text)
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is out of range; at least {least} is needed")
        return value

    read.__name__ = "whole number" if isinstance(least, int) else "number"
    return read


if __name__ == "__main__":
    sys.exit(main())
