"""eval/metrics as `evaluate.Metric`s: loaded by path, without a network, from anywhere."""

import json
import os
import subprocess
import sys

import pytest

from eval.metrics.bleu.scoring import bleu
from eval.metrics.chrf.scoring import chrf
from eval.metrics.rouge.scoring import rouge
from eval.metrics.token_f1.scoring import token_f1
from tests.support.paths import REPOSITORY

METRICS = REPOSITORY / "eval" / "metrics"
PREDICTIONS = ["It is Paris, the capital.", "Rome", "Столица Москва"]
REFERENCES = ["The capital is Paris.", "Rome", "Москва"]
SEVERAL = [["Paris", "It is Paris."], ["Rome"], ["Город", "Москва"]]
# All in one process, as importing `evaluate` takes seconds, and so that modules of one name (scoring.py) meet.
SCRIPT = """
import json, os, socket, sys

def refuse(*arguments):
    raise AssertionError("the network was touched")

socket.socket.connect = socket.getaddrinfo = refuse
sys.modules["transformers"] = None  # evaluate would import it, in seconds, for pipelines that no metric needs
import evaluate
del sys.modules["transformers"]

metrics, predictions, references, several = json.loads(sys.argv[1])
found = {}
for name in ("bleu", "chrf", "rouge", "token_f1", "exact_match"):
    metric = evaluate.load(f"{metrics}/{name}")
    found[name] = metric.compute(predictions=predictions, references=references)
    found[name + " of several"] = metric.compute(predictions=predictions, references=several)
    for missing in ([], None):
        try:
            metric.compute(predictions=predictions, references=[["Paris"], missing, ["Rome"]])
        except ValueError as error:
            found[f"{name} of {missing}"] = str(error)
    if name == "rouge":
        found["stems"] = metric.compute(predictions=["kills"], references=["killed"], use_stemmer=True)
found["distinct_n"] = evaluate.load(f"{metrics}/distinct_n").compute(predictions=predictions)
accuracy = evaluate.load(f"{metrics}/accuracy")
found["numbers"] = accuracy.compute(predictions=[1, 2, 3, 1.5], references=[1, 2, 4, 1])
found["letters"] = accuracy.compute(predictions=["A", "01"], references=["A", "1"])
os.chdir(f"{metrics}/../..")
found["relative"] = evaluate.load("eval/metrics/bleu").compute(predictions=predictions, references=references)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    caches = {name: str(elsewhere / "cache") for name in ("HF_HOME", "HF_MODULES_CACHE", "HF_EVALUATE_CACHE")}
    offline = {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "PYTHONPATH": ""}
    argument = json.dumps([str(METRICS), PREDICTIONS, REFERENCES, SEVERAL])
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, argument],
        capture_output=True,
        text=True,
        cwd=elsewhere,
        env={**os.environ, **offline, **caches},
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_numbers_are_those_of_the_functions(found):
    assert found["bleu"] == found["relative"] == {"bleu": bleu(PREDICTIONS, REFERENCES)}
    assert found["chrf"] == {"chrf": chrf(PREDICTIONS, REFERENCES)}
    assert found["rouge"] == rouge(PREDICTIONS, REFERENCES)
    assert found["token_f1"] == {"token_f1": token_f1(PREDICTIONS, REFERENCES)}
    assert found["exact_match"] == {"exact_match": pytest.approx(1 / 3)}
    assert found["distinct_n"] == {"distinct_1": 1, "distinct_2": 1}


def test_several_references(found):
    assert found["bleu of several"] == {"bleu": bleu(PREDICTIONS, SEVERAL)}
    assert found["chrf of several"] == {"chrf": chrf(PREDICTIONS, SEVERAL)}
    assert found["rouge of several"] == rouge(PREDICTIONS, SEVERAL)
    assert found["token_f1 of several"] == {"token_f1": token_f1(PREDICTIONS, SEVERAL)}
    assert found["exact_match of several"] == {"exact_match": pytest.approx(1 / 3)}


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge", "token_f1", "exact_match"])
@pytest.mark.parametrize("missing", [[], None])
def test_a_row_without_a_reference_is_named(found, name, missing):
    said = f"references[1] is {missing}: a text is needed, or a list of one or more"
    assert found[f"{name} of {missing}"] == said


def test_options_and_labels(found):
    assert found["stems"]["rouge1"] == 1
    assert found["numbers"] == {"accuracy": 0.5}
    assert found["letters"] == {"accuracy": 0.5}


def test_every_folder_is_loaded_here():
    folders = {path.name for path in METRICS.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {"accuracy", "exact_match", "token_f1", "bleu", "chrf", "rouge", "distinct_n"}
