"""Elo ratings from files of judgements: the arithmetic, the intervals, what is written and refused."""

import io
import struct
import warnings
import zlib

import numpy
import pytest
from matplotlib.figure import Figure

from common.errors import DataError
from eval.elo.games import Game, read_games
from eval.elo.ratings import main
from eval.elo.tournament import make_tournament, play, question_interval, random_orders, resampled_orders
from tests.support.elo_files import SUFFIX, rating, writing

write, rate = pytest.fixture(writing, name="write"), pytest.fixture(rating, name="rate")


def random_games(rng, questions, players="abcd", tie=0.2):
    """Every ordered pair of players meets over every question; earlier letters win more often."""
    games = []
    for question in range(questions):
        for first in players:
            for second in players:
                if first != second:
                    wins = rng.random() < 0.5 + 0.15 * (players.index(second) - players.index(first))
                    verdict = 3 if rng.random() < tie else 1 if wins else 2
                    games.append(Game(f"q{question}", first, second, verdict, "judge"))
    return games


# The arithmetic


def test_ratings_of_three_games_are_those_worked_out_by_hand():
    # a beats b: both expect 0.5, so 16 points change hands.
    # b and c tie: b expects 1 / (1 + 10^((1000-984)/400)) = 0.476990 and gains 32 (0.5 - 0.476990) = 0.736307.
    # a loses to c: a expects 1 / (1 + 10^((999.263693-1016)/400)) = 0.524067 and loses 32 times that, 16.770140.
    games = [Game("1", "a", "b", 1, "j"), Game("2", "b", "c", 3, "j"), Game("3", "a", "c", 2, "j")]
    [[a, b, c]] = play(make_tournament(games), [numpy.arange(3)])
    worked_out = [1016 - 16.770140, 984 + 0.736307, 1000 - 0.736307 + 16.770140]
    assert [a, b, c] == pytest.approx(worked_out, rel=1e-8)  # they have ten digits


def test_k_and_start():
    [[a, b]] = play(make_tournament([Game("1", "a", "b", 2, "j")]), [numpy.arange(1)], k=10, start=1500)
    assert (a, b) == (1495, 1505)


def test_points_are_neither_made_nor_lost():
    tournament = make_tournament(random_games(numpy.random.default_rng(0), 20))
    finals = play(tournament, random_orders(tournament, 7, seed=1))
    assert finals.shape == (7, 4)
    assert finals.sum(axis=1) == pytest.approx(4000)
    assert finals[0] != pytest.approx(finals[1])  # the order matters


@pytest.mark.parametrize("orders", [random_orders, resampled_orders])
def test_chunks_change_nothing(orders):
    games = [*random_games(numpy.random.default_rng(0), 10), Game("one more", "a", "b", 1, "j")]  # unequal questions
    tournament = make_tournament(games)
    whole = play(tournament, orders(tournament, 9, 3))
    assert whole.shape[0] in (9, 90)
    for chunk_games in (1, 500):
        assert (play(tournament, orders(tournament, 9, 3), chunk_games=chunk_games) == whole).all()


def test_swapped_players_with_swapped_scores_are_the_same_games():
    games = random_games(numpy.random.default_rng(0), 5)
    swapped = [Game(g.question, g.second, g.first, {1: 2, 2: 1, 3: 3}[g.verdict], g.judge) for g in games]
    one = make_tournament(games)
    # Numbers are given in sorted order: the same permutations need the games in the same places.
    place = {(g.question, g.first, g.second): at for at, g in enumerate(sorted(swapped, key=lambda g: _key(g)))}
    same = numpy.array([place[g.question, g.second, g.first] for g in sorted(games, key=lambda g: _key(g))])
    orders = list(random_orders(one, 4, seed=0))
    assert play(make_tournament(swapped), [same[order] for order in orders]) == pytest.approx(play(one, orders))


def _key(game):
    return game.question, game.first, game.second, game.judge, game.verdict


def test_equal_players_stay_at_the_start(write, rate):
    files = [write("a-vs-b", [1, 2, 3] * 20), write("b-vs-a", [1, 2, 3] * 20), write("b-vs-c", [1, 2] * 30)]
    result = rate(*files, "--orders", 400)
    # Ratings are means over seeded orders, in points of Elo; the bound is half of what a single game moves (16).
    assert [row["rating"] for row in result["players"]] == pytest.approx([1000] * 3, abs=8)


# The command


def test_same_command_same_numbers_whatever_the_order_of_files(write, rate):
    rng = numpy.random.default_rng(2)
    files = [write(name, rng.integers(1, 4, 30).tolist()) for name in ("a-vs-b", "b-vs-c", "c-vs-a")]
    once = rate(*files, "--orders", 100)["players"]
    assert once == rate(*files[::-1], "--orders", 100)["players"]
    assert once != rate(*files, "--orders", 100, "--seed", 7)["players"]


def test_what_is_counted(write, rate, capsys):
    files = [
        write(f"good-vs-bad-{SUFFIX}", [1, 1, 3, -1, [8, 9], "1", True, None, 4, 0.5, 1.0]),
        write(f"bad-vs-good-{SUFFIX}", [2, 2, 1]),
    ]
    with open(files[1], "a", encoding="utf-8") as file:
        file.write('{"question_id": 4}\n\n')
    result = rate(*files, "--orders", 50)
    good, bad = result["players"]
    assert (good["player"], good["wins"], good["ties"], good["losses"], good["games"]) == ("good", 5, 1, 1, 7)
    assert (bad["wins"], bad["ties"], bad["losses"]) == (1, 1, 5)
    assert good["rating"] > 1000 > bad["rating"]
    assert good["interval"][0] < good["rating"] < good["interval"][1]
    assert good["few_games"] and bad["few_games"]
    assert result["matrix"]["good"] == {"bad": {"wins": 5, "ties": 1, "losses": 1}}
    counted, other = result["files"]
    assert (counted["lines"], counted["used"], sum(counted["ignored"].values())) == (11, 4, 7)
    assert counted["ignored"]["score -1"] == counted["ignored"]["score holds a list"] == 1
    assert (other["lines"], other["used"], other["ignored"]) == (4, 3, {"no score": 1})
    printed = capsys.readouterr().out
    assert "15 lines of 2 files: 7 verdicts, 8 ignored" in printed and "fewer than 30 games (good, bad)" in printed
    assert result["settings"]["k"] == 32 and result["settings"]["orders"] == 50


def test_files_are_written_and_the_picture_is_one(write, tmp_path, capsys):
    long = "13b-guanaco-oa-generations-topp0.9-temp0.7"
    files = [write(f"{long}-vs-b-c-{SUFFIX}", [1, 2, 3] * 12), write(f"b-c-vs-{long}-{SUFFIX}", [1, 2, 3] * 12)]
    assert main([*files, "--output", str(tmp_path / "new" / "out"), "--orders", "20"]) == 0
    out = tmp_path / "new" / "out"
    assert sorted(path.name for path in out.iterdir()) == ["elo.json", "elo.md", "elo.png"]
    assert (out / "elo.md").read_text(encoding="utf-8") in capsys.readouterr().out
    content = (out / "elo.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert width > 800 and height > 400
    start, size = content.index(b"IDAT") + 4, struct.unpack(">I", content[content.index(b"IDAT") - 4 :][:4])[0]
    checksum = struct.unpack(">I", content[start + size : start + size + 4])[0]
    assert zlib.crc32(b"IDAT" + content[start : start + size]) == checksum


def test_the_legend_names_the_interval_only_where_one_is_drawn(write, tmp_path, monkeypatch):
    """`a`, at the top, has none: all its questions ended alike."""
    said = []
    monkeypatch.setattr(
        "matplotlib.axes.Axes.legend", lambda axes, **_: said.append(axes.get_legend_handles_labels()[1])
    )
    files = [write("a-vs-b", [1] * 40), write("p-vs-q", [1, 2, 3, 1] * 10)]
    for count in (1, 2):
        assert main([*files[:count], "--output", str(tmp_path / "out"), "--orders", "100"]) == 0
    assert said == [["one order"], ["one order", "95 % interval"]]


@pytest.mark.parametrize("name", [r"p$\frac$", "a$b", "$x$ costs $5"])
def test_dollars_in_names_are_no_formula(write, tmp_path, monkeypatch, name):
    monkeypatch.setattr("matplotlib.mathtext.MathTextParser.parse", lambda *args, **kwargs: pytest.fail("parsed"))
    path = write("ratings", [1, 2, 3], model_1=name, model_2="other")
    assert main([path, "--output", str(tmp_path / "out"), "--orders", "5"]) == 0
    assert (tmp_path / "out" / "elo.png").read_bytes().startswith(b"\x89PNG")
    assert name in (tmp_path / "out" / "elo.md").read_text(encoding="utf-8")


def test_one_note_says_that_the_font_lacks_characters_of_names(write, tmp_path, monkeypatch, capsys, recwarn):
    """Only this warning is silenced."""
    save = Figure.savefig

    def warn(*args, **options):
        warnings.warn("another", stacklevel=2)
        save(*args, **options)

    monkeypatch.setattr(Figure, "savefig", warn)
    foreign = write("ratings", [1, 2, 3], model_1="模型一", model_2="模型二")
    for path, notes in ((foreign, 1), (write("a-vs-b", [1, 2]), 0)):
        assert main([path, "--output", str(tmp_path / "out"), "--orders", "5"]) == 0
        assert capsys.readouterr().out.count("font lacks some characters") == notes
    assert {str(warning.message) for warning in recwarn} == {"another"}


def test_files_are_there_before_anything_is_printed(write, tmp_path, monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("sys.stdout", Closed())
    assert main([write("a-vs-b", [1, 2, 3]), "--output", str(tmp_path / "out"), "--orders", "5"]) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["elo.json", "elo.md", "elo.png"]


def test_players_without_a_game_between_them_are_said_to_be_incomparable(write, rate, capsys):
    result = rate(write("a-vs-b", [1, 3] * 20), write("c-vs-d", [2, 3] * 20), "--orders", 20)
    groups = {row["player"]: row["group"] for row in result["players"]}
    assert groups["a"] == groups["b"] != groups["c"] == groups["d"]
    printed = capsys.readouterr().out
    assert "2 groups of players with no game between them" in printed and "(1) a, b; (2) d, c" in printed
    result = rate(write("a-vs-b", [1, 3] * 20), write("b-vs-d", [2, 3] * 20), "--orders", 20)
    assert {row["group"] for row in result["players"]} == {1}
    assert "no game between them" not in capsys.readouterr().out


def test_judge_and_category_select(write, rate, capsys):
    files = [
        write("a-vs-b-one", [1, 1, 1], judge="one", category="coding", model_1="a", model_2="b"),
        write("a-vs-b-two", [2, 2], judge="two", category="coding", model_1="a", model_2="b"),
        write("a-vs-b-three", [2], judge="two", category="maths", model_1="a", model_2="b"),
    ]
    assert rate(*files, "--orders", 5)["games"] == 6
    assert rate(*files, "--orders", 5, "--judge", "one")["matrix"]["a"]["b"]["wins"] == 3
    assert rate(*files, "--orders", 5, "--judge", "two", "--category", "maths")["games"] == 1
    capsys.readouterr()
    assert main([*files, "--output", "x", "--judge", "three"]) == 2
    assert "--judge three" in (said := capsys.readouterr().err) and "two: 3" in said


def test_position_bias_is_reported(write, rate, capsys):
    # Of four questions in both orders: one flips, one is a tie in one order alone, two stay.
    result = rate(write("a-vs-b", [1, 1, 3, 1, 1]), write("b-vs-a", [1, 3, 3, 2]), "--orders", 5)
    bias = result["position"]["judge"]
    assert bias == {
        **{"questions": 4, "same": 2, "flipped": 1, "to_tie": 1},
        **{"first_wins": 4, "second_wins": 1, "first_share": 0.8},
    }
    assert "4 judged in both orders" in (said := capsys.readouterr().out) and "1 (25.0%) flipped" in said


# Intervals


def test_the_interval_is_about_questions_and_the_spread_about_orders():
    """Where every question has the same verdicts, other questions change nothing; the order still does."""
    games = [
        Game(f"q{number}", first, second, verdict, "j")
        for number in range(40)
        for first, second, verdict in (("a", "b", 1), ("b", "c", 1), ("c", "a", 2), ("b", "a", 1), ("a", "c", 3))
    ]
    tournament = make_tournament(games)
    finals = play(tournament, random_orders(tournament, 1000, seed=0))
    other = play(tournament, resampled_orders(tournament, 300, seed=0)).reshape(300, -1, 3)
    low, high = question_interval(finals.mean(axis=0), other)
    spread = numpy.subtract(*numpy.percentile(finals, (97.5, 2.5), axis=0))
    assert (spread > 70).all()
    assert (high - low < 0.3 * spread).all()


def test_the_interval_is_as_wide_as_other_questions_make_it():
    """Against the truth: how far the mean rating of new samples of questions scatters."""
    rng = numpy.random.default_rng(0)

    def one_sample():
        games = []
        for question in range(25):
            verdict = int(rng.integers(1, 3))  # the whole question goes to one side
            games += [Game(f"q{question}", "a", "b", verdict, "j"), Game(f"q{question}", "b", "a", 3 - verdict, "j")]
        return make_tournament(games)

    samples = [one_sample() for _ in range(60)]
    means = [play(sample, random_orders(sample, 100, seed=1)).mean(axis=0)[0] for sample in samples]
    sample = one_sample()
    rating = play(sample, random_orders(sample, 500, seed=1)).mean(axis=0)
    low, high = question_interval(rating, play(sample, resampled_orders(sample, 300, seed=1)).reshape(300, -1, 2))
    assert high[0] - low[0] == pytest.approx(2 * 1.96 * numpy.std(means), rel=0.35)
    assert low[0] < rating[0] < high[0]


def test_no_interval_from_one_question(write, rate, capsys):
    assert rate(write("a-vs-b", [1]), "--orders", 50)["players"][0]["interval"] is None
    assert "95 % interval: none" in capsys.readouterr().out


@pytest.mark.parametrize("score", [1, 3])
def test_no_interval_where_every_question_ended_alike(write, rate, capsys, score):
    best, _ = rate(write("p-vs-q", [score] * 30), "--orders", 100)["players"]
    assert best["interval"] is None and best["ended_alike"]
    printed = " ".join(capsys.readouterr().out.split())
    assert f"| {best['rating']:.0f} | – |" in printed
    assert "every question of p, q ended alike, so these games tell nothing of the spread" in printed


@pytest.mark.parametrize("seed", range(3))
def test_the_noise_of_the_orders_gives_no_interval_to_questions_that_ended_alike(write, rate, seed):
    """As with three players, or where the answer shown first always wins."""
    files = [write(name, [1] * 20) for name in ("a-vs-b", "b-vs-c", "a-vs-c", "x-vs-y", "y-vs-x")]
    result = rate(*files, "--orders", 200, "--seed", seed)
    assert {row["player"]: row["interval"] for row in result["players"]} == dict.fromkeys("abcxy")


def test_those_whose_questions_differ_keep_their_interval(write, rate, capsys):
    """`a` beats `b` always, but `b` and `c` differ; of `q` only one line is missing."""
    files = [write("a-vs-b", [1] * 40), write("b-vs-c", [1, 2, 1, 3] * 10)]
    result = rate(*files, write("p-vs-q", [1] * 40), write("q-vs-p", [2] * 39), "--orders", 400)
    assert {row["player"] for row in result["players"] if row["interval"]} == set("abc")
    assert "every question of p, q ended alike" in capsys.readouterr().out


def test_players_that_win_some_questions_and_lose_others_keep_their_interval(write, rate):
    """Though every two of them ended all of their own questions alike."""
    files = [write(f"{a}-vs-{b}", [1] * 20, start=20 * n) for n, (a, b) in enumerate(("ab", "bc", "ca"))]
    result = rate(*files, "--orders", 400)
    assert {row["player"] for row in result["players"] if row["interval"]} == set("abc")


def test_no_interval_where_the_noise_of_the_orders_hides_it(write, rate, capsys, monkeypatch):
    """Which is no certainty either; the questions did not end alike, and more orders help."""
    monkeypatch.setattr(
        "eval.elo.ratings.question_interval", lambda rating, finals: numpy.array([rating, rating + 1e-10])
    )
    result = rate(write("a-vs-b", [1, 2] * 20), "--orders", 100)
    assert [row["interval"] for row in result["players"]] == [None, None]
    assert "noise of the orders hides it" in (printed := capsys.readouterr().out) and "ended alike" not in printed


def test_lines_without_question_count_as_one_each(tmp_path, rate, capsys):
    path = tmp_path / "a-vs-b.jsonl"
    path.write_text('{"score": 1}\n{"score": 2}\n{"score": 1, "message_id": "m"}\n', encoding="utf-8")
    assert rate(path, "--orders", 50)["questions"] == 3
    assert "2 lines have no question_id" in capsys.readouterr().out


# Refusals


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{oops", "line 2"),
        ("[1, 2]", "line 2: .* is not an object"),
        ('{"score": 1, "model_1": "a"}', "line 2: there is 'model_1' but no 'model_2'"),
        ('{"score": 1, "model_1": "a", "model_2": "a"}', "line 2: .* both 'a'"),
        ('{"score": 1, "judge": 4}', "line 2: 'judge' holds a number"),
    ],
)
def test_bad_lines_are_refused_with_file_and_line(tmp_path, capsys, line, said):
    path = tmp_path / "a-vs-b.jsonl"
    path.write_text('{"score": 1}\n' + line + "\n", encoding="utf-8")
    assert main([str(path), "--output", str(tmp_path / "out")]) == 2
    [message] = [text for text in capsys.readouterr().err.splitlines() if "error" in text]
    assert str(path) in message
    with pytest.raises(DataError, match=said):
        read_games([str(path)])
    assert not (tmp_path / "out").exists()


def test_files_without_a_verdict_are_refused(write, tmp_path, capsys):
    assert main([write("a-vs-b", [-1, [7, 8]]), "--output", str(tmp_path / "out")]) == 2
    assert "no line has a score of 1, 2 or 3 (score -1: 1" in capsys.readouterr().err


def test_missing_and_repeated_files_are_refused(write, tmp_path, capsys):
    path = write("a-vs-b", [1])
    assert main([path, path, "--output", str(tmp_path / "out")]) == 2
    assert "more than once" in capsys.readouterr().err
    assert main([str(tmp_path / "none-vs-b.jsonl"), "--output", str(tmp_path / "out")]) == 2
    assert "none-vs-b.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", [["--orders", "0"], ["--k", "0"], ["--k", "inf"], ["--start", "nan"], ["--seed", "-1"], ["--oders", "1"]]
)
def test_wrong_flags_are_refused(write, tmp_path, capsys, flags):
    with pytest.raises(SystemExit) as stopped:
        main([write("a-vs-b", [1]), "--output", str(tmp_path / "out"), *flags])
    assert stopped.value.code == 2 and flags[0] in capsys.readouterr().err


def test_output_that_is_a_file_is_refused(write, capsys):
    path = write("a-vs-b", [1])
    with pytest.raises(SystemExit) as stopped:
        main([path, "--output", path])
    assert stopped.value.code == 2 and "a directory is needed" in capsys.readouterr().err


def test_output_that_cannot_be_made_is_refused_before_anything_is_rated(write, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("eval.elo.ratings.rate", lambda games, options: pytest.fail("rated"))
    path = write("a-vs-b", [1])
    assert main([path, "--output", f"{path}/out"]) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert f"--output {path}/out cannot be written: Not a directory" in said
