"""The output directory of a judge: what it was made from, and who may write there."""

import os

import pytest

from eval.judge.judge import main
from eval.judge.output import Ratings
from tests.support.judge_server import PLAYERS, command_line, longer_wins, read, serving

server, command = pytest.fixture(serving, name="server"), pytest.fixture(command_line, name="command")


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--temperature", "0.7"], "temperature (was 0.0, is 0.7)"),
        (["--prompt", "scores"], "prompt (was 'verdict', is 'scores'); prompt_text (other text)"),
        (["--model", "other"], "judge (was 'org/judge:1', is 'other')"),
        (["--max_tokens", "9", "--seed", "1"], "max_tokens (was 1024, is 9); seed (was None, is 1)"),
    ],
)
def test_other_settings_are_refused(flags, said, server, command, capsys):
    assert main(command()) == 0
    assert main(command(*flags)) == 2
    assert said in capsys.readouterr().err
    assert main(command(*flags, "--dry_run")) == 2
    assert len(server.bodies) == 8


def test_other_texts_are_refused_and_further_players_are_not(server, command, tmp_path, capsys):
    assert main(command()) == 0
    assert main(command(players=PLAYERS)) == 0
    assert len(server.bodies) == 24
    assert main(command()) == 0, "the first two alone, again"
    for name, what in (("base", "the answers of base"), ("questions", "questions")):
        path = tmp_path / f"{name}.jsonl"
        before = path.read_text()
        path.write_text(before.replace("river", "lake"))
        assert main(command(players=PLAYERS)) == 2
        assert f"made from something else: {what} (other text)" in capsys.readouterr().err
        path.write_text(before)
    (tmp_path / "ratings" / "judge.json").unlink()
    assert main(command()) == 2
    assert "but no judge.json" in capsys.readouterr().err
    assert len(server.bodies) == 24


def test_two_runs_do_not_share_a_directory(server, command, tmp_path, capsys):
    with Ratings(str(tmp_path / "ratings"), {}, print):
        assert main(command()) == 2
    assert f"another run (process {os.getpid()}) is writing there" in capsys.readouterr().err
    assert main(command()) == 0


def test_missing_answers_can_be_left_out(server, command, tmp_path, capsys):
    path = tmp_path / "base.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    assert main(command(players=PLAYERS)) == 2
    assert "base has no answer to 1 of 4 questions: 1\n" in capsys.readouterr().err
    assert main(command("--allow_missing", players=PLAYERS)) == 0
    assert "2 of 12 pairs of answers are skipped" in capsys.readouterr().err
    assert {name: len(rows) for name, rows in read(tmp_path / "ratings").items()} == {
        f"{a}-vs-{b}-org_judge_1-verdict.jsonl": 3 if "base" in (a, b) else 4
        for a in PLAYERS
        for b in PLAYERS
        if a != b
    }


def test_a_directory_without_a_reply_takes_other_settings(server, command, capsys):
    server.answer = lambda asked: (404, {}, "no such model")
    assert main(command("--model", "mistyped")) == 2
    server.answer = longer_wins
    assert main(command()) == 0
    assert "8 of 8 comparisons are judged" in capsys.readouterr().out


def test_a_longer_limit_for_replies_is_the_same_measurement(server, command, capsys):
    assert main(command()) == 0
    assert main(command("--max_tokens", "2048")) == 0
    assert len(server.bodies) == 8
    assert main(command()) == 2, "a shorter one would cut off what was not"
    assert "max_tokens (was 2048, is 1024)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names, said",
    [
        ("a,b-vs-c,a-vs-b,c", "a-vs-b-vs-c-org_judge_1-verdict.jsonl: a and b-vs-c, a-vs-b and c"),
        (f"{'a' * 120},{'b' * 120}", "is too long"),
    ],
)
def test_pairs_without_a_file_of_their_own_are_refused(names, said, server, command, tmp_path, capsys):
    players = ["guanaco", "vicuna", "base", "guanaco"][: names.count(",") + 1]
    assert main(command("--names", names, players=players)) == 2
    message = capsys.readouterr().err
    assert said in message and "--names" in message
    assert not server.bodies
