"""Files and names in, split data sets out: counts that add up, mixes, splits, and what the module holds."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from common.errors import DataError
from tests.support.flags import data_module
from tests.support.paths import REPOSITORY

ROWS = [{"input": f"question {number}", "output": f"answer {number}", "id": number} for number in range(20)]


def flags(dataset, **changed):
    defaults = {
        "dataset": str(dataset),
        "dataset_format": None,
        "eval_dataset": None,
        "eval_dataset_size": 4,
        "max_train_samples": None,
        "max_eval_samples": None,
        "source_max_len": 64,
        "target_max_len": 32,
        "train_on_source": False,
        "predict_with_generate": False,
        "do_train": True,
        "do_eval": True,
        "do_predict": True,
        "seed": 42,
        "data_seed": None,
        "cache_dir": None,
        "use_auth_token": False,
    }
    return Namespace(**(defaults | changed))


def write(path: Path, rows) -> Path:
    text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path) -> Path:
    return write(tmp_path / "rows.jsonl", ROWS)


def unwrapped(said: str) -> str:
    """What was printed, on one line."""
    return " ".join(said.split())


def ids(rows) -> list:
    return [json.loads(fields)["id"] for fields in rows["fields"]]


def test_a_named_data_set_is_asked_for_and_reported_by_its_splits(tiny_tokenizer, hub, capsys, tmp_path):
    hub.splits = {
        "train": [{"text": f"### Human: t{i}"} for i in range(5)],
        "test": [{"text": f"### Human: e{i}"} for i in range(3)],
    }
    module = data_module(tiny_tokenizer, flags("oasst1", cache_dir=str(tmp_path), use_auth_token=True))
    assert hub.asked == {"path": "timdettmers/openassistant-guanaco", "cache_dir": str(tmp_path), "token": True}
    assert (len(module.train), len(module.eval)) == (5, 3)
    said = unwrapped(capsys.readouterr().out)
    assert "data: used: 5 of 5 train, 3 of 3 eval rows" in said
    for split, rows in (("train", 5), ("test", 3)):
        source = f"oasst1 (timdettmers/openassistant-guanaco, split {split})"
        assert f"{source} (oasst1): {rows} rows, 0 dropped, {rows} kept" in said


# Splitting


def test_module_holds_every_row_once_with_its_fields(tiny_tokenizer, file, capsys):
    module = data_module(tiny_tokenizer, flags(file))
    train, held_out = module.train, module.eval
    assert (len(train), len(held_out)) == (16, 4)
    made = [json.loads(row["fields"]) | {"input": row["input"], "output": row["output"]} for row in [*train, *held_out]]
    assert sorted(made, key=lambda row: row["id"]) == ROWS
    assert ids(train) == sorted(ids(train))
    assert ids(held_out) == sorted(ids(held_out))
    assert module.predict[:] == held_out[:]
    assert module.collator([train[0]])["labels"].shape[0] == 1
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [
        "data: 20 kept = 16 train + 4 held out (seed 42)",
        "data: used: 16 of 16 train, 4 of 4 eval rows",
    ]
    assert f"read: {file} (input-output): 20 rows, 0 dropped, 20 kept" in unwrapped("\n".join(said))


def test_dropped_rows_are_named_and_the_counts_add_up(tiny_tokenizer, tmp_path, capsys):
    rows = [row | {"output": " \n"} if row["id"] in (1, 2, 5, 7, 8, 9, 19) else row for row in ROWS]
    path = write(tmp_path / "rows.jsonl", rows)
    module = data_module(tiny_tokenizer, flags(path, max_train_samples=6, max_eval_samples=3))
    said = unwrapped(capsys.readouterr().out)
    for part in (
        f"{path} (input-output): 20 rows, 7 dropped, 13 kept",
        "7 rows (lines 2, 3, 6, 8, 9 and 2 more): an empty answer",
        "13 kept = 9 train + 4 held out (seed 42)",
        "used: 6 of 9 train, 3 of 4 eval rows",
    ):
        assert part in said
    [source] = module.report["sources"]
    assert source["dropped"] == {"an empty answer": {"rows": 7, "places": [2, 3, 6, 8, 9, 10, 20]}}
    assert (source["records"], source["rows"]) == (20, 13)


def test_rows_that_repeat_and_rows_in_both_splits_are_counted(tiny_tokenizer, tmp_path):
    train = write(tmp_path / "train.jsonl", [*ROWS, ROWS[3], ROWS[3] | {"id": 99}])
    held_out = write(tmp_path / "eval.jsonl", [ROWS[0], ROWS[3], {"input": "new", "output": "new"}])
    module = data_module(tiny_tokenizer, flags(train, eval_dataset=str(held_out)))
    assert module.report["duplicates"] == {"train": 2, "eval": 0, "both": 2}


def test_conversations_without_an_answer_within_the_limit_are_accounted_for(tiny_tokenizer, tmp_path, capsys):
    def chat(words):
        return {"messages": [{"role": "user", "content": "w " * words}, {"role": "assistant", "content": "yes"}]}

    path = write(tmp_path / "chat.jsonl", [chat(3), chat(500), chat(4), chat(600)])
    alone = {"do_eval": False, "do_predict": False}
    module = data_module(tiny_tokenizer, flags(path, **alone))
    assert module.train["place"][:] == [1, 3]
    [source] = module.report["sources"]
    [(reason, lost)] = source["dropped"].items()
    assert "no token of an answer is left" in reason and lost == {"rows": 2, "places": [2, 4]}
    assert source["rows"] == 2 and "train: 2 of 4 rows dropped: no token of an answer" in capsys.readouterr().out
    write(path, [chat(500)])
    with pytest.raises(
        DataError, match="no train row is left: 1 dropped: no token of an answer is left.*\ntry larger limits"
    ):
        data_module(tiny_tokenizer, flags(path, **alone))


def test_tokens_are_those_of_the_batches(tiny_tokenizer, tmp_path):
    """The prepared ids and labels of a row are what the collator makes of its texts."""
    path = write(tmp_path / "a.jsonl", [{"input": "word " * n, "output": "x" * n} for n in range(1, 21)])
    module = data_module(tiny_tokenizer, flags(path, source_max_len=12, target_max_len=6))
    collator = module.collator
    for row in module.train:
        batch = collator([{"input": row["input"], "output": row["output"]}])
        assert batch["input_ids"].tolist() == [row["input_ids"]]
        assert batch["labels"].tolist() == [row["labels"]]
        assert row["length"] == len(row["input_ids"]) <= 18


def test_digest_follows_the_content_that_is_trained_on(tiny_tokenizer, file, tmp_path):
    def digest(**changed):
        return data_module(tiny_tokenizer, flags(file, **changed)).digest

    before = digest()
    other = write(tmp_path / "eval.jsonl", ROWS[:2])
    assert digest(eval_dataset=str(other)) == before
    write(file, [*ROWS[:-1], ROWS[-1] | {"output": "changed"}])
    assert digest() != before


def test_later_prediction_sees_the_rows_that_training_held_out(tiny_tokenizer, file):
    trained = data_module(tiny_tokenizer, flags(file))
    later = data_module(tiny_tokenizer, flags(file, do_train=False, do_eval=False))
    assert later.train is later.eval is None
    assert ids(later.predict) == ids(trained.eval)


def test_pieces_of_a_long_text_are_no_duplicates(tiny_tokenizer, tmp_path):
    file = write(tmp_path / "long.txt", "word " * 500 + "\n\n" + "word " * 300 + "\n\n" + "word " * 500)
    module = data_module(tiny_tokenizer, flags(file, do_eval=False, do_predict=False))
    assert len(module.train) > 10
    assert module.report["duplicates"] == {"train": 1}


def test_a_row_that_fits_into_no_micro_batch_is_named(tiny_tokenizer, tmp_path):
    rows = [{"input": "word " * n, "output": "x"} for n in (1, 2, 30, 3)]
    file = write(tmp_path / "rows.jsonl", rows)
    batching = {"max_tokens_per_batch": 16, "per_device_train_batch_size": 1}
    with pytest.raises(DataError, match=f"--max_tokens_per_batch 16: {file}, line 3 has "):
        data_module(tiny_tokenizer, flags(file, do_eval=False, do_predict=False, **batching))


def test_the_same_file_for_training_and_evaluation_has_two_accounts(tiny_tokenizer, tmp_path):
    def chat(words):
        return {"messages": [{"role": "user", "content": "w " * words}, {"role": "assistant", "content": "yes"}]}

    file = write(tmp_path / "chat.jsonl", [chat(3), chat(500), chat(4)])
    sources = data_module(tiny_tokenizer, flags(file, eval_dataset=str(file))).report["sources"]
    assert [(source["use"], source["rows"]) for source in sources] == [("eval", 2), ("train", 2)]


def test_a_template_without_conversations_is_said(tiny_tokenizer, file, capsys):
    data_module(tiny_tokenizer, flags(file, chat_template="default", prompt_format="alpaca"))
    assert "--chat_template default has no effect: no row is a conversation" in capsys.readouterr().out


def test_training_alone_has_nothing_to_evaluate_or_predict(tiny_tokenizer, file):
    module = data_module(tiny_tokenizer, flags(file, do_eval=False, do_predict=False, eval_dataset_size=1024))
    assert len(module.train) == 20 and module.eval is module.predict is None


def test_import_brings_neither_torch_nor_datasets():
    code = "import sys, data.loading; sys.exit(any(name in sys.modules for name in ('torch', 'datasets', 'pyarrow')))"
    root = REPOSITORY
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
