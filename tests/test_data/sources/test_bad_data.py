"""Every file in fixtures/bad ends the run with exit status 2 and the message that messages.toml holds for it.

    PYTHONPATH=. python tests/test_bad_data.py > new.toml  # a message was changed: read the diff, put it there

A comment at the head of messages.toml says how it is to be read.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib

import pytest

from common.errors import DataError
from data.formats.registry import FORMATS
from data.selection import load_rows
from tests.support.flags import data_request
from tests.support.paths import REPOSITORY

FOLDER = REPOSITORY / "tests" / "fixtures" / "bad"
TABLE = tomllib.loads((FOLDER / "messages.toml").read_text(encoding="utf-8"))
HEAD = """\
# File (in this folder) → the whole message that it must give, and the flags that it is read with, where there are any.
# The list of all formats, which some messages hold, is written {formats}.
"""


def message_of(name: str, flags: dict, cache: str) -> str:
    """Return the message that ends a run on a file, read from its own folder."""
    try:
        load_rows(data_request(dataset=name, cache_dir=cache, seed=0, **flags))
    except DataError as error:
        return str(error)
    raise AssertionError(f"{name} was taken")


def without_formats(message: str) -> str:
    return re.sub(r"(?m)(^  [\w-]+: .*\n)+", "{formats}\n", message)


@pytest.fixture(autouse=True)
def in_the_folder(monkeypatch):
    monkeypatch.chdir(FOLDER)


@pytest.mark.parametrize("name", TABLE)
def test_every_bad_file_gives_its_message(name, tmp_path):
    row = TABLE[name]
    assert without_formats(message_of(name, row.get("flags", {}), str(tmp_path))) == row["message"].strip("\n")


def test_table_has_a_row_for_every_file():
    missing = {"missing.jsonl"}  # what is not there is bad too
    assert set(TABLE) - missing == {path.name for path in FOLDER.iterdir()} - {"messages.toml"}
    assert not any((FOLDER / name).exists() for name in missing)
    assert len(TABLE) >= 40
    messages = [row["message"].replace(name, "") for name, row in TABLE.items()]
    assert len(set(messages)) > 0.9 * len(messages)  # they say what is wrong with this one


def test_unknown_columns_bring_the_list_of_all_formats(tmp_path):
    message = message_of("no_header.csv", {}, str(tmp_path))
    assert re.findall(r"(?m)^  ([\w-]+): ", message) == list(FORMATS)


@pytest.mark.parametrize(
    "name",
    ["missing_comma.json", "duplicate_header.csv", "windows.jsonl", "empty_answers.jsonl", "cut_off.parquet"],
)
def test_command_line_ends_with_status_2_and_the_message(name, make_base, tmp_path, capsys):
    import qlora

    argv = ["--model_name_or_path", str(make_base()), "--dataset", name, "--output_dir", str(tmp_path / "out")]
    assert qlora.main([*argv, "--cache_dir", str(tmp_path), "--use_cpu"]) == 2
    error = capsys.readouterr().err
    assert f"qlora.py: error: {TABLE[name]['message'].strip()}\n" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("name", ["folder.jsonl", "sheet.xlsx", "empty.jsonl"])
def test_what_the_name_tells_is_refused_before_torch_is_loaded(name):
    code = "import sys, qlora; status = qlora.main(sys.argv[1:]); sys.exit(99 if 'torch' in sys.modules else status)"
    ran = subprocess.run(
        [sys.executable, "-c", code, "--model_name_or_path", "none", "--dataset", name],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr == f"qlora.py: error: {TABLE[name]['message'].strip()}\n"


def print_table() -> None:
    os.chdir(FOLDER)
    print(HEAD, end="")
    with tempfile.TemporaryDirectory() as cache:
        for name in sorted({path.name for path in FOLDER.iterdir()} - {"messages.toml"} | set(TABLE)):
            flags = TABLE.get(name, {}).get("flags", {})
            message = without_formats(message_of(name, flags, cache))
            print(f'\n["{name}"]')
            if flags:
                print("flags = {" + ", ".join(f'{flag} = "{value}"' for flag, value in flags.items()) + "}")
            print(f"message = '''\n{message}\n'''")


if __name__ == "__main__":
    print_table()
