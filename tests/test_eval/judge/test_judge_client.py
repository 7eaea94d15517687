"""Errors of an endpoint, its slowness, and the pace of requests."""

import threading
import time
from collections import Counter
from email.utils import formatdate
from types import SimpleNamespace

import pytest

from eval.judge import run as judge_run
from eval.judge.client import Pace, StoppedError, _retry_after
from eval.judge.judge import main
from tests.support.judge_server import PLAYERS, QUESTIONS, command_line, longer_wins, read, serving

server, command = pytest.fixture(serving, name="server"), pytest.fixture(command_line, name="command")


BROKEN = {
    "HTTP 500": (500, {}, '{"error": {"message": "out of order"}}'),
    "HTTP 408": (408, {}, "{}"),
    "HTTP 409": (409, {}, "not even JSON"),
    "HTTP 429": (429, {}, '{"error": {"message": "slow down", "code": "rate_limit_exceeded"}}'),
    "no connection to": None,
    "not a chat completion: <html>": (200, {"Content-Type": "text/html"}, "<html>Welcome"),
    "not a chat completion: Unterminated": (200, {}, '{"choices": [{"mess'),
    "not a chat completion: ChatCompletion": (200, {}, '{"choices": []}'),
}


def test_what_may_pass_is_tried_again(server, command, capsys):
    kinds = dict(
        zip([f"{text} {order}" for text in QUESTIONS.values() for order in "ab"], BROKEN.values(), strict=True)
    )

    def answer(asked):
        order = "a" if len(asked.first) > len(asked.second) else "b"
        return kinds[f"{asked.question} {order}"] if asked.tries <= 2 else longer_wins(asked)

    server.answer = answer
    assert main(command()) == 0
    said = capsys.readouterr()
    assert "requests of this run: 24, 16 of them retries" in said.out
    assert set(server.tried.values()) == {3}
    for failure in BROKEN:
        assert said.err.count(failure) == 1, "each kind is told once"


def test_a_slow_reply_is_asked_for_again(server, command, capsys):
    slow = threading.Event()
    server.answer = lambda asked: (
        longer_wins(asked) if "river" not in asked.question or asked.tries > 1 else slow.wait()
    )
    assert main(command("--timeout", "0.5")) == 0
    slow.set()
    assert "no reply within 0.5 s (--timeout)" in capsys.readouterr().err


def test_retry_after_is_waited_for(server, command):
    told, early = [], []

    def answer(asked):
        if not told:
            told.append(time.monotonic())
            return 429, {"Retry-After": "0.4"}, "{}"
        early.append(time.monotonic() - told[0] < 0.4)
        return longer_wins(asked)

    server.answer = answer
    assert main(command()) == 0
    assert len(early) == 8 and not any(early)


@pytest.mark.parametrize(
    "headers, seconds",
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_retry_after_header(headers, seconds):
    found = _retry_after(SimpleNamespace(response=SimpleNamespace(headers=headers)))
    assert found == seconds


def test_retry_after_a_date():
    began = int(time.time())
    headers = {"retry-after": formatdate(began + 3600, usegmt=True)}
    found = _retry_after(SimpleNamespace(response=SimpleNamespace(headers=headers)))
    assert began + 3600 - time.time() <= found <= 3600


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_cannot_pass_ends_the_run(status, server, command, capsys, tmp_path):
    server.answer = lambda asked: (status, {}, '{"error": {"message": "no such thing", "code": null}}')
    assert main(command()) == 2
    said = capsys.readouterr().err
    assert f"eval.judge: error: {server.url} refuses the request: HTTP {status}: no such thing\n" in said
    assert len(server.bodies) == 1 and not read(tmp_path / "ratings")


@pytest.mark.parametrize("questions, requests", [(2, 3), (10, 8)])  # of four, in both orders
def test_flags_that_no_request_passes_with_end_the_run(
    questions, requests, server, command, capsys, tmp_path, monkeypatch
):
    """Such a status may be for one prompt alone: more questions are tried, all where there are few."""
    monkeypatch.setattr(judge_run, "REFUSED_AT_FIRST", questions)
    server.answer = lambda asked: (422, {}, '{"error": {"message": "no such thing", "code": null}}')
    assert main(command("--concurrency", "1")) == 2
    said = capsys.readouterr().err
    assert f"eval.judge: error: {server.url} refuses the request: HTTP 422: no such thing\n" in said
    assert requests <= len(server.bodies) <= requests + 1 and not read(tmp_path / "ratings")
    assert ("2 questions were refused before any was judged: no more are asked\n" in said) == (questions == 2)


@pytest.mark.parametrize("status", [400, 413])
@pytest.mark.parametrize("refused, requests", [(("blue",), 2), (("river", "2 + 2"), 4)])
def test_prompts_that_are_refused_do_not_end_the_others(
    refused, requests, status, server, command, capsys, monkeypatch
):
    """The first question; and two others, as many as end the run where none was judged before."""
    monkeypatch.setattr(judge_run, "REFUSED_AT_FIRST", 2)

    def answer(asked):
        too_long = (status, {}, '{"error": {"message": "over 8,192 tokens", "code": "context_length_exceeded"}}')
        return too_long if any(word in asked.question for word in refused) else longer_wins(asked)

    server.answer = answer
    assert main(command("--concurrency", "1")) == 1
    said = capsys.readouterr()
    assert f"{8 - requests} of 8 comparisons are judged" in said.out
    ids = {2: "1", 4: "2, 3"}[requests]
    assert (
        f"failed: {requests} comparisons have no rating, as their prompts are refused; by question_id: {ids}\n"
        in said.err
    )
    assert f"HTTP {status}: over 8,192 tokens\n" in said.err and "--allow_missing" in said.err
    assert "To go on:" not in said.err  # the same command would ask in vain
    assert main(command("--concurrency", "1", "--allow_missing")) == 0
    assert f"note: --allow_missing: {requests} comparisons have no rating" in capsys.readouterr().err
    server.answer = longer_wins
    server.tried.clear()
    assert main(command()) == 0
    assert sum(server.tried.values()) == requests


def test_retries_of_unreadable_replies_that_fail_are_said(server, command, capsys):
    server.answer = lambda asked: "hm"
    assert main(command()) == 1
    server.answer = lambda asked: (500, {}, "{}")
    assert main(command("--retry_failures", "--max_retries", "0")) == 1
    assert "8 comparisons got no reply\nfor" in capsys.readouterr().err


@pytest.mark.parametrize(
    "answer, said",
    [
        ((429, {}, '{"error": {"message": "pay first", "code": "insufficient_quota"}}'), "HTTP 429: pay first"),
        ((503, {"Retry-After": "3600"}, "{}"), "asks to wait 3,600 s (HTTP 503:"),
    ],
)
def test_an_endpoint_that_has_closed_ends_the_run(answer, said, server, command, capsys):
    server.answer = lambda asked: answer
    assert main(command()) == 1
    assert said in capsys.readouterr().err
    assert len(server.bodies) == 1


def test_requests_that_never_work_do_not_hold_up_the_others(server, command, capsys):
    """Four of them, never three in a row."""

    def answer(asked):
        return (500, {}, "{}") if "river" in asked.question or "blue" in asked.question else longer_wins(asked)

    server.answer = answer
    assert main(command("--max_retries", "2")) == 1
    said = capsys.readouterr()
    assert "4 of 8 comparisons are judged" in said.out
    assert "4 comparisons got no reply\nfor 4 every try failed, the last of them 3 / vicuna / guanaco: 3" in said.err
    server.answer = longer_wins
    server.tried.clear()
    assert main(command()) == 0
    assert sum(server.tried.values()) == 4


def test_an_endpoint_that_is_down_ends_the_run(server, command, capsys):
    server.answer = lambda asked: None
    assert main(command("--max_retries", "1")) == 1
    assert 6 <= len(server.bodies) <= 8, "three comparisons, twice each, and what had begun by then"
    said = capsys.readouterr().err
    assert " were not asked, as several failed in a row\nTo go on:\n    python -m eval.judge --questions" in said


# Pace


def test_requests_under_way_at_once(server, command):
    """Three requests wait for one another, so fewer at once would break the barrier; more would be seen."""
    barrier, under_way, seen, lock = threading.Barrier(3), Counter(), [], threading.Lock()

    def answer(asked):
        with lock:
            under_way["now"] += 1
            seen.append(under_way["now"])
        barrier.wait(timeout=30)
        with lock:
            under_way["now"] -= 1
        return longer_wins(asked)

    server.answer = answer
    assert main(command("--concurrency", "3", players=PLAYERS)) == 0
    assert max(seen) == 3


def test_requests_per_minute_are_spread_over_all_threads():
    pace, starts, began = Pace(6000, threading.Event()), [], time.monotonic()

    def work():
        for _ in range(5):
            pace.wait()
            starts.append(time.monotonic() - began)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(start >= number * 0.01 for number, start in enumerate(sorted(starts)))


def test_a_rate_limit_counts_tries_too(server, command):
    server.answer = lambda asked: longer_wins(asked) if asked.tries > 1 else (500, {}, "{}")
    began = time.monotonic()
    assert main(command("--requests_per_minute", "1800")) == 0
    assert time.monotonic() - began >= 15 / 30


def test_a_held_pace_holds_other_threads():
    pace, began = Pace(None, threading.Event()), time.monotonic()
    threading.Thread(target=pace.hold, args=[0.1]).run()
    pace.wait()
    assert time.monotonic() - began >= 0.1


def test_pace_stops():
    stop = threading.Event()
    pace = Pace(1, stop)
    pace.wait()
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(StoppedError):
        pace.wait()
