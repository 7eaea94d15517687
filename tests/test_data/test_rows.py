"""Records as rows on disk: an account that adds up, and a cache that never gives what it should not."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest

import data.rows
from common.errors import DataError
from data.cache import cache_directory
from data.formats.detection import find_format
from data.rows import COLUMNS, Account, describe_dropped, describe_read, fields_of, format_source
from data.sources.files import Source, open_file

RECORDS = [
    {"input": "q1", "output": "a1", "id": 7, "note": {"é": [1, None]}},
    {"input": "q2", "output": " \n", "id": 8},
    {"input": "q3", "output": 5, "id": 9},
    {"input": "q4", "output": "a4", "id": 10, "note": "\ud83d"},
    {"input": "q5", "output": "", "id": 11},
]


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return open_file(str(path))


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "my.jsonl", RECORDS)


@pytest.fixture
def cache(tmp_path):
    return cache_directory(str(tmp_path / "cache"))


@pytest.fixture
def walks(monkeypatch):
    """How often a source was formatted."""
    walks, original = [], data.rows._format
    monkeypatch.setattr("data.rows._format", lambda *args: walks.append(args) or original(*args))
    return walks


# Rows and their account


def test_rows_hold_texts_place_and_the_other_fields(source, cache):
    rows, account = format_source(source, None, cache)
    assert rows.column_names == list(COLUMNS)
    assert [row["place"] for row in rows] == [1, 4]
    assert rows[0] | {"key": 0, "fields": 0} == {
        **{"input": "q1", "output": "a1", "messages": None, "tools": None, "fields": 0, "file": source.name},
        **{"unit": "line", "place": 1, "splits": False, "key": 0},
    }
    assert fields_of(rows[0]) == {"id": 7, "note": {"é": [1, None]}, "input": "q1", "output": "a1"}
    assert fields_of(rows[1])["note"] == "\ud83d"
    assert account == Account(
        source.name,
        "line",
        "input-output",
        5,
        2,
        {"an empty answer": [2, 5], "column 'output' holds a number, not a text": [3]},
        ["input", "output", "id", "note"],
        {"id": 2, "note": 2},
        prompts=2,
    )
    assert account.records == account.rows + 3


def test_a_row_that_was_not_made_here_is_its_own_fields():
    assert fields_of({"input": "i", "output": "o", "id": 3}) == {"input": "i", "output": "o", "id": 3}


def test_the_account_says_what_was_dropped_and_where():
    account = Account("f.jsonl", "line", "alpaca", records=1_234, rows=1_226)
    for place in [3, 5, 8, 1_000, 1_001, 1_002, 1_003]:
        account.drop("an empty answer", place)
    account.drop("no assistant turn", 9)
    assert describe_dropped(account.summary()) == [
        "7 rows (lines 3, 5, 8, 1000, 1001 and 2 more): an empty answer",
        "1 row (line 9): no assistant turn",
    ]
    assert describe_read(account.summary()) == "f.jsonl (alpaca): 1,234 rows, 8 dropped, 1,226 kept"
    account.records = 99
    assert "1,234 rows from 99 records, 8 dropped" in describe_read(account.summary())


def test_a_record_of_several_rows_keeps_its_place(tmp_path, cache):
    record = {"instruction": "i", "input": "x", "output": ["a", " ", "b"]}
    rows, account = format_source(write(tmp_path / "my.jsonl", [record, record | {"output": "c"}]), None, cache)
    assert [(row["place"], row["output"]) for row in rows] == [(1, "a"), (1, "b"), (2, "c")]
    assert (account.records, account.rows, account.dropped) == (2, 3, {"an empty answer": [1]})


def test_conversations_keep_their_turns_and_show_the_last_exchange(tmp_path, cache):
    chat = [("user", "q1"), ("assistant", "a1"), ("user", "q2"), ("assistant", " "), ("user", "q3")]
    record = {"messages": [{"role": role, "content": content} for role, content in chat], "id": 3}
    empty = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": " "}]}
    rows, account = format_source(write(tmp_path / "my.jsonl", [record, empty]), None, cache)
    messages = json.loads(rows[0]["messages"])
    assert [(message["role"], message["content"]) for message in messages] == chat
    assert [message["supervised"] for message in messages] == [False, True, False, False, False]
    assert fields_of(rows[0]) == record | {"input": "q1", "output": "a1"}
    assert account.dropped == {"an empty answer": [2]}


def test_thoughts_stay_with_their_turns(tmp_path, cache):
    thought = {"role": "assistant", "reasoning_content": "Twice 2."}
    turns = [{"role": "user", "content": "2 + 2?"}, thought | {"content": "4"}]
    records = [{"messages": turns}, {"messages": [turns[0], thought | {"content": " "}]}]
    records += [{"messages": [turns[0], thought | {"content": ""}, *turns]}]
    rows, account = format_source(write(tmp_path / "my.jsonl", records), None, cache)
    assert fields_of(rows[0]) == {
        "messages": [turns[0], {"role": "assistant", "content": "4", "reasoning": "Twice 2."}],
        **{"input": "2 + 2?", "output": "4"},
    }
    assert account.dropped == {"an answer that is only a thought": [2]}
    assert [turn["supervised"] for turn in json.loads(rows[1]["messages"])] == [False, False, False, True]


def test_what_decides_nothing_is_counted_by_record(tmp_path, cache):
    chat = [{"role": "user", "content": "q", "name": "A"}, {"role": "assistant", "content": "a", "name": "B"}]
    records = [
        {"messages": chat, "id": 0, "tags": [], "\x1b[31m": 1},
        {"messages": chat[:1], "id": 1},  # no answer, so nothing was made of it
        {"messages": [chat[0], chat[1] | {"name": None}], "id": 2, "tools": [{}], "label": True},
        {"messages": [{**turn, "name": " "} for turn in chat], "id": None},
    ]
    _, account = format_source(write(tmp_path / "my.jsonl", records), None, cache)
    assert account.unused == {"id": 2, "\\x1b[31m": 1, "messages[].name": 2}


def test_a_record_nested_deeper_than_python_goes_is_dropped(tmp_path, cache):
    path = tmp_path / "my.jsonl"
    deep = '{"input": "q", "output": "a", "x": ' + "[" * 900 + "]" * 900 + "}\n"
    path.write_text(deep + json.dumps(RECORDS[0]) + "\n", encoding="utf-8")
    rows, account = format_source(open_file(str(path)), None, cache)
    assert rows["place"][:] == [2]
    assert account.dropped == {"lists and objects in one another are nested too deep": [1]}


def test_only_plain_texts_are_split(tmp_path, cache):
    source = write(tmp_path / "my.jsonl", [{"text": "long"}])
    assert format_source(source, find_format("text"), cache)[0]["splits"][:] == [True]
    assert format_source(source, find_format("oasst1"), cache)[0]["splits"][:] == [False]


def test_keys_tell_what_is_trained_on(tmp_path, cache):
    records = [{"input": "q", "output": "a", "id": n} for n in range(2)]
    records += [{"input": "qa", "output": ""}, {"input": "", "output": "qa"}, {"input": "q", "output": "b"}]
    keys = format_source(write(tmp_path / "my.jsonl", records), None, cache)[0]["key"][:]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_nothing_to_train_on_is_refused_with_the_account(tmp_path, cache):
    source = write(tmp_path / "my.jsonl", RECORDS[1:3])
    for _ in range(2):  # from the cache too
        with pytest.raises(DataError, match="no rows are left.*\n.*2 rows, 2 dropped, 0 kept\n.*line 1.*\n.*line 2"):
            format_source(source, None, cache)
    nothing = Source("nothing", lambda: iter(()), "row", "digest")
    with pytest.raises(DataError, match="nothing: it holds no rows"):
        format_source(nothing, None, cache)


# The cache


def test_the_same_source_is_formatted_once(source, cache, walks):
    first, again = (format_source(source, None, cache) for _ in range(2))
    assert first[1] == again[1]
    assert first[0][:] == again[0][:]
    assert len(walks) == 1


def test_changed_content_name_format_or_code_is_formatted_again(source, tmp_path, cache, walks, monkeypatch):
    format_source(source, None, cache)
    format_source(source, find_format("input-output"), cache)
    assert len(walks) == 2
    format_source(write(tmp_path / "other.jsonl", RECORDS), None, cache)
    assert len(walks) == 3
    changed = format_source(write(tmp_path / "my.jsonl", RECORDS[:1]), None, cache)
    assert (len(walks), len(changed[0])) == (4, 1)
    monkeypatch.setattr("data.rows.code_digest", lambda: "changed")
    format_source(source, None, cache)
    assert len(walks) == 5


@pytest.mark.parametrize("at", ["rows", "account", "rename"])
def test_a_cut_short_write_leaves_nothing_to_trust(source, cache, monkeypatch, at):
    def cut(*args, **kwargs):
        raise KeyboardInterrupt

    def broken(*args):
        yield from list(original(*args))[:1]
        cut()

    original, replace, moved = data.rows._format, os.replace, []
    with monkeypatch.context() as changed:
        if at == "rows":
            changed.setattr("data.rows._format", broken)
        elif at == "account":
            changed.setattr(Path, "write_text", cut)
        else:
            changed.setattr(os, "replace", lambda *names: cut() if moved else moved.append(replace(*names)))
        with pytest.raises(KeyboardInterrupt):
            format_source(source, None, cache)
    assert not list(cache.rglob("account.json"))
    assert not list(cache.glob("tmp*"))
    assert [len(format_source(source, None, cache)[0]), len(list(cache.iterdir()))] == [2, 1]


def test_rows_that_were_deleted_are_made_again(source, cache):
    rows = format_source(source, None, cache)[0][:]
    for name in ("rows.arrow", "account.json"):
        next(cache.rglob(name)).unlink()
        assert format_source(source, None, cache)[0][:] == rows


def _format_at_once(path, cache, barrier, results):
    barrier.wait(60)
    rows, account = format_source(open_file(path), None, cache)
    results.put((len(rows), rows[-1]["output"], account.rows))


def test_processes_that_write_the_same_do_no_harm(tmp_path, cache):
    write(tmp_path / "my.jsonl", [{"input": "q", "output": f"a{n}"} for n in range(3_000)])
    fork = multiprocessing.get_context("fork")
    barrier, results = fork.Barrier(3), fork.Queue()
    arguments = (str(tmp_path / "my.jsonl"), cache, barrier, results)
    processes = [fork.Process(target=_format_at_once, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [(3_000, "a2999", 3_000)] * 3
    for process in processes:
        process.join(60)
    assert len(list(cache.iterdir())) == 1


def test_a_place_that_cannot_be_written_is_named(source, cache, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/qlora cannot be written \(Not a directory\).*\n.*--cache_dir DIR"):
        cache_directory(str(tmp_path / "file"))

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\)"):
        format_source(source, None, cache)


def test_prepared_rows_lie_where_asked_or_with_those_of_datasets(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "theirs")
    assert cache_directory(None) == tmp_path / "theirs" / "qlora"
    assert cache_directory(str(tmp_path / "mine")) == tmp_path / "mine" / "qlora"
    assert (tmp_path / "mine" / "qlora").is_dir()


def test_rows_of_several_batches_are_mapped_not_read(tmp_path, cache, monkeypatch):
    monkeypatch.setattr("data.rows.BATCH", 7)
    rows, _ = format_source(
        write(tmp_path / "a.jsonl", [{"input": "", "output": f"a{n}"} for n in range(20)]), None, cache
    )
    assert rows["output"][:] == [f"a{n}" for n in range(20)]
    assert rows.cache_files == [{"filename": str(next(cache.rglob("rows.arrow")))}]
    assert rows.data.num_rows == 20
    assert [len(chunk) for chunk in rows.data.column("output").chunks] == [7, 7, 6]


@pytest.mark.parametrize("name", ["rows.arrow", "account.json"])
@pytest.mark.parametrize("size", [0, 100])
def test_a_damaged_cache_is_made_anew(source, cache, name, size):
    whole = format_source(source, None, cache)[0][:]
    [kept] = cache.glob(f"rows-*/{name}")
    kept.write_bytes(kept.read_bytes()[:size])
    assert format_source(source, None, cache)[0][:] == whole


# Questions


def test_questions_are_kept_only_to_be_predicted(tmp_path, cache):
    records = [{"instruction": "Add.", "id": 1}, {"instruction": "Add.", "output": "3"}, {"instruction": 7}]
    source = write(tmp_path / "questions.jsonl", records)
    with pytest.raises(DataError, match="line 1: no format fits its columns: 'instruction', 'id'"):
        format_source(source, None, cache)
    rows, account = format_source(source, None, cache, questions=True)
    assert [row["output"] for row in rows] == ["", "3"]
    assert "output" not in fields_of(rows[0]) and fields_of(rows[1])["output"] == "3"
    assert account.dropped == {"column 'instruction' holds a number, not a text": [3]}


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": [{"role": "user", "content": "so"}]},  # TRL's prompts alone
        {"prompt": "so", "completion": None, "system": "Be short."},
        {"instruction": "so", "history": [["hi", "ho"]]},
    ],
)
def test_questions_that_are_conversations(tmp_path, cache, record):
    rows, _ = format_source(write(tmp_path / "questions.jsonl", [record]), None, cache, questions=True)
    last = json.loads(rows[0]["messages"])[-1]
    assert (rows[0]["input"], rows[0]["output"], last) == (
        *("so", ""),
        {"role": "assistant", "content": "", "supervised": True},
    )
    assert [turn["role"] for turn in fields_of(rows[0])["messages"]][-1] == "user"


def test_conversation_that_waits_for_an_answer(tmp_path, cache):
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "ho"},
        {"role": "user", "content": "so"},
    ]
    source = write(tmp_path / "chat.jsonl", [{"messages": turns}])
    rows, _ = format_source(source, None, cache, questions=True)
    assert fields_of(rows[0]) == {"input": "so", "messages": turns}
    trained, _ = format_source(source, None, cache)
    assert (trained[0]["input"], trained[0]["output"]) == ("hi", "ho")
