"""What a judge is asked, and what its replies are taken to say."""

import pytest

from eval.judge.prompts import KINDS, Judgement, judge_prompt, read_reply
from eval.verdicts import FAILED, FIRST, SECOND, TIE


@pytest.mark.parametrize(
    "reply, score",
    [
        ("Answer 2 is wrong.\nverdict: 1", FIRST),
        ("verdict: 2\n\n", SECOND),
        ("Verdict: Tie.", TIE),
        ("**Verdict:** 2", SECOND),
        ("### Final verdict: [[1]]", FIRST),
        ("- `verdict: tie`", TIE),
        ("verdict: answer 2 is better", SECOND),
        ("verdict\uff1a2", SECOND),
        ("verdict: 1 (answer 1 is better)", FIRST),
        ("verdict: tie (neither is better)", TIE),
        ("verdict: 2!", SECOND),
        ("verdict: \\boxed{1}", FIRST),
        ("verdict: tie<|im_end|>", TIE),
        ("verdict: 1\nOn second thought:\nverdict: 2", SECOND),  # the last one counts
        ("<think>verdict: 1</think>\nverdict: 2", SECOND),
        ("verdict: 2\u2028verdict: 1", FIRST),
        # What is not plain is a failure.
        ("", FAILED),
        ("Answer 1 is better.", FAILED),
        ("1", FAILED),
        ("verdict: 1 or 2", FAILED),
        ("verdict: 3", FAILED),
        ("verdict: 12", FAILED),
        ("verdict: 1 (answer 2 is better)", FAILED),
        ("verdict: 1 (neither is better)", FAILED),
        ("verdict:\n1", FAILED),
        ("verdict: not 1", FAILED),
        ("verdict: 1\nNo, I take that back; my verdict: both are bad", FAILED),
        ("verdict: 1\nverdict: 1/2/tie", FAILED),
        ("<think>I lean to\nverdict: 1", FAILED),
    ],
)
def test_verdicts(reply, score):
    assert read_reply("verdict", reply) == Judgement(score)


@pytest.mark.parametrize(
    "reply, scores",
    [
        ("Both are fine.\nscores: 8 9", (8, 9)),
        ("Scores: 8/10 and 9/10.", (8, 9)),
        ("Assistant 1: 8, Assistant 2: 9", (8, 9)),
        ("**Scores:** Answer 2: 9.5, Answer 1: 0", (0, 9.5)),
        ("scores: 7.5, 10", (7.5, 10)),
        ("scores: (7) (7)", (7, 7)),
        ("scores: 8 out of 10, 6 out of 10", (8, 6)),
        ("8 9\nThe second is more precise.", (8, 9)),
        ("8 9\nscores: 9 8", (9, 8)),  # the line with the word goes before any other
        ("scores: 1 2\nscores: 2 1", (2, 1)),
        ("8 9\n8/10 9/10", (8, 9)),
    ],
)
def test_scores(reply, scores):
    found = read_reply("scores", reply)
    first, second = scores
    assert found == Judgement(FIRST if first > second else SECOND if second > first else TIE, scores)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "scores: 8",
        "scores: 8 9 7",
        "scores: 8 11",
        "scores: 80/100 90/100",
        "scores: -1 5",
        "-1 5",
        "scores: 8,5 9",
        "scores: 8-9",
        "scores: 8/9",
        "scores: 89",
        "scores: <answer 1> <answer 2>",
        "scores: Answer 1: 8, Answer 1: 9",
        "scores: nan 8",
        "scores: \u0668 \u0669",
        "8 9\n9 8",
        "scores: 8 9\nFinal scores: it depends",
        "In 2019 there were 8 9 year olds.",
    ],
)
def test_scores_that_are_not_plain(reply):
    assert read_reply("scores", reply) == Judgement(FAILED)


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_holds_its_parts_in_order_between_marks(kind):
    prompt = judge_prompt(kind, "What is {it}?", "It is {first}.", "It is \ud83d %s.")
    mark = prompt.split("=== question ")[1].split(" ===")[0]
    middle = f"=== answer 1 {mark} ===\nIt is {{first}}.\n=== end of answer 1 {mark} ===\n\n=== answer 2 {mark} ===\n"
    assert f"{middle}It is ? %s.\n=== end of answer 2 {mark} ===" in prompt
    assert prompt.index("What is {it}?") < prompt.index("It is {first}.")
    assert f"=== question {mark} ===" in judge_prompt(kind, "What is {it}?", "It is \ud83d %s.", "It is {first}.")
    assert f"=== question {mark} ===" not in judge_prompt(kind, "What is {it}?", "It is {first}.", "something else")
    assert read_reply(kind, prompt).score == FAILED, "a judge that echoes its prompt has judged nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_asks_for_the_line_that_is_read(kind):
    last = judge_prompt(kind, "q", "a", "b").splitlines()[-1]
    line = last.replace("<answer 1> <answer 2>", "8 8").replace("<1, 2 or tie>", "tie")
    assert read_reply(kind, line).score == TIE
