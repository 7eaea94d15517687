"""Which games files of judgements hold: players and judges by the names of files, and what CSV files say."""

import pytest

from common.errors import DataError
from eval.elo.games import read_games
from tests.support.elo_files import SUFFIX, rating, writing

write, rate = pytest.fixture(writing, name="write"), pytest.fixture(rating, name="rate")


def names(paths, players=()):
    return [(game.first, game.second, game.judge) for game in read_games(paths, players)[0]]


def test_published_file_names(write):
    tail = "oa-generations-topp0.9-temp0.7"
    files = [
        write(f"13b-guanaco-{tail}-vs-65b-guanaco-{tail}-{SUFFIX}", [1]),
        write(f"gpt-4-oa-generations-vs-gpt-3.5-oa-generations-{SUFFIX}", [1]),
        write("65b-flan-vs-gpt-3.5-gpt4-reviewer", [1]),
        write("answer_gpt35_vs_answer_vicuna-13b_gpt-4_reviewer_threeclass", [1]),
    ]
    assert names(files) == [
        (f"13b-guanaco-{tail}", f"65b-guanaco-{tail}", "gpt-4"),
        ("gpt-4-oa-generations", "gpt-3.5-oa-generations", "gpt-4"),
        ("65b-flan", "gpt-3.5", "gpt4"),
        ("answer_gpt35", "answer_vicuna-13b", "gpt-4"),
    ]


def test_the_longest_known_player_is_the_second(write):
    files = [write("base-vs-tuned-v2-me", [1]), write("tuned-vs-base-me", [1]), write("tuned-v2-vs-tuned-me", [1])]
    assert names(files) == [("base", "tuned-v2", "me"), ("tuned", "base", "me"), ("tuned-v2", "tuned", "me")]


def test_what_follows_one_player_ends_the_next(write):
    """`c-d` stands before no -vs-; that the judge is `me` follows from the other file."""
    assert names([write("a-vs-b-me", [1]), write("b-vs-a-me", [1]), write("a-vs-c-d-me", [1])])[2] == ("a", "c-d", "me")


def test_fields_win_over_the_file_name(write):
    path = write("a-vs-b-x-y", [1], model_1="p", model_2="q")
    assert names([path]) == [("p", "q", "judge")]
    assert names([write("x-vs-y", [3], model_1="p", model_2="q", judge="me")]) == [("p", "q", "me")]


@pytest.mark.parametrize("name", ["a-vs-b-c", "judgements", "a-vs-b-vs-c", "a-vs-b-some-judge-reviewer"])
def test_ambiguous_names_are_refused(write, name):
    path = write(name, [1])
    with pytest.raises(DataError, match=rf"(?s){name}.*model_1 and model_2.*--players"):
        read_games([path])


def test_two_readings_are_refused_until_one_is_given(write):
    """Known is `base`; by the judge's name the player would be `base-7b`."""
    files = [write("base-vs-x", [1]), write("x-vs-base-7b-gpt-4-reviewer", [1])]
    with pytest.raises(DataError, match="does not tell where"):
        read_games(files)
    assert names(files, {"base-7b"})[1] == ("x", "base-7b", "gpt-4")
    files = [write("answer-gpt4-vs-x", [1]), write("x-vs-answer-gpt4-reviewer", [1])]
    with pytest.raises(DataError, match="does not tell where"):
        read_games(files)
    assert names(files, {"answer"})[1] == ("x", "answer", "gpt4")


def test_players_flag_settles_a_name(write, rate):
    result = rate(write("a-vs-b-c", [1, 2]), "--players", "b", "--orders", 5)
    assert {row["player"] for row in result["players"]} == {"a", "b"}
    assert result["agreement"]["judges"] == ["c"]


def test_human_annotations_of_the_release(tmp_path, rate):
    path = tmp_path / "humans.csv"
    rows = ["system_a", "tie", "system_b", "skipped"]
    text = "hit_id_hash,worker_id_hash,system_a,system_b,prompt,answer\n"
    path.write_text(text + "".join(f'h,w,p,q,"Why, then?",{answer}\n' for answer in rows), encoding="utf-8")
    result = rate(path, "--orders", 5)
    assert result["matrix"]["p"]["q"] == {"wins": 1, "ties": 1, "losses": 1}
    assert result["agreement"]["judges"] == ["human"] and result["questions"] == 1
    assert result["files"][0]["ignored"] == {"score holds a text": 1}


@pytest.mark.parametrize(("ending", "separator"), [(".csv", ","), (".tsv", "\t")])
def test_scores_of_a_csv_are_texts(tmp_path, rate, ending, separator):
    path = tmp_path / f"p-vs-q{ending}"
    lines = [("question_id", "score"), *enumerate([1, 2, 3, "1.0", -1, "", "x", "1.5", 4], 1), ("", 2), ("", 2)]
    path.write_text("".join(separator.join(map(str, line)) + "\n" for line in lines), encoding="utf-8")
    result = rate(path, "--orders", 5)
    assert result["matrix"]["p"] == {"q": {"wins": 2, "ties": 1, "losses": 3}}
    assert result["files"][0]["ignored"] == {"score -1": 1, "no score": 1, "score holds a text": 3}
    assert result["questions"] == 6 and result["files"][0]["without_question"] == 2
