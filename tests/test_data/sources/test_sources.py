"""What --dataset names: files, named data sets of the hub and mixes of them; what is neither is refused with a hint."""

import os
import socket
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from common.errors import DataError
from data.named import NAMED_DATASETS
from data.sources.hub import open_sources
from data.sources.mixes import Part, check_sources, parse_mix
from tests.paths import REPOSITORY

FILES = ("a.jsonl", "b.csv", "one,two.jsonl", "10:30.jsonl", "x:0.5.jsonl", "with space.json", "rows.jsonl.gz")


@pytest.fixture(autouse=True)
def in_a_folder_of_files(tmp_path, monkeypatch):
    for name in FILES:
        (tmp_path / name).write_text("[]")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)


# Mixes


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


def test_check_sources_looks_at_every_flag():
    check_sources(flags())
    check_sources(flags(dataset="a.jsonl,b.csv", eval_dataset="10:30.jsonl", dataset_format="alpaca-clean"))
    for changed, message in [
        ({"dataset": "vicuna"}, "--dataset vicuna: its training data was never released"),
        ({"eval_dataset": "c.csv"}, "--eval_dataset c.csv: there is no such file"),
        ({"dataset_format": "alpaka"}, "--dataset_format alpaka: unknown; did you mean alpaca?"),
        ({"eval_dataset": "folder"}, "folder is a directory"),
        ({"chat_template": "no.jinja"}, "--chat_template no.jinja: no such file; give a Jinja file, or default"),
    ]:
        with pytest.raises(DataError) as refused:
            check_sources(flags(**changed))
        assert str(refused.value).startswith(message)


def test_import_brings_neither_torch_nor_datasets():
    heavy = "('torch', 'datasets', 'pyarrow')"
    code = f"import sys, data.sources.mixes; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


# Sources


def test_a_file_is_the_one_split_of_itself():
    Path("a.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    [(split, source)] = open_sources("a.jsonl", "--dataset", None, False).items()
    assert (split, source.name, source.unit, source.format) == ("train", "a.jsonl", "line", None)
    assert list(source.records()) == [(1, {"a": 1}), (3, {"a": 2})]


@pytest.fixture
def hub(monkeypatch):
    """Stands in for `datasets.load_dataset`; `hub.splits` is what it gives or raises, `hub.asked` what it was asked."""
    import datasets

    hub = Namespace(splits={}, asked=None)

    def load_dataset(**asked):
        hub.asked = asked
        if isinstance(hub.splits, Exception):
            raise hub.splits
        return datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in hub.splits.items()})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return hub


def test_named_data_set_brings_its_rows_and_its_format(hub):
    hub.splits = {"train": [{"text": "one"}, {"text": "two"}], "test": [{"text": "three"}]}
    sources = open_sources("oasst1", "--dataset", "there", True)
    assert hub.asked == {"path": "timdettmers/openassistant-guanaco", "cache_dir": "there", "token": True}
    assert list(sources) == ["train", "test"]
    train, test = sources.values()
    assert train.name == "oasst1 (timdettmers/openassistant-guanaco, split train)"
    assert (train.unit, train.format) == ("row", "oasst1")
    assert list(train.records()) == list(train.records()) == [(1, {"text": "one"}), (2, {"text": "two"})]
    assert list(test.records()) == [(1, {"text": "three"})]
    assert train.digest != test.digest


def test_named_data_set_keeps_what_its_row_says_and_the_first_evaluation_split(hub):
    hub.splits = {name: [{"prompt": name, "completion": "c"}] for name in ("test", "train", "extra", "validation")}
    sources = open_sources("self-instruct", "--dataset", None, False)
    assert hub.asked == NAMED_DATASETS["self-instruct"].source | {"cache_dir": None, "token": None}
    assert list(sources) == ["train", "validation"]


def test_what_the_hub_refuses_is_told_with_what_to_do(hub, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    hub.splits = OSError("no route")
    with pytest.raises(DataError) as refused:
        open_sources("alpaca", "--eval_dataset", None, False)
    assert str(refused.value) == (
        "--eval_dataset alpaca: tatsu-lab/alpaca could not be loaded from the Hugging Face hub (OSError: no route)\n"
        "without a network here, run this where there is one: "
        "hf download tatsu-lab/alpaca --repo-type dataset --local-dir DIR\n"
        "then copy its data file here and pass it: --eval_dataset FILE --dataset_format alpaca"
    )


def test_offline_says_how_to_go_on_and_touches_no_network(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was touched")

    assert os.environ["HF_HUB_OFFLINE"] == "1"
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(DataError) as refused:
        open_sources("self-instruct", "--dataset", str(tmp_path), False)
    for part in [
        "--dataset self-instruct: yizhongw/self_instruct could not be loaded",
        "HF_HUB_OFFLINE is set, so only the local cache was searched\n",
        "hf download yizhongw/self_instruct --repo-type dataset --revision refs/convert/parquet --local-dir DIR",
        "--dataset FILE --dataset_format self-instruct",
    ]:
        assert part in str(refused.value)
    assert "the network was touched" not in str(refused.value)
