"""Pairwise judging through the command line, against a real HTTP server."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from eval.judge import run as judge_run
from eval.judge.judge import main
from eval.judge.output import Ratings
from tests.support.judge_server import PLAYERS, QUESTIONS, command_line, completion, longer_wins, read, serving
from tests.support.paths import REPOSITORY

server, command = pytest.fixture(serving, name="server"), pytest.fixture(command_line, name="command")


def test_three_players_in_both_orders(server, command, tmp_path, capsys):
    server.answer = longer_wins
    assert main(command("--concurrency", "4", players=PLAYERS)) == 0
    files = read(tmp_path / "ratings")
    assert set(files) == {f"{a}-vs-{b}-org_judge_1-verdict.jsonl" for a in PLAYERS for b in PLAYERS if a != b}
    assert files["vicuna-vs-guanaco-org_judge_1-verdict.jsonl"][0] == {
        "question_id": 1,
        "category": "c1",
        "model_1": "vicuna",
        "model_2": "guanaco",
        "judge": "org/judge:1",
        "prompt": "verdict",
        "score": 2,
        "reply": "Hm.\nverdict: 2",
        "finish_reason": "stop",
        "prompt_tokens": 100,
        "completion_tokens": 10,
    }
    assert all([row["question_id"] for row in rows] == [1, 2, 3, 4] for rows in files.values())
    assert len(server.answered) == 24 and set(server.answered.values()) == {1}
    assert server.bodies[0].keys() == {"model", "messages", "temperature", "max_tokens"}
    assert (server.bodies[0]["model"], server.bodies[0]["temperature"]) == ("org/judge:1", 0)
    said = capsys.readouterr().out
    assert "24 of 24 comparisons are judged" in said
    assert "| guanaco | vicuna | 8 | 0 | 0 | 0 | 0 of 4 (0%) | 4 of 8 (50%) |" in " ".join(said.split())
    assert "tokens of all replies: 2,400 read, 240 written" in said
    assert f"next: python -m eval.elo {tmp_path}/ratings/*.jsonl --output {tmp_path}/ratings/elo" in said


def test_position_bias_shows(server, command, capsys):
    server.answer = lambda asked: "verdict: tie" if "river" in asked.question else "verdict: 1"
    assert main(command()) == 0
    row = "| guanaco | vicuna | 3 | 2 | 3 | 0 | 3 of 4 (75%) | 6 of 6 (100%) |"
    assert row in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("answer, warned", [(lambda asked: "verdict: 2", True), (longer_wins, False)])
def test_a_judge_that_goes_by_position_is_named(server, command, capsys, answer, warned):
    server.answer = answer
    assert main(command(players=PLAYERS)) == 0
    said = capsys.readouterr().out
    assert ("warning: this judge goes by position: the order changed 12 of 12 (100%) of the results" in said) == warned


def test_ten_points(server, command, tmp_path, capsys):
    server.answer = lambda asked: f"scores: {len(asked.first) % 10}.5 {len(asked.second) % 10}.5"
    assert main(command("--prompt", "scores", "--seed", "7", "--temperature", "0.5", "--max_tokens", "99")) == 0
    assert {name: server.bodies[0][name] for name in ("seed", "temperature", "max_tokens")} == {
        "seed": 7,
        "temperature": 0.5,
        "max_tokens": 99,
    }
    files = read(tmp_path / "ratings")
    lengths = {
        name: [len(form.format(text)) % 10 + 0.5 for text in QUESTIONS.values()] for name, form in PLAYERS.items()
    }
    straight = files["guanaco-vs-vicuna-org_judge_1-scores.jsonl"]
    assert [row["scores"] for row in straight] == [
        [a, b] for a, b in zip(lengths["guanaco"], lengths["vicuna"], strict=True)
    ]
    for row in straight + files["vicuna-vs-guanaco-org_judge_1-scores.jsonl"]:
        first, second = row["scores"]
        assert row["score"] == (1 if first > second else 2 if second > first else 3)
    means = f"{sum(lengths['guanaco']) / 4:.2f} | {sum(lengths['vicuna']) / 4:.2f} |"
    assert means in " ".join(capsys.readouterr().out.split())


def test_replies_that_say_nothing_are_counted_and_kept(server, command, capsys, tmp_path):
    empty = json.dumps({"choices": [{"finish_reason": "stop", "message": {"content": None}}]})
    odd = {1: "I like both! \ud83d", 2: (200, {}, empty), 3: (200, {}, completion("verdict: 1", "length"))}
    by_text = {QUESTIONS[n]: reply for n, reply in odd.items()}
    server.answer = lambda asked: by_text.get(asked.question, "verdict: 1")
    assert main(command()) == 0
    said = capsys.readouterr().out
    assert (
        "replies that could not be read: 6 (--retry_failures asks again; 2 were cut off: a larger --max_tokens with it "
        "leaves room to think)" in said
    )
    assert "tokens of all replies: 600 read, 60 written; 2 replies came without a count" in said
    rows = read(tmp_path / "ratings")["guanaco-vs-vicuna-org_judge_1-verdict.jsonl"]
    assert [(row["score"], row["reply"]) for row in rows] == [
        (-1, "I like both! \ud83d"),
        (-1, ""),
        (-1, "verdict: 1"),
        (1, "verdict: 1"),
    ]
    server.answer = longer_wins
    assert main(command()) == 0
    assert len(server.bodies) == 8, "nothing is asked again unless told"
    assert main(command("--retry_failures")) == 0
    assert len(server.bodies) == 14
    rows = read(tmp_path / "ratings")["guanaco-vs-vicuna-org_judge_1-verdict.jsonl"]
    assert [(row["question_id"], row["score"]) for row in rows] == [(1, 1), (2, 1), (3, 1), (4, 1)]


# Going on


def test_a_judge_of_whom_nothing_can_be_read_has_failed(server, command, capsys):
    server.answer = lambda asked: (200, {}, completion("<think> Let me see", "length"))
    assert main(command()) == 1
    assert "no reply could be read" in capsys.readouterr().err
    server.answer = longer_wins
    assert main(command("--retry_failures", "--max_tokens", "4096")) == 0
    assert "replies that could not be read: 0\n" in capsys.readouterr().out


def test_killed_in_the_middle_and_finished(server, command, tmp_path):
    """What the server answers before the kill is on the disk; a line that was being written is dropped."""
    directory, hang = tmp_path / "ratings", threading.Event()

    def answer(asked):
        if len(server.bodies) > 3:
            hang.wait()
            return None
        return longer_wins(asked)

    server.answer = answer
    run = subprocess.Popen(
        [sys.executable, "-m", "eval.judge", *command("--concurrency", "1")],
        cwd=REPOSITORY,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    while sum(map(len, read(directory).values() if directory.exists() else ())) < 3:
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    hang.set()
    torn = directory / "guanaco-vs-vicuna-org_judge_1-verdict.jsonl"
    whole = torn.read_bytes()
    torn.write_bytes(whole + whole[: len(whole) // 3])
    server.answer = longer_wins
    assert main(command()) == 0
    assert len(server.answered) == 8 and set(server.answered.values()) == {1}
    files = read(directory)
    assert [len(rows) for rows in files.values()] == [4, 4]
    assert all(row["score"] in (1, 2) for rows in files.values() for row in rows)


@pytest.mark.parametrize("cut", [-1, -40])
def test_a_torn_line_is_asked_again(cut, server, command, tmp_path, capsys, monkeypatch):
    """The file is whole before anything else is, so that it may be killed again at once."""
    server.answer = longer_wins
    assert main(command()) == 0
    before = read(tmp_path / "ratings")
    path = tmp_path / "ratings" / "vicuna-vs-guanaco-org_judge_1-verdict.jsonl"
    path.write_bytes(path.read_bytes()[:cut])
    monkeypatch.setattr(Ratings, "tidy", lambda *args: None)
    assert main(command()) == 0
    assert f"{path}: the last line was cut off in the middle" in capsys.readouterr().err
    assert read(tmp_path / "ratings") == before
    assert sorted(server.answered.values()) == [1] * 7 + [2]


def test_a_line_that_is_no_rating_is_refused(server, command, tmp_path, capsys):
    assert main(command()) == 0
    path = tmp_path / "ratings" / "vicuna-vs-guanaco-org_judge_1-verdict.jsonl"
    good = path.read_text()
    for bad, said in [("{}\n", "line 5: not a rating (question_id, model_1,"), ("?\n", "line 5: not valid JSON")]:
        path.write_text(good + bad)
        assert main(command()) == 2
        assert said in capsys.readouterr().err
    path.write_text(good.replace('"question_id": 1,', '"question_id": 9,'))
    assert main(command()) == 2
    assert "line 1: a rating of question 9 for vicuna and guanaco" in capsys.readouterr().err


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_what_is_under_way_end(signum, server, command, tmp_path, capsys, monkeypatch):
    follow, stops = judge_run.follow, []

    def watch(events, working, stop, bar):
        stops.append(stop)
        return follow(events, working, stop, bar)

    def answer(asked):
        if len(server.bodies) == 3:
            os.kill(os.getpid(), signum)
            assert stops[0].wait(timeout=60)  # the main thread has heard of it
        return longer_wins(asked)

    monkeypatch.setattr(judge_run, "follow", watch)
    server.answer = answer
    handler = signal.getsignal(signum)
    assert main(command()) == 128 + signum
    assert signal.getsignal(signum) is handler
    done = sum(map(len, read(tmp_path / "ratings").values()))
    assert done == 3, "the one under way is kept, and the others are not asked"
    said = f"stopped by {signum.name}: {done} of 8 comparisons are judged. To go on:\n    python -m eval.judge"
    assert said in capsys.readouterr().err
    server.answer = longer_wins
    assert main(command()) == 0
    assert set(server.answered.values()) == {1} and len(server.answered) == 8


def test_a_signal_ends_a_wait_at_once(server, command):
    """The endpoint asks to wait for minutes; nobody has to."""

    def answer(asked):
        os.kill(os.getpid(), signal.SIGINT)
        return 503, {"Retry-After": "300"}, "{}"

    server.answer = answer
    assert main(command()) == 130
    assert len(server.bodies) == 1


def test_a_second_signal_does_not_wait_for_replies(server, command, monkeypatch):
    hang = threading.Event()

    def answer(asked):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)  # another one: two of the same kind may become one
        hang.wait()

    server.answer = answer
    monkeypatch.setattr("eval.judge.run.GRACE", 300.0)
    assert main(command()) == 130
    hang.set()


def test_a_full_disk_loses_nothing(server, command, tmp_path, monkeypatch, capsys):
    server.answer = longer_wins
    real, count = os.fsync, iter(range(100))

    def fsync(file):
        if next(count) == 3:
            raise OSError(28, "No space left on device")
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    assert main(command()) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert sum(map(len, read(tmp_path / "ratings").values())) == 2, "the manifest took the first fsync"
    assert main(command()) == 0
    assert [len(rows) for rows in read(tmp_path / "ratings").values()] == [4, 4]


# Before anything is asked


def test_dry_run_asks_and_writes_nothing(server, command, tmp_path, capsys):
    assert main(command("--dry_run")) == 0
    said = capsys.readouterr().out
    assert "8 comparisons in both orders, 0 of them judged already" in said
    assert f"8 requests to org/judge:1 at {server.url}" in said
    assert "The first prompt (question 1, guanaco against vicuna)" in said and "Why is the sky blue? Good.\n===" in said
    assert not (tmp_path / "ratings").exists() and not server.bodies
    server.answer = longer_wins
    assert main(command()) == 0
    assert main(command("--dry_run", players=PLAYERS)) == 0
    assert "24 comparisons in both orders, 8 of them judged already\n16 requests" in capsys.readouterr().out


def test_keys(server, command, tmp_path, monkeypatch, capsys):
    assert main(command("--base_url", "https://api.openai.com/v1")) == 2
    assert "set OPENAI_API_KEY" in capsys.readouterr().err
    assert not (tmp_path / "ratings").exists()
    assert main(command()) == 0, "a local server needs none"
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert main(command("--output", str(tmp_path / "more"))) == 0
    monkeypatch.setenv("OPENAI_API_KEY", " secret\r\n")  # as a file with such line ends gives it
    assert main(command("--output", str(tmp_path / "again"))) == 0
    assert server.keys == {"Bearer none", "Bearer secret"}
    assert not any(b"secret" in path.read_bytes() for path in (tmp_path / "more").iterdir())


@pytest.mark.parametrize("key", ["sk-one\nsk-two", "sk-\xe9", "sk one"])
def test_a_key_that_is_none_is_never_shown(key, server, command, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert main(command()) == 2
    said = capsys.readouterr().err
    assert "OPENAI_API_KEY holds" in said and "sk-" not in said and "sk one" not in said
    assert not server.bodies


def test_environment_names_endpoint_and_model(server, command, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_MODEL", "by-environment")
    flags = command()
    at = flags.index("--base_url")
    assert main(flags[:at] + flags[at + 4 :]) == 0
    assert server.bodies[0]["model"] == "by-environment"


def test_help_loads_nothing_heavy():
    check = (
        "import sys\nfrom eval.judge.judge import main\ntry: main(['--help'])\n"
        "except SystemExit: print([name for name in ('openai', 'torch', 'httpx') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=REPOSITORY)
    assert run.stdout.endswith("[]\n"), run.stdout + run.stderr
