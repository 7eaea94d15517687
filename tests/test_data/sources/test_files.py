"""Files of every type give the same records, each with its line, one at a time."""

import csv
import gzip
import io
import json
import os
import random
import string

import pytest

from common.errors import DataError
from data.sources.files import open_file

TRICKY = [
    {"input": 'a "quoted", comma\tand tab', "output": "two\nlines"},
    {"input": "Ünïcode 🙂 \u2028 separator \x85", "output": " spaces around "},
    {"input": "a lone \r and a pair \r\n", "output": "\\ \x00 / '"},
]
TALK = [{"role": "user", "content": "hi"}, {"from": "gpt", "value": "hello"}]
ROW = {"instruction": "Say one.", "output": "one"}
LINE_FEED = b"\n"


def write(path, content):
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(path) -> list[tuple]:
    return list(open_file(str(path)).records())


def rows_of(path) -> list:
    return [record for _, record in read(path)]


def json_lines(rows, end="\n", **options) -> str:
    return "".join(json.dumps(row, **options) + end for row in rows)


def delimited(rows, delimiter=",", end="\r\n") -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0], delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


# The same rows from every type


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(TRICKY, indent=2)),
        ("a.JSON", json.dumps(TRICKY, ensure_ascii=False)),
        ("compact.json", json.dumps(TRICKY, separators=(",", ":"))),
        ("windows.json", json.dumps(TRICKY, indent=2).replace("\n", "\r\n")),
        ("lines.json", json_lines(TRICKY)),
        ("objects.json", "\n".join(json.dumps(row, indent=1) for row in TRICKY)),
        ("a.jsonl", "\n" + json_lines(TRICKY, end="\r\n\r\n", ensure_ascii=False)),
        ("no_last_break.jsonl", json_lines(TRICKY).rstrip()),
        ("mac.jsonl", json_lines(TRICKY, end="\r")),
        ("list.jsonl", json.dumps(TRICKY)),
        ("indented_list.jsonl", json.dumps(TRICKY, indent=2)),
        ("indented.jsonl", "\n".join(json.dumps(row, indent=1) for row in TRICKY)),
        ("bom.json", b"\xef\xbb\xbf" + json.dumps(TRICKY).encode()),
        ("bom.jsonl", b"\xef\xbb\xbf" + json_lines(TRICKY).encode()),
        ("a.json.gz", json.dumps(TRICKY)),
        ("a.jsonl.gz", json_lines(TRICKY)),
        ("a.JSONL.GZ", gzip.compress(json_lines(TRICKY).encode())),
        (
            "two.jsonl.GZ",
            gzip.compress(json_lines(TRICKY[:1]).encode()) + gzip.compress(json_lines(TRICKY[1:]).encode()),
        ),
        ("a.csv", delimited(TRICKY)),
        ("unix.csv", delimited(TRICKY, end="\n")),
        ("bom.csv", b"\xef\xbb\xbf" + delimited(TRICKY).encode()),
        ("a.tsv", delimited(TRICKY, "\t")),
        ("a.csv.gz", delimited(TRICKY)),
    ],
)
def test_every_file_type_reads_the_same_rows(tmp_path, name, content):
    assert rows_of(write(tmp_path / name, content)) == TRICKY


def test_parquet_reads_the_same_rows_in_batches(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{**TRICKY[n % 3], "messages": TALK[:1] * (n % 3), "id": n} for n in range(2500)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=700)
    source = open_file(str(tmp_path / "a.parquet"))
    assert list(source.records()) == list(enumerate(rows, 1))
    assert source.unit == "row"


# Lines


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("a.json", '\n[\n {"a": 1},\n {"a": [1,\n 2]}, {"a": "]"}\n\n,{"a": 4}]', [3, 4, 5, 7]),
        ("a.json", '[{"a": 1},{"a": 2}]', [1, 1]),
        ("a.json", "[]", []),
        ("a.json", '\n{\n "a": 1\n}\n{\n}', [2, 5]),
        ("a.jsonl", '\n{"a": 1}\n\n{"a": 2}', [2, 4]),
        ("a.jsonl", '{"a": 1}\r\n\r\n{"a": 2}\r\n', [1, 3]),
        ("a.csv", 'a,b\n1,"x\ny"\n\n2,z\n', [2, 5]),
        ("a.csv", 'a,b\r\n1,"x\r\ny"\r\n\r\n2,z\r\n', [2, 5]),
        ("a.csv", "a,b\r1,x\r\r2,y\r", [2, 4]),
        ("a.csv", '\n"a\n1",b\n1,x\n', [4]),
        ("a.txt", "\n\none\ntwo\n \nthree", [3, 6]),
    ],
)
def test_records_know_their_line(tmp_path, name, content, lines):
    assert [place for place, _ in read(write(tmp_path / name, content))] == lines


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_paragraphs_of_a_text(tmp_path, end):
    source = open_file(str(write(tmp_path / "a.txt", end.join(["", "one", "  two", " \t", "", "three"]))))
    assert list(source.records()) == [(2, {"text": "one\n  two"}), (6, {"text": "three"})]
    assert source.unit == "line"


def test_a_web_page_can_be_a_text(tmp_path):
    assert rows_of(write(tmp_path / "a.txt", "<html>one</html>")) == [{"text": "<html>one</html>"}]


def test_csv_as_spreadsheets_and_pandas_write_it(tmp_path):
    content = f',input,output\n0,{"x" * 200_000},y\n1,"say ""hi""",\n,,\n2,"a\r\nb",5" nail\n'
    assert rows_of(write(tmp_path / "a.csv", content)) == [
        {"column_1": "0", "input": "x" * 200_000, "output": "y"},
        {"column_1": "1", "input": 'say "hi"', "output": ""},
        {"column_1": "", "input": "", "output": ""},
        {"column_1": "2", "input": "a\r\nb", "output": '5" nail'},
    ]


# Layouts of JSON


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("a.jsonl", json_lines([TALK, TALK]), [1, 2]),
        ("a.json", json_lines([TALK, TALK]), [1, 2]),
        ("a.json", json.dumps([TALK, TALK]), [1, 1]),
        ("a.json", json.dumps([TALK, TALK], indent=1), [2, 12]),
        ("a.json", json.dumps(TALK, indent=1) + "\n" + json.dumps(TALK), [1, 11]),
        ("a.jsonl", json_lines([{"messages": TALK}, TALK]), [1, 2]),
    ],
)
def test_bare_lists_of_messages_are_conversations(tmp_path, name, content, lines):
    assert read(write(tmp_path / name, content)) == [(line, {"messages": TALK}) for line in lines]


def test_rows_with_a_column_that_messages_have_too_are_no_messages(tmp_path):
    rows = [{"from": "a book", **ROW}, {"role": "reader", **ROW}]
    assert rows_of(write(tmp_path / "a.json", json.dumps(rows))) == rows


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_one_object_over_many_lines(tmp_path, name):
    assert read(write(tmp_path / name, "\n" + json.dumps(ROW, indent=2) + "\n")) == [(2, ROW)]


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.jsonl", json_lines([ROW]) + '{"a": %s}\n', 2),
        ("a.jsonl", '{"a": %s}\n', 1),
        ("a.json", '\n{"a": %s}\n', 2),
        ("a.json", '[{},\n{"a": %s}]\n', 2),
    ],
)
def test_values_that_python_does_not_take_are_refused_with_their_line(tmp_path, name, content, line):
    for value, reason in (("[" * 5000 + "]" * 5000, "nested too deep"), ("1" * 5000, "more than 4,300 digits")):
        with pytest.raises(DataError, match=rf"{name}, line {line}: .*{reason}"):
            read(write(tmp_path / name, content % value))


# One record at a time


def test_lines_are_read_one_at_a_time(tmp_path):
    path = write(tmp_path / "a.jsonl", json_lines([ROW] * 3) + "{\n")
    records = open_file(str(path)).records()
    assert [next(records) for _ in range(3)] == [(n, ROW) for n in (1, 2, 3)]
    with pytest.raises(DataError, match="line 4, column 2"):
        next(records)


def test_files_are_closed_when_a_walk_is_given_up(tmp_path):
    path = write(tmp_path / "a.csv", delimited([ROW] * 5))
    records = open_file(str(path)).records()
    next(records)

    def is_open():
        return str(path) in {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}

    assert is_open()
    records.close()
    assert not is_open()


def test_walks_can_be_repeated_and_run_side_by_side(tmp_path):
    rows = [{**ROW, "id": str(n)} for n in range(5)]
    for name, content in (("a.json", json.dumps(rows)), ("a.jsonl.gz", json_lines(rows)), ("a.csv", delimited(rows))):
        source = open_file(str(write(tmp_path / name, content)))
        assert [record for _, record in source.records()] == rows
        assert [(one, two) for (_, one), (_, two) in zip(source.records(), source.records(), strict=True)] == [
            (row, row) for row in rows
        ]


def test_digest_is_that_of_the_content(tmp_path):
    one = open_file(str(write(tmp_path / "a.jsonl", json_lines([ROW]))))
    same = open_file(str(write(tmp_path / "b.jsonl", json_lines([ROW]))))
    other = open_file(str(write(tmp_path / "c.jsonl", json_lines([ROW, ROW]))))
    assert one.digest == same.digest != other.digest
    assert one.name == str(tmp_path / "a.jsonl") and one.unit == "line" and one.format is None


# What is no text


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_a_byte_that_is_not_utf8_is_named_by_line_and_offset(tmp_path, suffix):
    for seed in range(40):
        rng = random.Random(seed)
        text = "".join(rng.choices(string.ascii_letters + "\n" + "é🙂" * (seed % 2), k=200))
        content = json_lines([{"text": line} for line in text.split("\n")], ensure_ascii=False).encode()
        at = rng.randrange(len(content))
        content = content[:at] + rng.choice([b"\xff", b"\xc3", b"\xe9"]) + content[at:]
        with pytest.raises(UnicodeDecodeError) as expected:
            content.decode()
        start = expected.value.start
        path = write(tmp_path / f"a.{suffix}", content)
        with pytest.raises(DataError) as refused:
            read(path)
        where = (
            f"{path}, line {content.count(LINE_FEED, 0, start) + 1}: byte {content[start]:#04x} at offset {start} is"
        )
        assert str(refused.value).startswith(where), seed
        assert ("text before it is UTF-8" in str(refused.value)) == (not content[:start].isascii())


def test_a_cut_gzip_is_refused_wherever_it_is_cut(tmp_path):
    whole = gzip.compress(json_lines([{**ROW, "id": n} for n in range(50)]).encode())
    for cut in range(1, len(whole), 17):
        path = tmp_path / "a.jsonl.gz"
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"a\.jsonl\.gz(: not a whole| is not a) gzip file"):
            read(path)


def test_a_pipe_is_refused_as_data_are_read_twice(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="not a plain file"):
        open_file(str(tmp_path / "a.jsonl"))


def test_what_may_not_be_read_is_refused_with_the_reason(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", json_lines([ROW]))
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read \(No such file or directory\)"):
        open_file(str(tmp_path / "none.jsonl"))
    source = open_file(str(path))
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        next(source.records())


def test_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.jsonl", json_lines([ROW]))
    source = open_file("~/a.jsonl")
    assert list(source.records()) == [(1, ROW)] and source.name == "~/a.jsonl"
