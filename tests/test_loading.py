"""Files and names in, split data sets out: counts that add up; bad data is refused with file, line and reason."""

import csv
import gzip
import io
import json
import socket
import subprocess
import sys
from argparse import Namespace
from datetime import datetime
from pathlib import Path

import pytest

from data.loading import (
    DataError,
    count_held_out,
    load_rows,
    load_tables,
    make_data_module,
    read_file,
    split_indices,
    to_dataset,
)

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
        "group_by_length": False,
        "train_sampling_strategy": "random",
        "cache_dir": None,
        "trust_remote_code": False,
        "use_auth_token": False,
    }
    return Namespace(**(defaults | changed))


def write(path: Path, content) -> Path:
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def json_lines(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def delimited(rows, delimiter) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@pytest.fixture
def file(tmp_path) -> Path:
    return write(tmp_path / "rows.jsonl", json_lines(ROWS))


# Reading

TRICKY = [
    {"input": 'a "quoted", comma\tand tab', "output": "two\nlines"},
    {"input": "Ünïcode 🙂 \u2028 separator", "output": " spaces around "},
]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(TRICKY, indent=2)),
        ("a.JSON", json.dumps(TRICKY, ensure_ascii=False)),
        ("lines.json", json_lines(TRICKY)),
        ("a.jsonl", "\n" + json.dumps(TRICKY[0]) + "\r\n\r\n" + json.dumps(TRICKY[1], ensure_ascii=False)),
        ("list.jsonl", json.dumps(TRICKY)),
        ("bom.json", b"\xef\xbb\xbf" + json.dumps(TRICKY).encode()),
        ("a.json.gz", json.dumps(TRICKY)),
        ("a.jsonl.gz", json_lines(TRICKY)),
        ("a.csv", delimited(TRICKY, ",")),
        ("bom.csv", b"\xef\xbb\xbf" + delimited(TRICKY, ",").encode()),
        ("a.tsv", delimited(TRICKY, "\t")),
        ("a.csv.gz", delimited(TRICKY, ",")),
    ],
)
def test_every_file_type_reads_the_same_rows(tmp_path, name, content):
    assert read_file(str(write(tmp_path / name, content))).records == TRICKY


def test_parquet_reads_the_same_rows(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(TRICKY), tmp_path / "a.parquet")
    assert read_file(str(tmp_path / "a.parquet")).records == TRICKY


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("a.json", '\n[\n {"a": 1},\n {"a": [1,\n 2]}, {"a": "]"}\n\n,{"a": 4}]', [3, 4, 5, 7]),
        ("a.json", "[]", []),
        ("a.jsonl", '\n{"a": 1}\n\n{"a": 2}', [2, 4]),
        ("a.csv", 'a,b\n1,"x\ny"\n\n2,z\n', [2, 5]),
    ],
)
def test_rows_know_their_line(tmp_path, name, content, lines):
    path = write(tmp_path / name, content)
    if not lines:
        with pytest.raises(DataError, match="empty"):
            read_file(str(path))
    else:
        assert list(read_file(str(path)).places) == lines


def test_csv_with_an_index_and_a_long_field(tmp_path):
    path = write(tmp_path / "a.csv", f",input,output\n0,{'x' * 200_000},y\n")
    assert read_file(str(path)).records == [{"column_1": "0", "input": "x" * 200_000, "output": "y"}]


GOOD = '{"input": "i", "output": "o"}'
# file, content, what the message must hold
BAD_FILES = [
    ("a.json", '[{"input": "i",\n  "output" "o"}]', ["line 2, column 12", "Expecting ':'", "delimiter: '\"o\"}]'"]),
    ("a.json", '[{"input": "i", "output": "o"},\n', ["line 2, column 1", "the text ends"]),
    ("a.json", f"[{GOOD}]\nmore", ["line 2, column 1", "Extra data: 'more'"]),
    ("a.json", '{\n "data": []\n}', ["line 1, column 2", "not valid JSON", "a list of objects, or one object on each"]),
    ("a.json", f'[{GOOD},\n"text"]', ["line 2", "'text' is not an object", "a list of objects"]),
    ("a.json", "42", ["line 1", "'42' is not an object"]),
    ("a.json", "[]", ["empty", "at least one"]),
    ("a.json", " \n", ["empty"]),
    ("a.json", "", ["empty"]),
    ("a.jsonl", f'{GOOD}\n\n{{"input": "i", "outp', ["line 3, column 16", "Unterminated string"]),
    ("a.jsonl", f"{GOOD}\n{GOOD} {GOOD}", ["line 2, column 31", "Extra data"]),
    ("a.jsonl", f"{GOOD}\n[1, 2]", ["line 2", "'[1, 2]' is not an object"]),
    ("a.jsonl", f"{GOOD}\nnull", ["line 2", "'None' is not an object"]),
    ("a.jsonl", f'{GOOD}\n{{"n": {"1" * 5000}}}', ["line 2", "not valid JSON"]),
    ("a.jsonl.gz", f"{GOOD}\n{{", ["line 2, column 2"]),
    (
        "a.jsonl",
        f'{GOOD}\n{{"input": "i"}}',
        ["line 2", "column 'output' is missing", "found: 'input'", "input-output"],
    ),
    ("a.jsonl", f'{GOOD}\n{{"input": "i", "output": 3}}', ["line 2", "column 'output' holds 3 (int)"]),
    ("a.json", f'[{GOOD},\n\n{{"input": ["i"], "output": "o"}}]', ["line 3", "column 'input' holds ['i'] (list)"]),
    ("a.jsonl", '{"input": "i", "output": "\\ud83d"}', ["line 1", "column 'output'", "half of a character"]),
    ("a.jsonl", '{"question": "q", "answer": "a"}', ["line 1", "'question', 'answer'", "alpaca: instruction, output"]),
    (
        "a.jsonl",
        json_lines([{"input": "i", "output": " "}] * 7),
        ["no rows are left", "7 dropped", "lines 1, 2, 3, 4, 5"],
    ),
    (
        "a.jsonl",
        GOOD.encode() + b'\n{"input": "caf\xe9", "output": "o"}',
        ["line 2", "0xe9 at offset 44", "UTF-8", "LATIN1"],
    ),
    ("a.csv", "input,output\na,b".encode("utf-16"), ["line 1", "0xff at offset 0", "iconv -f UTF-16"]),
    ("a.csv", "input,output\n1,2\na,b,c\n", ["line 3", "3 fields where the header has 2 (input, output)", "quotes"]),
    ("a.csv", 'input,output\n"1\n1",2\na\n', ["line 4", "1 fields where the header has 2"]),
    ("a.csv", 'input,output\na,b\nc,"d\ne,f\n', ["line 3", "unexpected end of data"]),
    ("a.csv", 'input,output\na,"b"c\n', ["line 2", "expected after"]),
    ("a.csv", "input,output,input\na,b,c\n", ["line 1", "2 columns are named 'input'"]),
    ("a.csv", "input,output\n", ["empty"]),
    ("a.csv", "input;output\na;b\n", ["line 2", "'input;output'", "--dataset_format"]),
    ("a.tsv", "input\toutput\na\n", ["line 2", "1 fields where the header has 2"]),
    ("a.parquet", "PAR1 but no more", ["not a readable Parquet file"]),
    ("a.txt", "text", ["unknown file type '.txt'", ".jsonl", ".parquet"]),
    ("a", "text", ["unknown file type ''", ".jsonl"]),
]


@pytest.mark.parametrize(("name", "content", "parts"), BAD_FILES)
def test_bad_files_are_refused_with_file_line_and_reason(tiny_tokenizer, tmp_path, name, content, parts):
    path = write(tmp_path / name, content)
    with pytest.raises(DataError) as refused:
        make_data_module(tiny_tokenizer, flags(path))
    for part in [str(path), *parts]:
        assert part in str(refused.value)


@pytest.mark.parametrize("cut", [0, 5, 40])
def test_cut_gzip_is_refused(tmp_path, cut):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(json_lines(ROWS).encode())[:cut] or b"not gzip")
    with pytest.raises(DataError, match="not a whole gzip file") as refused:
        read_file(str(path))
    assert str(path) in str(refused.value)


def test_parquet_rows_are_named_by_number(tiny_tokenizer, tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"input": ["a", "b"], "output": ["c", None]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="a.parquet, row 2: column 'output' holds null"):
        make_data_module(tiny_tokenizer, flags(tmp_path / "a.parquet"))


def test_directory_is_refused_with_what_it_holds(tiny_tokenizer, file):
    with pytest.raises(DataError, match=r"is a directory \(it holds rows.jsonl\)"):
        make_data_module(tiny_tokenizer, flags(file.parent))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("alpacca", ["did you mean alpaca?", "self-instruct", ".jsonl"]),
        ("tatsu-lab/alpaca", ["did you mean alpaca?"]),
        ("vicuna", ["never released", "alpaca-clean"]),
    ],
)
def test_unknown_names_get_the_nearest_and_the_list(tiny_tokenizer, name, parts):
    with pytest.raises(DataError) as refused:
        make_data_module(tiny_tokenizer, flags(name))
    for part in [f"--dataset {name}", *parts]:
        assert part in str(refused.value)


def test_missing_file_gets_the_nearest_beside_it(tiny_tokenizer, file):
    with pytest.raises(DataError, match=r"no such file.*did you mean .*rows\.jsonl\?"):
        make_data_module(tiny_tokenizer, flags(file.with_name("row.jsonl")))
    with pytest.raises(DataError, match="--eval_dataset .*none.jsonl"):
        make_data_module(tiny_tokenizer, flags(file, eval_dataset=str(file.with_name("none.jsonl"))))


# The hub


def test_offline_says_how_to_go_on_and_touches_no_network(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(DataError) as refused:
        load_tables("self-instruct", "--dataset", Namespace(cache_dir=str(tmp_path)))
    for part in [
        "--dataset self-instruct: yizhongw/self_instruct could not be loaded",
        "HF_HUB_OFFLINE is set",
        "hf download yizhongw/self_instruct --repo-type dataset --revision refs/convert/parquet",
        "--dataset FILE --dataset_format self-instruct",
    ]:
        assert part in str(refused.value)


@pytest.fixture
def hub(monkeypatch):
    """Stands in for `datasets.load_dataset`; `hub.splits` is what it gives, `hub.asked` what it was asked."""
    import datasets

    hub = Namespace(splits={}, asked=None)

    def load_dataset(**asked):
        hub.asked = asked
        return datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in hub.splits.items()})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return hub


def test_named_data_set_evaluates_on_its_own_split(tiny_tokenizer, hub, capsys):
    hub.splits = {"train": [{"text": f"t{i}"} for i in range(5)], "test": [{"text": f"e{i}"} for i in range(3)]}
    module = make_data_module(tiny_tokenizer, flags("oasst1", cache_dir="there", use_auth_token=True))
    assert hub.asked == {"path": "timdettmers/openassistant-guanaco", "cache_dir": "there", "token": True}
    assert module["train_dataset"]["output"] == [f"t{i}" for i in range(5)]
    assert module["eval_dataset"]["output"] == [f"e{i}" for i in range(3)]
    assert capsys.readouterr().out.splitlines() == [
        "data: oasst1 (timdettmers/openassistant-guanaco, split train) (oasst1): 5 rows read, 0 dropped, 5 kept",
        "data: oasst1 (timdettmers/openassistant-guanaco, split test) (oasst1): 3 rows read, 0 dropped, 3 kept",
        "data: used: 5 of 5 train, 3 of 3 eval rows",
    ]


def test_named_data_set_without_eval_rows_is_split(tiny_tokenizer, hub):
    hub.splits = {"train": [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(9)]}
    module = make_data_module(tiny_tokenizer, flags("self-instruct"))
    assert (len(module["train_dataset"]), len(module["eval_dataset"])) == (5, 4)
    assert hub.asked["revision"] == "refs/convert/parquet"
    assert hub.asked["token"] is None


def test_named_data_set_to_evaluate_a_file(tiny_tokenizer, hub, file):
    hub.splits = {
        "train": [{"input": "i", "output": "t"}],
        "validation": [{"input": "i", "output": "v"}],
        "test": [{"input": "i", "output": "e"}],
    }
    module = make_data_module(tiny_tokenizer, flags(file, eval_dataset="longform"))
    assert len(module["train_dataset"]) == 20
    assert module["eval_dataset"]["output"] == ["v"]


# Splitting


@pytest.mark.parametrize(
    ("size", "rows", "held_out"), [(1, 20, 1), (1.0, 20, 1), (19, 20, 19), (0.5, 20, 10), (0.01, 20, 1), (0.26, 20, 6)]
)
def test_held_out_rows_are_a_count_or_a_fraction(size, rows, held_out):
    assert count_held_out(size, rows, "f") == held_out


@pytest.mark.parametrize(
    ("size", "what"),
    [
        (0, "--eval_dataset_size 0: it must be a whole number"),
        (-3, "--eval_dataset_size -3: it must be"),
        (2.5, "--eval_dataset_size 2.5: it must be"),
        (float("nan"), "it must be"),
        (float("inf"), "it must be"),
        (1024, "holds 1,024 rows out, but f has 20"),
        (20, "holds 20 rows out, but f has 20"),
        (0.99, "holds 20 rows out, but f has 20"),
    ],
)
def test_impossible_sizes_are_refused_with_the_numbers(size, what):
    with pytest.raises(DataError) as refused:
        count_held_out(size, 20, "f")
    assert what in str(refused.value)


def test_split_is_seeded_ordered_and_whole():
    train, held_out = split_indices(100, 30, seed=1)
    assert train == sorted(train)
    assert held_out == sorted(held_out)
    assert sorted(train + held_out) == list(range(100))
    assert split_indices(100, 30, seed=1) == (train, held_out)
    assert split_indices(100, 30, seed=2) != (train, held_out)
    assert set(split_indices(100, 10, seed=1)[1]) < set(held_out)


def test_module_holds_every_row_once_with_its_fields(tiny_tokenizer, file, capsys):
    module = make_data_module(tiny_tokenizer, flags(file))
    train, held_out = module["train_dataset"], module["eval_dataset"]
    assert train.column_names == held_out.column_names == ["input", "output", "id"]
    assert (len(train), len(held_out)) == (16, 4)
    assert sorted([*train, *held_out], key=lambda row: row["id"]) == ROWS
    assert train["id"] == sorted(train["id"])
    assert held_out["id"] == sorted(held_out["id"])
    assert module["predict_dataset"][:] == held_out[:]
    assert module["data_collator"]([train[0]])["labels"].shape[0] == 1
    assert capsys.readouterr().out.splitlines() == [
        f"data: {file} (input-output): 20 rows read, 0 dropped, 20 kept",
        "data: 20 kept = 16 train + 4 held out (seed 42)",
        "data: used: 16 of 16 train, 4 of 4 eval rows",
    ]


def test_dropped_rows_are_named_and_the_counts_add_up(tiny_tokenizer, tmp_path, capsys):
    rows = [row | {"output": " \n"} if row["id"] in (1, 2, 5, 7, 8, 9, 19) else row for row in ROWS]
    path = write(tmp_path / "rows.jsonl", json_lines(rows))
    make_data_module(tiny_tokenizer, flags(path, max_train_samples=6, max_eval_samples=3))
    assert capsys.readouterr().out.splitlines() == [
        f"data: {path} (input-output): 20 rows read, 7 dropped, 13 kept",
        f"data: {path}: 7 dropped for an empty output: lines 2, 3, 6, 8, 9 and 2 more",
        "data: 13 kept = 9 train + 4 held out (seed 42)",
        "data: used: 6 of 9 train, 3 of 4 eval rows",
    ]


def test_samples_are_the_first_of_their_split(tiny_tokenizer, file):
    whole = make_data_module(tiny_tokenizer, flags(file))
    some = make_data_module(tiny_tokenizer, flags(file, max_train_samples=5, max_eval_samples=2))
    assert some["train_dataset"]["id"] == whole["train_dataset"]["id"][:5]
    assert some["predict_dataset"]["id"] == whole["predict_dataset"]["id"][:2]
    more = make_data_module(tiny_tokenizer, flags(file, max_train_samples=500))
    assert more["train_dataset"]["id"] == whole["train_dataset"]["id"]
    for name in ("max_train_samples", "max_eval_samples"):
        with pytest.raises(DataError, match=f"--{name} 0: at least 1"):
            make_data_module(tiny_tokenizer, flags(file, **{name: 0}))


def test_later_prediction_sees_the_rows_that_training_held_out(tiny_tokenizer, file):
    trained = make_data_module(tiny_tokenizer, flags(file))
    later = make_data_module(tiny_tokenizer, flags(file, do_train=False, do_eval=False))
    assert later["train_dataset"] is later["eval_dataset"] is None
    assert later["predict_dataset"]["id"] == trained["eval_dataset"]["id"]


def test_seed_of_the_split(tiny_tokenizer, file):
    def held_out(**changed):
        return make_data_module(tiny_tokenizer, flags(file, **changed))["eval_dataset"]["id"]

    assert held_out(seed=7) != held_out()
    assert held_out(seed=7) == held_out(data_seed=7) == held_out(seed=1, data_seed=7)
    assert held_out(data_seed=0) == held_out(seed=0)


def test_training_alone_takes_every_row(tiny_tokenizer, file):
    module = make_data_module(tiny_tokenizer, flags(file, do_eval=False, do_predict=False, eval_dataset_size=1024))
    assert module["train_dataset"]["id"] == list(range(20))
    assert module["eval_dataset"] is module["predict_dataset"] is None


def test_rows_read_before_are_not_read_again(tiny_tokenizer, file):
    args = flags(file)
    rows = load_rows(args)
    file.unlink()
    module = make_data_module(tiny_tokenizer, args, rows)
    assert [len(module["train_dataset"]), len(module["eval_dataset"])] == [16, 4]


def test_nothing_asked_nothing_read(tiny_tokenizer):
    module = make_data_module(tiny_tokenizer, flags("nowhere", do_train=False, do_eval=False, do_predict=False))
    assert [module[name] for name in ("train_dataset", "eval_dataset", "predict_dataset")] == [None] * 3


def test_eval_dataset_is_used_whole_and_training_too(tiny_tokenizer, file, tmp_path):
    other = write(tmp_path / "eval.csv", "instruction,output\nSay a.,a\nSay b.,b\n")
    module = make_data_module(tiny_tokenizer, flags(file, eval_dataset=str(other)))
    assert module["train_dataset"]["id"] == list(range(20))
    assert module["predict_dataset"]["instruction"] == ["Say a.", "Say b."]
    alone = make_data_module(tiny_tokenizer, flags("nowhere", eval_dataset=str(other), do_train=False))
    assert alone["eval_dataset"]["output"] == ["a", "b"]


def test_dataset_format_overrides_the_columns(tiny_tokenizer, tmp_path):
    path = write(
        tmp_path / "a.jsonl", json_lines([{"instruction": "i", "input": f"x{n}", "output": "o"} for n in range(6)])
    )
    detected = make_data_module(tiny_tokenizer, flags(path, do_eval=False, do_predict=False))["train_dataset"]
    asked = flags(path, do_eval=False, do_predict=False, dataset_format="input-output")
    assert detected[0]["input"].endswith("### Input:\nx0\n\n### Response: ")
    assert make_data_module(tiny_tokenizer, asked)["train_dataset"][0]["input"] == "x0"
    with pytest.raises(DataError, match="--dataset_format alpaka: unknown; did you mean alpaca"):
        make_data_module(tiny_tokenizer, flags(path, dataset_format="alpaka"))


# Columns


@pytest.mark.parametrize(
    "flag",
    [{"group_by_length": True, "train_sampling_strategy": None}, {"train_sampling_strategy": "group_by_length"}],
)
def test_lengths_are_tokens_after_the_cuts(tiny_tokenizer, tmp_path, flag):
    rows = [{"input": "word " * n, "output": "x" * n, "length": "raw"} for n in range(1, 21)]
    path = write(tmp_path / "a.jsonl", json_lines(rows))
    module = make_data_module(tiny_tokenizer, flags(path, source_max_len=12, target_max_len=6, **flag))
    train = module["train_dataset"]
    assert train["length"] == [int(module["data_collator"]([row])["attention_mask"].sum()) for row in train]
    assert max(train["length"]) == 18
    assert module["eval_dataset"]["length"] == ["raw"] * 4


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        ([1, "a", None], ["1", '"a"', None]),
        ([{"a": 1}, {"b": [2, "c"]}], ['{"a": 1}', '{"b": [2, "c"]}']),
        ([{"a": 1}, {"b": 2}], ['{"a": 1}', '{"b": 2}']),
        ([[1], ["x"]], ["[1]", '["x"]']),
        ([2**70, 1], [str(2**70), "1"]),
        (["\ud83d", "ok"], ['"\\ud83d"', '"ok"']),
        ([True, 2], ["true", "2"]),
    ],
)
def test_columns_that_arrow_would_change_are_kept_as_json(values, stored, capsys):
    rows = [{"input": "i", "output": "o", "extra": value} for value in values]
    assert to_dataset(rows)["extra"] == stored
    assert "column 'extra' holds values of several types" in capsys.readouterr().out


@pytest.mark.parametrize(
    "values",
    [
        ["a", None, "b"],
        [1, 2, None],
        [{"a": 1, "b": "x"}, {"a": 2, "b": None}],
        [["x"], [], None],
        [0.5, float("nan"), float("inf")],
        [datetime(2024, 1, 2, 3, 4, 5), None],
    ],
)
def test_columns_of_one_type_stay_as_they_are(values, capsys):
    rows = [{"input": "i", "output": "o", "extra": value} for value in values]
    assert repr(list(to_dataset(rows)["extra"])) == repr(values)  # repr: NaN is not equal to itself
    assert capsys.readouterr().out == ""


def test_column_that_only_some_rows_have():
    rows = [{"input": "i", "output": "o"}, {"input": "i", "output": "o", "tag": "t"}]
    assert to_dataset(rows)["tag"] == [None, "t"]


def test_one_process_speaks(tiny_tokenizer, file, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    make_data_module(tiny_tokenizer, flags(file))
    assert capsys.readouterr().out == ""


def test_import_brings_neither_torch_nor_datasets():
    code = "import sys, data.loading; sys.exit(any(name in sys.modules for name in ('torch', 'datasets', 'pyarrow')))"
    root = Path(__file__).resolve().parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


# Real files

REAL_FILES = [
    ("alpaca/alpaca_data.json.gz", "alpaca", 52_002, 28),
    ("alpaca/llamafactory_alpaca_en_demo.json", "alpaca", 999, 0),
    ("alpaca/torchtune_alpaca_tiny.json", "alpaca", 100, 0),
    ("chat/llamafactory_identity.json", "alpaca", 91, 0),
    ("flan-t0/flan_cot_aqua_train.json", "alpaca", 2_000, 0),
    ("flan-t0/t0_train_sample.jsonl", "self-instruct", 1_981, 0),
    ("hh-rlhf/harmless-base/test.jsonl.gz", "hh-rlhf", 2_312, 0),
    ("longform/longform_train.json", "input-output", 17, 0),
    ("longform/longform_val.json", "input-output", 9, 0),
    ("oasst1-guanaco/oa_questions.jsonl", "input-output", 953, 0),
    ("raw-text/c4_demo.jsonl", "oasst1", 300, 0),
    ("self-instruct/minillm_self-inst_valid.jsonl", "alpaca", 242, 0),
]


@pytest.mark.parametrize(("name", "dataset_format", "read", "dropped"), REAL_FILES)
def test_real_files_load_whole(tiny_tokenizer, shared_data, capsys, name, dataset_format, read, dropped):
    path = shared_data / name
    module = make_data_module(tiny_tokenizer, flags(path, eval_dataset_size=0.1))
    assert len(module["train_dataset"]) + len(module["eval_dataset"]) == read - dropped
    assert capsys.readouterr().out.splitlines()[0] == (
        f"data: {path} ({dataset_format}): {read:,} rows read, {dropped:,} dropped, {read - dropped:,} kept"
    )


def test_real_oasst1_text(tiny_tokenizer, shared_data):
    path = shared_data / "oasst1-guanaco/oa_questions.jsonl"
    module = make_data_module(tiny_tokenizer, flags(path, dataset_format="oasst1", eval_dataset_size=53))
    assert (len(module["train_dataset"]), len(module["eval_dataset"])) == (900, 53)
    assert set(module["train_dataset"]["input"]) == {""}
    assert module["train_dataset"]["output"] == module["train_dataset"]["text"]


def test_real_file_of_another_format_is_refused(tiny_tokenizer, shared_data):
    path = shared_data / "super-natural-instructions/sinst_11_valid.jsonl"
    with pytest.raises(DataError, match=r"sinst_11_valid.jsonl, line 1: column 'output' holds \[.*\(list\)"):
        make_data_module(tiny_tokenizer, flags(path))
