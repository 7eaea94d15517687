"""Which checkpoint a run goes on from, damaged ones among them."""

import json
import shutil
from pathlib import Path

import pytest

import qlora
from training.checkpoint.find import get_last_checkpoint

DAMAGE = {
    "no manifest": lambda c: (c / "manifest.json").unlink(),
    "manifest cut short": lambda c: (c / "manifest.json").write_text('{"files": {'),
    "file missing": lambda c: (c / "optimizer.pt").unlink(),
    "file cut short": lambda c: (c / "optimizer.pt").write_bytes((c / "optimizer.pt").read_bytes()[:-1]),
    "manifest of another kind": lambda c: (c / "manifest.json").write_text('{"files": ["a"]}'),
    "byte flipped": lambda c: (c / "scheduler.pt").write_bytes(flip((c / "scheduler.pt").read_bytes())),
}


def flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoint_is_passed_over(damage, two_checkpoints, tmp_path, capsys):
    out = shutil.copytree(two_checkpoints, tmp_path / "out")
    assert get_last_checkpoint(out) == (str(out / "checkpoint-2"), False)
    DAMAGE[damage](out / "checkpoint-2")
    assert get_last_checkpoint(out) == (str(out / "checkpoint-1"), False)
    assert "checkpoint-2 is not whole" in capsys.readouterr().out


def test_no_checkpoint_at_all(tmp_path):
    assert get_last_checkpoint(tmp_path / "absent") == (None, False)
    assert get_last_checkpoint(tmp_path) == (None, False)


def copy_of_state(path: Path) -> dict:
    return json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))


def test_resume_from_a_named_checkpoint(make_base, command, two_checkpoints, tmp_path, capsys):
    named = str(two_checkpoints / "checkpoint-1")
    argv = command(make_base(), "--resume_from_checkpoint", named)
    assert qlora.main(argv) == 2  # its learning rate is in the saved optimizer, whatever the command says
    assert "--learning_rate 0.01 (was 0.0002) would have no effect" in capsys.readouterr().err
    assert qlora.main([*argv, "--learning_rate", "0.0002"]) == 0
    assert copy_of_state(tmp_path / "out")["global_step"] == 3
    empty = tmp_path / "empty"
    empty.mkdir()
    assert qlora.main(command(make_base(), "--resume_from_checkpoint", str(empty))) == 2
    assert "not a checkpoint" in capsys.readouterr().err


def test_no_resume_without_an_optimizer(make_base, command, tmp_path, capsys):
    argv = command(make_base(), "--save_only_model")
    assert qlora.main(argv) == 0
    (tmp_path / "out" / "completed").unlink()
    assert qlora.main([*argv, "--max_steps", "5"]) == 2
    assert "has no optimizer.pt (--save_only_model" in capsys.readouterr().err
