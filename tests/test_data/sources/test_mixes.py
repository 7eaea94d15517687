"""Mixes of files, and names of data sets that there are not."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from common.errors import DataError
from data.named import NAMED_DATASETS
from data.sources.mixes import Part, parse_mix, parse_names
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.usefixtures("folder_of_files")


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("a.jsonl", [("a.jsonl", None)]),
        ("alpaca", [("alpaca", None)]),
        ("a.jsonl,b.csv", [("a.jsonl", None), ("b.csv", None)]),
        ("a.jsonl:0.7,b.csv:0.3", [("a.jsonl", 0.7), ("b.csv", 0.3)]),
        (" a.jsonl : 1 ,, alpaca:2e1, ", [("a.jsonl", 1), ("alpaca", 20)]),
        ("one,two.jsonl", [("one,two.jsonl", None)]),
        ("one,two.jsonl:2,a.jsonl:1", [("one,two.jsonl", 2), ("a.jsonl", 1)]),
        ("a.jsonl,one,two.jsonl", [("a.jsonl", None), ("one,two.jsonl", None)]),
        ("10:30.jsonl", [("10:30.jsonl", None)]),
        ("10:30.jsonl:3,x:0.5.jsonl:1", [("10:30.jsonl", 3), ("x:0.5.jsonl", 1)]),
        ("with space.json, a.jsonl", [("with space.json", None), ("a.jsonl", None)]),
    ],
)
def test_parts_of_a_mix(spec, parts):
    assert parse_mix(spec, "--dataset") == [Part(*part) for part in parts]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "--eval_dataset is empty; give a file or a name\nnamed data sets: alpaca, "),
        (" , ", "--eval_dataset is empty; "),
        ("a.jsonl:0.7,b.csv", "--eval_dataset a.jsonl:0.7,b.csv: b.csv has no weight while others do; give every part"),
        ("a.jsonl:0.7", "--eval_dataset a.jsonl:0.7: a weight needs a second data set"),
        ("b.csv,a.jsonl:0.7", "--eval_dataset b.csv,a.jsonl:0.7: b.csv has no weight while others do; give every part"),
        (
            "a.jsonl:0,b.csv:1",
            "--eval_dataset a.jsonl:0: the weight 0 must be more than 0 and finite, like a.jsonl:0.5",
        ),
        ("a.jsonl:-1,b.csv:1", "--eval_dataset a.jsonl:-1: the weight -1 must be"),
        ("a.jsonl:nan,b.csv:1", "--eval_dataset a.jsonl:nan: the weight nan must be"),
        ("a.jsonl:inf,b.csv:1", "--eval_dataset a.jsonl:inf: the weight inf must be"),
        ("a.jsonl:-1", "--eval_dataset a.jsonl:-1: the weight -1 must be"),
        ("a.jsonl:half,b.csv", "--eval_dataset a.jsonl:half: the weight 'half' is not a number; like a.jsonl:0.5"),
        ("a.jsonl:,b.csv", "--eval_dataset a.jsonl:: the weight '' is not a number"),
        (
            "a.jsonl,c.csv",
            "--eval_dataset c.csv: there is no such file and no data set of that name; did you mean b.csv?",
        ),
        ("a.jsonl:1,c.csv:1", "--eval_dataset c.csv: there is no such file and no data set of that name; did you mean"),
        (
            "a.jsonl,b.csv,a.jsonl",
            "--eval_dataset a.jsonl,b.csv,a.jsonl: a.jsonl stands in it twice; name it once, with",
        ),
        ("a.jsonl,vicuna", "--eval_dataset vicuna: its training data was never released; named data sets: alpaca, "),
        ("a.jsonl,folder", "folder is a directory (it holds no file); give the paths of files in it"),
    ],
)
def test_impossible_mixes_are_refused(spec, message):
    with pytest.raises(DataError) as refused:
        parse_mix(spec, "--eval_dataset")
    assert str(refused.value).startswith(message)


def test_a_mix_of_many_files_is_longer_than_the_name_of_a_file_may_be():
    names = [f"{'n' * 40}{n}.jsonl" for n in range(20)]
    for name in names:
        Path(name).write_text("[]")
    assert [part.name for part in parse_mix(",".join(names), "--dataset")] == names


# Names


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("alpacca", "; did you mean alpaca?\n"),
        ("Dolly", "; did you mean dolly?\n"),
        ("tatsu-lab/alpaca", "; did you mean alpaca?\n"),
        ("databricks/dolly-15k", "; did you mean dolly?\n"),
        ("a.json", "; did you mean a.jsonl?\n"),
        ("./a.json", "; did you mean ./a.jsonl?\n"),
        ("rows.jsonl", "; did you mean rows.jsonl.gz?\n"),
        ("nowhere/a.jsonl", "; there is no folder nowhere\n"),
        ("~nobody-of-that-name/a.jsonl", "; there is no folder ~nobody-of-that-name\n"),
        ("folder/zzz", "\n"),
        ("folder/" + "z" * 5000, "\n"),
    ],
)
def test_unknown_names_get_the_nearest_and_the_lists(name, hint):
    with pytest.raises(DataError) as refused:
        parse_mix(name, "--dataset")
    assert str(refused.value) == (
        f"--dataset {name}: there is no such file and no data set of that name{hint}"
        f"named data sets: {', '.join(NAMED_DATASETS)}\n"
        "file types: .json, .jsonl, .csv, .tsv, .txt (each also with .gz), .parquet"
    )


def test_the_nearest_file_is_the_nearest_by_its_own_name(tmp_path):
    with pytest.raises(DataError) as refused:  # in a long path any two files of a folder are near
        parse_mix(str(tmp_path / "unlike.parquet"), "--dataset")
    assert "did you mean" not in str(refused.value)


def flags(**changed):
    return Namespace(
        **({"dataset": "alpaca", "eval_dataset": None, "dataset_format": None, "chat_template": None} | changed)
    )


def test_parse_names_looks_at_every_flag():
    parse_names(flags())
    parse_names(flags(dataset="a.jsonl,b.csv", eval_dataset="10:30.jsonl", dataset_format="alpaca-clean"))
    for changed, message in [
        ({"dataset": "vicuna"}, "--dataset vicuna: its training data was never released"),
        ({"eval_dataset": "c.csv"}, "--eval_dataset c.csv: there is no such file"),
        ({"dataset_format": "alpaka"}, "--dataset_format alpaka: unknown; did you mean alpaca?"),
        ({"eval_dataset": "folder"}, "folder is a directory"),
        ({"chat_template": "no.jinja"}, "--chat_template no.jinja: no such file; give a Jinja file, or default"),
    ]:
        with pytest.raises(DataError) as refused:
            parse_names(flags(**changed))
        assert str(refused.value).startswith(message)


def test_import_brings_neither_torch_nor_datasets():
    heavy = "('torch', 'datasets', 'pyarrow')"
    code = f"import sys, data.sources.mixes; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
