"""The same rows as JSON and as Parquet, whose objects have the fields of all others as null, become the same rows."""

import json
from functools import partial

import pytest

from data.cache import cache_directory
from data.formats.registry import FORMATS
from data.rows import format_source
from data.sources.files import Source, open_file
from tests.support.format_records import RECORD

CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
TOWN = {"town": {"type": "string", "enum": ["Bern", None]}}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": TOWN, "required": ["town"]}},
}


def called(name, arguments):
    return {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}],
    }


def asked(*messages, **columns):
    return {"messages": [{"role": "user", "content": "?"}, *messages], **columns}


# Objects with other fields, nested lists, empty objects and lists, missing columns: each list is one file. The order of
# fields in an object is the same in all rows, as Parquet has one for the whole file.
TOOL_CALLS = [
    asked(called("clock", {}), {"role": "tool", "content": "12", "tool_call_id": "a"}, tools=[CLOCK]),
    asked(called("weather", {"town": "Bern", "of": {"day": 1}, "days": [[1], []]}), tools=[CLOCK, WEATHER]),
    asked(called("weather", {"town": "Bern", "of": {"hour": 2}}), tools=[WEATHER], system="Be short."),
    asked({"role": "assistant", "content": "None.", "tool_calls": [], "thinking": "Hm."}, tools=[]),
    asked(
        {"role": "assistant", "content": "No.", "train": False}, {"role": "assistant", "content": "Yes.", "train": True}
    ),
]
CALLS_AS_TEXT = [  # A null in a JSON text is meant.
    asked(called("weather", '{"town": null, "days": [1]}'), tools=json.dumps([WEATHER, {"default": None}])),
    asked(called("clock", ""), tools=None),
    asked(called("clock", None)),
]
EXTRAS = [
    {"meta": {"a": 1, "of": [{"b": 2}, {"c": 3}], "d": {"e": 4}}},
    {"meta": {"d": {}, "of": []}, "history": [["q", "a"]], "system": "Be short.", "label": True},
    {"label": False},
    {},
]


def files_of(name):
    record = RECORD[name]
    return [record | extra for extra in EXTRAS] + [{c: v for c, v in record.items() if c in FORMATS[name].columns}]


def with_all_columns(rows):
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return [{column: row.get(column) for column in columns} for row in rows]


def as_parquet(path, rows):
    """Write rows as Parquet as pyarrow and pandas do: every row has every column, every object the fields of all."""
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(with_all_columns(rows)), path)
    return open_file(str(path))


def as_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return open_file(str(path))


def made(source, cache, row=None):
    """All that rows and account say of what is trained on; `fields` are those of the file."""
    rows, account = format_source(source, row, cache)
    shown = [{name: row[name] for name in ("input", "output", "messages", "tools", "place", "splits")} for row in rows]
    return shown, account.format, account.dropped, account.unused


@pytest.fixture
def cache(tmp_path):

    return cache_directory(str(tmp_path / "cache"))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("asked_for", [False, True])
def test_every_format_gives_the_same_rows(name, asked_for, tmp_path, cache):
    rows, row = files_of(name), FORMATS[name] if asked_for else None
    for order in (rows, rows[::-1]):
        jsonl, parquet = as_jsonl(tmp_path / "rows.jsonl", order), as_parquet(tmp_path / "rows.parquet", order)
        expected = made(jsonl, cache, row)
        assert made(parquet, cache, row) == expected
        assert expected[1] == name and len(expected[0]) >= 4
        assert [len(places) for places in expected[2].values()] == [1]  # the false label


@pytest.mark.parametrize("first", range(len(TOOL_CALLS)))
def test_tools_and_calls_hold_no_field_of_another_row(first, tmp_path, cache):
    rows = TOOL_CALLS[first:] + TOOL_CALLS[:first]
    expected = made(as_jsonl(tmp_path / "rows.jsonl", rows), cache)
    assert made(as_parquet(tmp_path / "rows.parquet", rows), cache) == expected
    weather = next(row for row in expected[0] if '"days' in (row["messages"] or "").replace("\\", ""))
    assert (
        weather["output"] == '{"name": "weather", "arguments": {"town": "Bern", "of": {"day": 1}, "days": [[1], []]}}'
    )
    assert json.loads(weather["tools"]) == [CLOCK, WEATHER]


def test_calls_and_tools_as_json_texts(tmp_path, cache):
    expected = made(as_jsonl(tmp_path / "rows.jsonl", CALLS_AS_TEXT), cache)
    assert made(as_parquet(tmp_path / "rows.parquet", CALLS_AS_TEXT), cache) == expected
    assert [row["output"] for row in expected[0]] == [
        '{"name": "weather", "arguments": {"town": null, "days": [1]}}',
        *['{"name": "clock", "arguments": {}}'] * 2,
    ]
    assert json.loads(expected[0][0]["tools"])[1] == {"default": None}


def test_nulls_that_json_spells_out_are_no_fields_either(tmp_path, cache):
    plain = asked(called("weather", {"town": "Bern"}), tools=[CLOCK])
    function = {
        **CLOCK["function"],
        "strict": None,
        "parameters": {**CLOCK["function"]["parameters"], "required": None},
    }
    nulls = asked({**called("weather", {"town": "Bern", "day": None}), "content": None, "train": None, "from": None})
    nulls |= {"tools": [{"type": "function", "function": function}], "system": None}
    rows, *_ = made(as_jsonl(tmp_path / "rows.jsonl", [plain, nulls]), cache)
    first, second = (row | {"place": 0} for row in rows)
    assert first == second


def test_data_sets_of_the_hub_and_the_files_they_are_written_to(tmp_path, cache):
    """`datasets` holds and writes fields in which objects differ as JSON texts, or as objects with nulls."""
    import datasets

    expected = made(as_jsonl(tmp_path / "rows.jsonl", TOOL_CALLS), cache)
    loaded = datasets.load_dataset(
        "json", data_files=str(tmp_path / "rows.jsonl"), split="train", cache_dir=str(tmp_path)
    )
    assert "Json" in str(loaded.features)
    loaded.to_parquet(str(tmp_path / "rows.parquet"))
    assert made(open_file(str(tmp_path / "rows.parquet")), cache) == expected
    for number, rows in enumerate((loaded, datasets.Dataset.from_list(with_all_columns(TOOL_CALLS)))):
        assert made(Source("hub", partial(enumerate, rows, 1), "row", str(number)), cache) == expected


def test_a_map_is_an_object(tmp_path, cache):
    import pyarrow.parquet

    arguments = pyarrow.array([[("town", "Bern"), ("day", None)]], pyarrow.map_(pyarrow.string(), pyarrow.string()))
    function = pyarrow.StructArray.from_arrays([pyarrow.array(["weather"]), arguments], ["name", "arguments"])
    call = pyarrow.StructArray.from_arrays([function], ["function"])
    calls = pyarrow.ListArray.from_arrays([0, 1], call)
    message = pyarrow.StructArray.from_arrays([pyarrow.array(["assistant"]), calls], ["role", "tool_calls"])
    table = pyarrow.table({"messages": pyarrow.ListArray.from_arrays([0, 1], message)})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    [row], *_ = made(open_file(str(tmp_path / "rows.parquet")), cache)
    assert row["output"] == '{"name": "weather", "arguments": {"town": "Bern"}}'
