"""What tests of sources share."""

import pytest

FILES = ("a.jsonl", "b.csv", "one,two.jsonl", "10:30.jsonl", "x:0.5.jsonl", "with space.json", "rows.jsonl.gz")


@pytest.fixture
def folder_of_files(tmp_path, monkeypatch):
    """The working directory, with files of names that a mix could misread."""
    for name in FILES:
        (tmp_path / name).write_text("[]")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
