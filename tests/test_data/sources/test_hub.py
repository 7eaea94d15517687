"""What a name opens: a file, or the splits of a named data set of the hub."""

import os
import socket
from pathlib import Path

import pytest

from common.errors import DataError
from data.named import NAMED_DATASETS
from data.sources.hub import open_sources

pytestmark = pytest.mark.usefixtures("folder_of_files")


def test_a_file_is_the_one_split_of_itself():
    Path("a.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    [(split, source)] = open_sources("a.jsonl", "--dataset", None, False).items()
    assert (split, source.name, source.unit, source.format) == ("train", "a.jsonl", "line", None)
    assert list(source.records()) == [(1, {"a": 1}), (3, {"a": 2})]


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
