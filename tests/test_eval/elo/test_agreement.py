"""Agreement between judges against published examples, and which verdicts are compared with which."""

import json

import pytest

from eval.elo.agreement import (
    agreement,
    cohen_kappa,
    fleiss_kappa,
    kendall_tau,
    majority,
    position_bias,
    shared_items,
)
from eval.elo.games import Game
from eval.elo.ratings import main

# Ten subjects that 14 raters put into five categories: rows are subjects, cells count raters. The example is in
# https://en.wikipedia.org/wiki/Fleiss%27_kappa#Worked_example, which gives a kappa of 0.210.
FOURTEEN_RATERS = [
    (0, 0, 0, 0, 14),
    (0, 2, 6, 4, 2),
    (0, 0, 3, 5, 6),
    (0, 3, 9, 2, 0),
    (2, 2, 8, 1, 1),
    (7, 7, 0, 0, 0),
    (3, 2, 6, 3, 0),
    (2, 5, 3, 2, 2),
    (6, 5, 2, 1, 0),
    (0, 2, 2, 3, 7),
]


def games(judge, first, second, verdicts, start=0):
    return [Game(f"q{at}", first, second, verdict, judge) for at, verdict in enumerate(verdicts, start)]


def test_fleiss_of_fourteen_raters():
    items = [tuple(str(at) for at, count in enumerate(row) for _ in range(count)) for row in FOURTEEN_RATERS]
    assert fleiss_kappa(items) == pytest.approx(0.210, abs=5e-4)  # published to three digits


@pytest.mark.parametrize(
    ("yes_yes", "yes_no", "no_yes", "no_no", "kappa"),
    # https://en.wikipedia.org/wiki/Cohen%27s_kappa: grants, and the two tables of the same agreement.
    [(20, 5, 10, 15, 0.4), (45, 15, 25, 15, 0.1304), (25, 35, 5, 35, 0.2593)],
)
def test_cohen_of_two_readers(yes_yes, yes_no, no_yes, no_no, kappa):
    items = [("y", "y")] * yes_yes + [("y", "n")] * yes_no + [("n", "y")] * no_yes + [("n", "n")] * no_no
    assert cohen_kappa(items) == pytest.approx(kappa, abs=5e-5)  # published to four digits


def test_kappa_is_undefined_where_every_verdict_is_the_same_or_there_is_none():
    assert cohen_kappa([("tie", "tie")] * 5) is None and fleiss_kappa([("tie",) * 3] * 5) is None
    assert cohen_kappa([]) is None and fleiss_kappa([]) is None
    assert cohen_kappa([("first", "second")] * 5) == 0


def test_kendall_of_rankings():
    gold = {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0, "only here": 9.0}
    assert kendall_tau(gold, {"a": 40, "b": 30, "c": 20, "d": 10}) == 1
    assert kendall_tau(gold, {"a": 40, "b": 30, "c": 10, "d": 20}) == pytest.approx(4 / 6)
    # tau-b with one tie among four: (5 - 0) / sqrt(6 * 5)
    assert kendall_tau(gold, {"a": 40, "b": 30, "c": 10, "d": 10}) == pytest.approx(5 / 30**0.5)
    assert kendall_tau(gold, {"a": 1.0}) is None and kendall_tau(gold, {"a": 1.0, "b": 1.0}) is None


def test_majority():
    assert majority(["a", "b", "a"]) == "a" and majority(["a"]) == "a"
    assert majority(["a", "b"]) == majority(["a", "b", ""]) == ""


def test_items_are_by_order_of_showing_where_judges_share_one():
    said = games("j", "a", "b", [1, 2]) + games("j", "b", "a", [1]) + games("k", "a", "b", [1, 3, 1])
    assert sorted(shared_items(said, ["j", "k"])) == [("first", "first"), ("second", "tie")]


def test_items_are_by_pair_where_judges_share_no_order():
    # j showed b first and liked a, which is the first of the alphabet; k showed a first and liked it too.
    said = games("j", "b", "a", [2, 1, 3]) + games("k", "a", "b", [1, 1, 3])
    assert sorted(shared_items(said, ["j", "k"])) == [("first", "first"), ("second", "first"), ("tie", "tie")]


def test_other_players_on_the_same_question_are_another_item():
    assert shared_items(games("j", "a", "b", [1]) + games("k", "a", "c", [1]), ["j", "k"]) == []


def test_all_coefficients_of_three_judges():
    said = games("j", "a", "b", [1, 2, 3, 1]) + games("k", "a", "b", [1, 2, 3, 2]) + games("m", "a", "b", [1, 2])
    ratings = {judge: {"a": 1.0, "b": 0.0} for judge in "jkm"}
    found = agreement(said, ratings)
    assert [(pair["judges"], pair["items"], pair["same"]) for pair in found["pairs"]] == [
        *((["j", "k"], 4, 0.75), (["j", "m"], 2, 1.0), (["k", "m"], 2, 1.0))
    ]
    # j-k: observed 3/4; by chance 2/4*1/4 + 1/4*2/4 + 1/4*1/4 = 5/16; kappa (12-5)/(16-5)
    assert found["pairs"][0]["cohen_kappa"] == pytest.approx(7 / 11)
    assert found["fleiss"] == {"judges": 3, "items": 2, "fleiss_kappa": 1.0}
    assert found["repeats"] == {}


def test_repeated_verdicts_of_one_judge():
    said = games("human", "a", "b", [1, 1]) * 2 + games("human", "a", "b", [2, 1]) + games("j", "a", "b", [1, 2])
    found = agreement(said, {"human": {}, "j": {}})
    # Two items of three: (1, 1, 2) and (1, 1, 1): observed (1/3 + 1)/2, by chance 25/36 + 1/36
    assert found["repeats"] == {
        "human": {"verdicts": 3, "items": 2, "fleiss_kappa": pytest.approx((24 / 36 - 26 / 36) / (1 - 26 / 36))}
    }
    assert found["pairs"][0]["items"] == 2 and found["pairs"][0]["same"] == 0.5


def test_position_bias_takes_only_what_was_judged_in_both_orders():
    said = games("j", "a", "b", [1, 1, 2, 1]) + games("j", "b", "a", [2, 1, 1]) + games("k", "a", "b", [1])
    found = position_bias(said)
    assert {name: found["j"][name] for name in ("questions", "same", "flipped", "to_tie")} == {
        **{"questions": 3, "same": 2, "flipped": 1, "to_tie": 0}
    }
    assert (found["j"]["first_wins"], found["j"]["second_wins"]) == (4, 2)
    assert found["k"]["questions"] == 0 and found["k"]["first_share"] is None


def run(tmp_path, capsys, said):
    path = tmp_path / "verdicts.jsonl"
    lines = [
        {"question_id": g.question, "model_1": g.first, "model_2": g.second, "score": g.verdict, "judge": g.judge}
        for g in said
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert main([str(path), "--output", str(tmp_path / "out"), "--orders", "10"]) == 0
    return json.loads((tmp_path / "out" / "elo.json").read_text(encoding="utf-8"))["agreement"], capsys.readouterr().out


def test_two_judges_through_the_command(tmp_path, capsys):
    said = games("j", "a", "b", [1, 1, 2, 3]) + games("k", "a", "b", [1, 1, 2, 1])
    found, printed = run(tmp_path, capsys, said)
    assert found["fleiss"]["items"] == 4 and found["pairs"][0]["kendall_tau"] == 1
    assert "| j – k | 4 | 75.0% |" in " ".join(printed.split())


def test_same_verdicts_and_one_judge_are_said_in_words(tmp_path, capsys):
    _, printed = run(tmp_path, capsys, games("j", "a", "b", [1, 1]) + games("k", "a", "b", [1, 1]))
    assert "undefined (every verdict is the same)" in printed
    found, printed = run(tmp_path, capsys, games("j", "a", "b", [1, 1]))
    assert found["fleiss"] is None and "agreement between judges needs two" in printed
