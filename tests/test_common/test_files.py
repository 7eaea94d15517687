"""Files that are whole or not there."""

import os

import pytest

from common.files import check_writable, read_json, write_json, write_whole


def test_json_keeps_letters_of_every_alphabet(tmp_path):
    write_json(tmp_path / "a.json", {"text": "是的 é"})
    assert "是的 é" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"text": "是的 é"}


def test_half_a_character_is_written_as_its_escape(tmp_path):
    write_json(tmp_path / "a.json", {"text": "\ud83d"})
    assert read_json(tmp_path / "a.json") == {"text": "\ud83d"}


def test_what_is_not_json_in_utf8_is_a_value_error(tmp_path):
    for content in (b"{", b"\xff"):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(ValueError):
            read_json(tmp_path / "a.json")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_whole(path, "old")

    def fail(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_text() == "old"


def test_a_directory_is_made_and_tried(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        check_writable(tmp_path / "file" / "b")
