"""Measures of generated text, against the numbers that their papers and best known implementations publish."""

import warnings

import pytest

from eval.metrics.accuracy.scoring import accuracy
from eval.metrics.bleu.scoring import bleu, bleu_counts, bleu_score
from eval.metrics.chrf.scoring import chrf, chrf_counts, chrf_score
from eval.metrics.distinct_n.scoring import distinct_n
from eval.metrics.exact_match.scoring import exact_match
from eval.metrics.rouge.scoring import rouge, row_rouge
from eval.metrics.text import text_metrics
from eval.metrics.token_f1.scoring import row_f1, token_f1

# Example 1 of Papineni et al. 2002, https://aclanthology.org/P02-1040
CANDIDATES = [
    "It is a guide to action which ensures that the military always obeys the commands of the party",
    "It is to insure the troops forever hearing the activity guidebook that party direct",
]
REFERENCES = [
    "It is a guide to action that ensures that the military will forever heed Party commands",
    "It is the guiding principle which guarantees the military forces always being under the command of the Party",
    "It is the practical guide for the army always to heed the directions of the party",
]


@pytest.fixture(autouse=True)
def no_warnings():
    """A warning would stand in the middle of a training log."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# BLEU


@pytest.mark.parametrize(
    "candidate, references, order, matches, total",
    [
        ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"], 1, 2, 7),
        (CANDIDATES[0], REFERENCES, 1, 17, 18),
        (CANDIDATES[1], REFERENCES, 1, 8, 14),
        (CANDIDATES[0], REFERENCES, 2, 10, 17),
        (CANDIDATES[1], REFERENCES, 2, 1, 13),
    ],
)
def test_modified_precisions_of_the_bleu_paper(candidate, references, order, matches, total):
    """Sections 2.1.1 and 2.1.2 of https://aclanthology.org/P02-1040"""
    counts = bleu_counts(candidate, references)
    assert (counts[order - 1], counts[4 + order - 1]) == (matches, total)


def test_bleu_as_nltk_documents_it():
    """The examples of sentence_bleu and corpus_bleu, https://www.nltk.org/api/nltk.translate.bleu_score.html

    To the digits that stand there, as in the next test.
    """
    second = "he read the book because he was interested in world history"
    its_reference = "he was interested in world history because he read the book"
    assert bleu(CANDIDATES[:1], [REFERENCES]) == pytest.approx(0.5045, abs=1e-4)
    assert bleu([CANDIDATES[0], second], [REFERENCES, [its_reference]]) == pytest.approx(0.5920, abs=1e-4)


def test_bleu_as_sacrebleu_publishes_it():
    """Its README (punctuation, case) and its test of smoothing by rows, https://github.com/mjpost/sacrebleu"""
    found = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    first = ["The dog bit the man.", "It was not unexpected.", "The man bit him first."]
    other = ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."]
    assert bleu(found, list(map(list, zip(first, other, strict=True)))) == pytest.approx(0.48530827, abs=1e-8)
    found = "Producția de zahăr primă va fi exprimată în ceea ce privește zahărul alb;"
    assert bleu([found], ["producţia de zahăr brut se exprimă în zahăr alb;"]) == pytest.approx(0.08493, abs=1e-5)
    assert bleu(["test"], ["a test"]) == pytest.approx(0.3678794411714425)  # e to the −1: half as long


def test_bleu_of_the_metric_card_of_evaluate():
    """https://huggingface.co/spaces/evaluate-metric/sacrebleu"""
    found = ["hello there general kenobi", "on our way to ankh morpork"]
    right = [["hello there general kenobi", "hello there !"], ["goodnight moon", "ankh morpork"]]
    assert bleu(found, right) == pytest.approx(0.3976353643835252)


def test_short_and_empty_answers_have_a_sane_bleu():
    assert bleu(["Paris", "Rome"], ["Paris", "Rome"]) == 1
    # Ten short answers have no 4-gram to miss.
    sentence = "The capital of France is Paris."
    assert bleu([sentence] + ["Yes"] * 10, [sentence] + ["Yes"] * 10) == 1
    assert bleu([""], ["Paris"]) == bleu(["Rome"], ["Paris"]) == bleu([], []) == 0
    # One of two words, no pair: the square root of a half times a half of one.
    assert bleu(["in Paris"], ["of Paris"]) == pytest.approx(0.5)


# chrF


def test_chrf_of_the_metric_card_of_evaluate():
    """https://huggingface.co/spaces/evaluate-metric/chrf, computed with sacreBLEU"""
    found = [
        "The relationship between cats and dogs is not exactly friendly.",
        "a good bookshop is just a genteel black hole that knows how to read.",
    ]
    right = [
        "The relationship between dogs and cats is not exactly friendly.",
        "A good bookshop is just a genteel Black Hole that knows how to read.",
    ]
    assert chrf(found, right) == pytest.approx(0.8464214891738334)


@pytest.mark.parametrize(
    "found, right, score",
    [
        (["a"], ["a"], 1),
        ([""], ["reference"], 0),
        (["a b c"], ["a b c"], 1),
        (["a b c"], ["abc"], 1),
        ([""], ["c"], 0),
        (["a", "b"], ["a", "c"], 0.5),
        (["aa"], ["ab"], 0.25),
    ],
)
def test_chrf_of_short_texts_as_sacrebleu_tests_it(found, right, score):
    """The cases `test_cases_effective_order` of https://github.com/mjpost/sacrebleu/blob/master/test/test_chrf.py"""
    assert chrf(found, right) == pytest.approx(score)


def test_chrf_weighs_recall_more_and_takes_the_best_reference():
    assert chrf(["abcd"], ["abcdefgh"]) < chrf(["abcdefgh"], ["abcd"])
    assert chrf(["Paris"], [["Rome", "Paris"]]) == 1
    # By sacreBLEU 2.5.1; the first reference has no 6-gram that an answer could miss.
    found = ["Paris it is", "It is Paris, the capital."]
    assert chrf(found, ["Paris", "The capital is Paris."]) == pytest.approx(0.6807593526829169)
    # Shared: 1 of 2 letters against 1 of 1; no pair is possible in the reference.
    assert chrf(["ab"], ["a"]) == pytest.approx(5 * 0.5 * 1 / (4 * 0.5 + 1))


# ROUGE


@pytest.mark.parametrize("found, score", [("police kill the gunman", 3 / 4), ("the gunman kill police", 2 / 4)])
def test_rouge_l_of_its_paper(found, score):
    """Section 3.1 of https://aclanthology.org/W04-1013, sentences S1 to S3"""
    assert row_rouge(found, "police killed the gunman")["rougeL"] == score


def test_stemming_is_asked_for():
    scores = rouge(["police kill the gunman"], ["police killed the gunman"], use_stemmer=True)
    assert scores == {"rouge1": 1, "rouge2": 1, "rougeL": 1}
    assert rouge(["police kill the gunman"], ["police killed the gunman"])["rouge1"] == 3 / 4


def test_rouge_as_its_package_tests_it():
    """https://github.com/google-research/google-research/blob/master/rouge/rouge_scorer_test.py"""
    assert row_rouge("testing", "testing one two")["rouge1"] == pytest.approx(1 / 2)
    assert row_rouge("testing one", "testing one two")["rouge2"] == pytest.approx(2 / 3)
    assert row_rouge("testing two", "testing one two")["rougeL"] == pytest.approx(4 / 5)
    several = row_rouge("text first", ["first text", "first something"])
    assert several == {"rouge1": 1, "rouge2": 0, "rougeL": pytest.approx(0.5)}
    assert row_rouge("", "testing one two") == {"rouge1": 0, "rouge2": 0, "rougeL": 0}


@pytest.mark.parametrize("use_stemmer", [False, True])
def test_words_of_ascii_text_are_those_of_the_package(use_stemmer):
    from rouge_score.rouge_scorer import RougeScorer

    found, right = "It's 3.5_kg of well-baked CAKES; his is running!", "Hi! A well baked cake (3.5 kg): it runs_away."
    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=use_stemmer).score(right, found)
    assert row_rouge(found, right, use_stemmer) == {name: score.fmeasure for name, score in theirs.items()}


@pytest.mark.parametrize("text", ["Столица Франции", "日本 東京", "हिन्दी भाषा", "ελληνικά"])
def test_words_of_other_scripts_count(text):
    from rouge_score.rouge_scorer import RougeScorer

    assert RougeScorer(["rouge1"]).score(text, text)["rouge1"].fmeasure == 0
    assert row_rouge(text, text)["rougeL"] == 1
    first, second = text.split() if " " in text else (text[:4], text)
    assert row_rouge(first, f"{first} {second}") == {"rouge1": pytest.approx(2 / 3), "rouge2": 0, "rougeL": 2 / 3}


# Token F1, exact match, accuracy, distinct-n


def test_token_f1_as_squad_defines_it():
    """The partial match of https://huggingface.co/spaces/evaluate-metric/squad, which wraps the official script."""
    found = ["1976", "Beyonce", "climate change"]
    assert token_f1(found, ["1976", "Beyoncé and Bruno Mars", "climate change"]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "found, right, score",
    [
        ("Denver Broncos won", "The Denver  Broncos!", 0.8),  # precision 2/3, recall 1
        ("the the cat cat", "cat", 2 / 3),  # precision 1/2: a word counts as often as both have it
        ("An answer", "answer a the", 1),
        ("theatre", "atre", 0),  # articles are whole words
        ("...", "the", 1),  # nothing is left of either
        ("", "Paris", 0),
        ("Paris", ["Rome", "in Paris"], 2 / 3),
    ],
)
def test_token_f1_of_rows(found, right, score):
    assert row_f1(found, right) == pytest.approx(score)


def test_exact_match_is_but_for_outer_white_space():
    assert exact_match([" Paris\n", "paris", "Rome", ""], ["Paris", "Paris", ["Roma", "Rome"], "x"]) == 0.5


def test_accuracy_of_the_metric_card_of_evaluate():
    """https://huggingface.co/spaces/evaluate-metric/accuracy"""
    assert accuracy([0, 1, 1, 2, 1, 0], [0, 1, 2, 0, 1, 2]) == 0.5
    assert accuracy(["A", "B", "D"], ["A", "B", "C"]) == pytest.approx(2 / 3)


def test_distinct_n_counts_over_all_answers():
    """Section 5.1 of https://aclanthology.org/N16-1014; its dull answer, twice, and a new one."""
    found = ["I don't know .", "I don't know .", "I know Rome ."]
    assert distinct_n(found, 1) == 5 / 12
    assert distinct_n(found, 2) == 6 / 9  # none from the end of an answer to the start of the next
    assert distinct_n(["", "one"], 2) == 0


# All together


def test_the_scores_of_one_row():
    def scores(prediction: str, reference: str) -> dict[str, float]:
        measured = text_metrics([prediction], [reference], prefix="")
        return {name[1:]: score for name, score in measured.items() if name != "_references" and "distinct" not in name}

    row = scores("It is Paris.", "Paris")
    assert row.keys() == {"exact_match", "token_f1", "rouge1", "rouge2", "rougeL", "bleu", "chrf"}
    assert row["exact_match"] == 0 and row["token_f1"] == row["rougeL"] == row["rouge1"] == 0.5
    assert row["bleu"] == bleu(["It is Paris."], ["Paris"]) > 0
    assert row["chrf"] == chrf(["It is Paris."], ["Paris"]) > 0
    assert set(scores("", "Paris").values()) == {0}
    assert set(scores("in Paris", "in Paris").values()) == {1}
    assert scores("Paris", "Paris")["rouge2"] == 0  # one word has no pair, and the package says 0


def test_text_metrics_over_rows_with_and_without_a_reference():
    found = ["It is Paris.", "anything", "Rome", "at all"]
    metrics = text_metrics(
        [*found, "x"],
        ["Paris", None, "Rome", "", " \n"],
        tokens=[5, 2, 2, 3, 3],
        stopped=[True, False, True, True, True],
        prefix="eval",
    )
    assert metrics == {
        "eval_references": 2,
        "eval_exact_match": 0.5,
        "eval_token_f1": 0.75,
        "eval_rouge1": 0.75,
        "eval_rouge2": 0,
        "eval_rougeL": 0.75,
        "eval_bleu": bleu(["It is Paris.", "Rome"], ["Paris", "Rome"]),
        "eval_chrf": chrf(["It is Paris.", "Rome"], ["Paris", "Rome"]),
        "eval_distinct_1": 1,
        "eval_distinct_2": 1,
        "eval_stopped": 0.8,
        "eval_new_tokens": 3,
    }


def test_text_metrics_without_any_reference():
    assert text_metrics(["a a"], [None]) == {
        "predict_references": 0,
        "predict_distinct_1": 0.5,
        "predict_distinct_2": 1,
    }


@pytest.mark.parametrize("metric", [exact_match, token_f1, bleu, chrf, rouge])
@pytest.mark.parametrize("missing", [None, [], [None], ["a", None]])
def test_a_row_without_a_reference_is_named(metric, missing):
    with pytest.raises(ValueError, match=r"^references\[1\] is .*: a text is needed, or a list of one or more$"):
        metric(["a", "b"], ["", missing])


def test_a_label_that_is_missing_is_named():
    assert accuracy([0, "", False], [0, "", False]) == 1
    with pytest.raises(ValueError, match=r"^references\[1\] is None: a label is needed$"):
        accuracy(["a", None], ["a", None])


@pytest.mark.parametrize("metric", [accuracy, exact_match, token_f1, bleu, chrf, rouge, text_metrics])
def test_lists_of_unequal_length_are_refused(metric):
    with pytest.raises(ValueError):
        metric(["a", "b"], ["a"])


def test_counts_of_rows_add_up():
    rows = list(zip(CANDIDATES, REFERENCES, strict=False))
    for counts, score, whole in ((bleu_counts, bleu_score, bleu), (chrf_counts, chrf_score, chrf)):
        total = [sum(column) for column in zip(*(counts(*row) for row in rows), strict=True)]
        assert score(total) == whole(*zip(*rows, strict=True))
