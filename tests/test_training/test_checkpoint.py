"""Resuming, completed runs, older layouts, and damage."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

import qlora
from tests.conftest import TRAINED
from training.checkpoint.find import get_last_checkpoint
from training.checkpoint.manifest import SavingError, write_manifest
from training.checkpoint.save import check_reads_back
from training.loop.callbacks import StopOnSignalCallback


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


@pytest.fixture(scope="module")
def two_checkpoints(make_base, rows_file, tmp_path_factory):
    """An output directory with checkpoint-1 and checkpoint-2 of a run that was not completed."""
    out = tmp_path_factory.mktemp("two") / "out"
    argv = ["--model_name_or_path", str(make_base()), "--dataset", str(rows_file), "--output_dir", str(out)]
    argv += ["--max_steps", "2", "--save_steps", "1", "--lora_r", "4", "--disable_tqdm", "True"]
    assert qlora.main(argv) == 0
    (out / "completed").unlink()
    return out


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


def test_other_adapter_shape_is_refused(make_base, rows_file, two_checkpoints, capsys):
    argv = ["--model_name_or_path", str(make_base()), "--dataset", str(rows_file), "--output_dir", str(two_checkpoints)]
    assert qlora.main([*argv, "--lora_r", "8", "--lora_modules", "q_proj", "--max_steps", "4"]) == 2
    message = capsys.readouterr().err
    assert "--lora_r 8 (saved: 4)" in message and "--lora_modules q_proj (saved: down_proj," in message


def test_changed_flags_are_said(make_base, rows_file, two_checkpoints, tmp_path, capsys):
    out = shutil.copytree(two_checkpoints, tmp_path / "out")
    argv = ["--model_name_or_path", str(make_base()), "--dataset", str(rows_file), "--output_dir", str(out)]
    assert qlora.main([*argv, "--lora_r", "4", "--max_steps", "3", "--seed", "7", "--disable_tqdm", "True"]) == 0
    assert "--seed 7 (was 42)" in capsys.readouterr().out
    few = ["--eval_dataset_size", "4", "--max_eval_samples", "1", "--max_new_tokens", "2"]
    assert qlora.main([*argv, "--do_train", "False", "--do_predict", "--seed", "7", "--source_max_len", "9", *few]) == 0
    said = capsys.readouterr().out
    assert "--source_max_len 9 (was 1024)" in said and "--seed 7" not in said  # the seed no longer matters


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


def test_only_sealed_checkpoints_push_older_ones_out(make_base, command, tmp_path):
    """The limit counts sealed checkpoints; a damaged one of a larger number, and a user's folders, are left alone."""
    out = tmp_path / "out"
    for name in ("checkpoint-notes", "checkpoint-900"):
        (out / name).mkdir(parents=True)
        (out / name / "file").write_text("mine")
    assert qlora.main(command(make_base(), "--max_steps", "4", "--save_steps", "1", "--save_total_limit", "2")) == 0
    kept = sorted(path.name for path in out.glob("checkpoint-*"))
    assert kept == ["checkpoint-3", "checkpoint-4", "checkpoint-900", "checkpoint-notes"]
    assert all((out / name / "manifest.json").is_file() for name in kept[:2])


def test_a_checkpoint_is_sealed_before_another_is_deleted(make_base, command, tmp_path, monkeypatch):
    """Whatever is deleted, a whole checkpoint lies there at that moment."""
    whole = []

    def watch(path, *args, **kwargs):
        whole.append(get_last_checkpoint(tmp_path / "out")[0])

    monkeypatch.setattr(shutil, "rmtree", watch)
    assert qlora.main(command(make_base(), "--max_steps", "3", "--save_steps", "1", "--save_total_limit", "1")) == 0
    assert whole == [str(tmp_path / "out" / f"checkpoint-{step}") for step in (2, 3, 3)]


def test_weights_that_are_not_finite_are_not_sealed(make_base, command, tmp_path, add_callback, capsys):
    class Spoil(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step == 2:
                next(p for p in model.parameters() if p.requires_grad).data.fill_(float("inf"))

    add_callback(Spoil())
    assert qlora.main(command(make_base(), "--save_steps", "1", "--logging_steps", "100")) == 1
    assert "no longer finite" in capsys.readouterr().err
    assert get_last_checkpoint(tmp_path / "out") == (str(tmp_path / "out" / "checkpoint-1"), False)


@pytest.mark.parametrize("way", [(), FULL])
def test_final_weights_are_read_back(way, make_base, command, tmp_path, monkeypatch, capsys):
    """A disk that holds something else than was written: exit status 1, and no `completed`."""
    import training.checkpoint.save as module

    save_state = module.check_reads_back

    def tamper(model, directory):
        from safetensors.torch import load_file, save_file

        path = next(directory.glob("*model.safetensors"))
        weights = load_file(path)
        name = sorted(weights)[0]
        save_file({**weights, name: weights[name] + 1}, path)
        save_state(model, directory)

    monkeypatch.setattr(module, "check_reads_back", tamper)
    assert qlora.main(command(make_base(), *way)) == 1
    assert "differs" in capsys.readouterr().err
    assert not (tmp_path / "out" / "completed").exists()


def test_second_signal_stops_at_once():
    stop = StopOnSignalCallback()
    stop.receive(signal.SIGINT, None)
    stop.receive(signal.SIGINT, None)  # a launcher passes on what the terminal sent too
    stop.received -= 2 * StopOnSignalCallback.GRACE
    with pytest.raises(KeyboardInterrupt):
        stop.receive(signal.SIGINT, None)


def test_more_epochs_go_on(make_base, command, tmp_path):
    """Steps are counted from the epochs that are asked for now, not from those of the checkpoint."""
    out = tmp_path / "out"
    argv = command(make_base(), "--max_steps", "-1", "--save_strategy", "epoch", "--max_train_samples", "8")
    assert qlora.main([*argv, "--num_train_epochs", "1"]) == 0
    assert copy_of_state(out)["global_step"] == 2
    (out / "completed").unlink()
    assert qlora.main([*argv, "--num_train_epochs", "2"]) == 0
    assert copy_of_state(out)["global_step"] == 4


def test_refused_request_changes_nothing(make_base, command, trained, tmp_path):
    """A typo after a completed run: `completed` and the metrics stay."""
    before = {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    named = ["--resume_from_checkpoint", str(trained / "checkpoint-3"), "--max_steps", "9"]
    assert qlora.main(command(make_base(), *named, "--learning_rate", "1")) == 2
    assert qlora.main(command(make_base(), *named, "--dataset", str(tmp_path / "absent.jsonl"))) == 2
    assert {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()} == before


def test_no_resume_without_an_optimizer(make_base, command, tmp_path, capsys):
    argv = command(make_base(), "--save_only_model")
    assert qlora.main(argv) == 0
    (tmp_path / "out" / "completed").unlink()
    assert qlora.main([*argv, "--max_steps", "5"]) == 2
    assert "has no optimizer.pt (--save_only_model" in capsys.readouterr().err


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


def test_rows_that_were_trained_on_are_not_passed_off_as_held_out(
    make_base, command, trained, tmp_path, rows_file, capsys
):
    predict = ["--do_train", "False", "--do_predict", "--max_eval_samples", "1", "--max_new_tokens", "1"]
    for more, warned in (([], False), (["--seed", "7"], True), (["--eval_dataset_size", "5"], True)):
        capsys.readouterr()
        assert qlora.main(command(make_base(), *predict, *more)) == 0
        assert ("rows that are evaluated now were trained on" in capsys.readouterr().out) == warned
    predict += ["--output_dir", str(tmp_path / "all")]
    assert qlora.main(command(make_base(), "--max_steps", "1", "--output_dir", str(tmp_path / "all"))) == 0
    other = shutil.copy(rows_file, tmp_path / "other.jsonl")
    same = [*predict, "--eval_dataset", str(rows_file)]
    for more, warned in ((predict, True), (same, True), ([*predict, "--eval_dataset", str(other)], False)):
        capsys.readouterr()
        assert qlora.main(command(make_base(), *more)) == 0
        assert ("rows that are evaluated now were trained on" in capsys.readouterr().out) == warned


def test_tuned_weights_on_another_base_are_refused(make_base, command, trained, tmp_path, capsys):
    other = shutil.copytree(make_base(), tmp_path / "other")
    assert qlora.main(command(other, "--do_train", "False", "--do_eval")) == 2
    assert "tuned from another base model" in capsys.readouterr().err


def test_manifest_names_every_file(two_checkpoints):
    checkpoint = two_checkpoints / "checkpoint-2"
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    assert manifest["files"].keys() == {path.name for path in checkpoint.iterdir()} - {"manifest.json"}
    assert manifest["global_step"] == 2 and manifest["flags"]["lora_r"] == 4
    expected = {"adapter_config.json", "adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"}
    assert expected | {"trainer_state.json", "tokenizer.json"} <= manifest["files"].keys()


def test_adapter_that_reads_back_different_is_an_error(make_base, make_args, command, tmp_path):
    from safetensors.torch import load_file, save_file

    from qlora import get_accelerate_model

    args, _, _ = make_args(command(make_base()))
    model, _ = get_accelerate_model(args, None)
    model.save_pretrained(tmp_path)
    check_reads_back(model, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    weights = load_file(path)
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1}, path)
    with pytest.raises(SavingError, match="differs"):
        check_reads_back(model, tmp_path)
    save_file({other: weight for other, weight in weights.items() if other != name}, path)
    with pytest.raises(SavingError, match="missing"):
        check_reads_back(model, tmp_path)


def test_manifest_of_nested_files(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_text("x")
    write_manifest(tmp_path, 1, {})
    files = json.loads((tmp_path / "manifest.json").read_text())["files"]
    assert files == {"inner/file": {"bytes": 1, "sha256": files["inner/file"]["sha256"]}}
