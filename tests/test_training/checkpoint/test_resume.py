"""A run that was stopped, completed, or written by an older tool, and what the same command does with it."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch

import qlora
from tests.conftest import TRAINED
from training.checkpoint.find import get_last_checkpoint


def copy_of_state(path: Path) -> dict:
    return json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))


FULL = ("--full_finetune", "--bits", "32", "--learning_rate", "0.001")


# name → step after which the run is stopped, of three in an epoch; flags
RESUMED_WAYS = {
    "QLoRA": (4, ["--lora_dropout", "0.1"]),
    "QLoRA, 8-bit Adam": (3, ["--lora_dropout", "0.1", "--adam8bit"]),
    "full": (4, [*FULL]),
}


@pytest.mark.parametrize("way", RESUMED_WAYS)
def test_stopped_and_resumed_is_undisturbed(way, make_base, command, tmp_path, adapter_of, stop_after, monkeypatch):
    """7 steps = SIGTERM in between + the same command again, bit for bit: dropout, shuffling, length grouping."""
    stop, flags = RESUMED_WAYS[way]
    flags = ["--max_train_samples", "12", "--max_steps", "7", "--group_by_length", "--do_eval", *flags]
    flags += ["--logging_steps", "1"]
    runs = {name: command(make_base(), *flags, "--output_dir", str(tmp_path / name)) for name in ("one", "two")}
    assert qlora.main(runs["one"]) == 0
    with monkeypatch.context() as context:
        stop_after(stop)
        assert qlora.main(runs["two"]) == 128 + signal.SIGTERM
        context.undo()
    monkeypatch.undo()
    assert get_last_checkpoint(tmp_path / "two") == (str(tmp_path / "two" / f"checkpoint-{stop}"), False)
    assert not (tmp_path / "two" / "adapter_model.safetensors").exists()
    assert qlora.main(runs["two"]) == 0
    one, two = adapter_of(tmp_path / "one"), adapter_of(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    losses = [[e.get("loss") for e in copy_of_state(tmp_path / name)["log_history"] if "loss" in e] for name in runs]
    assert len(losses[0]) == 7 and losses[0] == losses[1]


def test_same_command_gives_the_same_adapter(make_base, command, trained, tmp_path, adapter_of):
    assert qlora.main(command(make_base(), *TRAINED, "--output_dir", str(tmp_path / "again"))) == 0
    one, two = adapter_of(trained), adapter_of(tmp_path / "again")
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture
def fully_tuned(make_base, command, tmp_path):
    """As `trained`, with every weight of the model trained."""
    assert qlora.main(command(make_base(), *FULL, "--do_eval")) == 0
    return tmp_path / "out"


@pytest.mark.parametrize(("kind", "way"), [("trained", TRAINED), ("fully_tuned", FULL)])
def test_completed_run_trains_no_more_and_uses_its_tuned_weights(kind, way, make_base, command, capsys, request):
    out = request.getfixturevalue(kind)
    first = json.loads((out / "metrics.json").read_text())
    weights = next(path for path in out.glob("*model.safetensors")).read_bytes()
    capsys.readouterr()
    assert qlora.main(command(make_base(), *way, "--do_eval", "--do_predict")) == 0
    second = json.loads((out / "metrics.json").read_text())
    assert "completed run" in capsys.readouterr().out
    assert next(path for path in out.glob("*model.safetensors")).read_bytes() == weights
    assert second["eval_loss"] == first["eval_loss"] != first["eval_loss_before"]
    assert {name for name in first if "train" in name} <= second.keys()


def test_finished_steps_without_the_final_adapter(make_base, command, trained, adapter_of):
    """Killed between the last checkpoint and the end: no step is trained twice, the adapter is the checkpoint's."""
    for name in ("completed", "adapter_model.safetensors", "trainer_state.json"):
        (trained / name).unlink()
    assert qlora.main(command(make_base(), *TRAINED)) == 0
    assert copy_of_state(trained)["global_step"] == 3
    saved, last = adapter_of(trained), adapter_of(trained / "checkpoint-3")
    assert all(torch.equal(saved[name], last[name]) for name in saved)


def as_published(checkpoint: Path) -> None:
    """Lay a checkpoint out as the published script did: the adapter in a folder of its own, and no manifest."""
    (checkpoint / "adapter_model").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.move(checkpoint / name, checkpoint / "adapter_model" / name)
    (checkpoint / "manifest.json").unlink()


def test_older_layout_is_read(make_base, command, trained, adapter_of, capsys):
    """`checkpoint-N/adapter_model/`, as the published script left it, is trained on as one adapter."""
    checkpoint = trained / "checkpoint-3"
    as_published(checkpoint)
    for name in ("completed", "adapter_model.safetensors"):
        (trained / name).unlink()
    before = adapter_of(checkpoint / "adapter_model")
    capsys.readouterr()
    assert qlora.main(command(make_base(), *TRAINED, "--max_steps", "4")) == 0
    assert f"going on from {checkpoint}" in capsys.readouterr().out
    after = adapter_of(trained)
    assert before.keys() == after.keys()
    assert not any(torch.equal(before[name], after[name]) for name in before)
    assert (trained / "checkpoint-4" / "adapter_model.safetensors").is_file()
    assert not (trained / "checkpoint-4" / "adapter_model").exists()


def test_more_epochs_go_on(make_base, command, tmp_path):
    """Steps are counted from the epochs that are asked for now, not from those of the checkpoint."""
    out = tmp_path / "out"
    argv = command(make_base(), "--max_steps", "-1", "--save_strategy", "epoch", "--max_train_samples", "8")
    assert qlora.main([*argv, "--num_train_epochs", "1"]) == 0
    assert copy_of_state(out)["global_step"] == 2
    (out / "completed").unlink()
    assert qlora.main([*argv, "--num_train_epochs", "2"]) == 0
    assert copy_of_state(out)["global_step"] == 4


def test_completed_is_taken_back_while_training_goes_on(make_base, command, trained, stop_after):
    stop_after(5)
    named = str(trained / "checkpoint-3")
    assert qlora.main(command(make_base(), *TRAINED, "--resume_from_checkpoint", named, "--max_steps", "9")) == 143
    assert get_last_checkpoint(trained) == (str(trained / "checkpoint-5"), False)


def test_completed_run_of_the_published_script(make_base, command, trained):
    """`completed` in the root, adapters only in `checkpoint-N/adapter_model/`: predicted with, not trained further."""
    tuned = json.loads((trained / "metrics.json").read_text())["eval_loss"]
    checkpoint = trained / "checkpoint-3"
    as_published(checkpoint)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (trained / name).unlink()
    (trained / "completed").write_text("")
    assert get_last_checkpoint(trained) == (str(checkpoint), True)
    assert qlora.main(command(make_base(), "--do_eval")) == 0
    assert json.loads((trained / "metrics.json").read_text())["eval_loss"] == tuned
