"""What a command will do, by its flags and by what its output directory holds."""

import json
from dataclasses import FrozenInstanceError

import pytest

from common.errors import CheckpointError, RequestError
from common.outputs import COMPLETED, TRAINER_STATE
from tests.support.flags import arguments
from training.checkpoint.manifest import write_manifest
from training.plan import Plan, make_plan, prepare_output, start_notes

LATER = {"do_train": False, "do_eval": True}


@pytest.fixture
def out(tmp_path):
    """An output directory that is there and empty."""
    path = tmp_path / "out"
    path.mkdir()
    return path


def plan(out, **flags) -> Plan:
    return make_plan(arguments(output_dir=str(out), **flags))


def save_checkpoint(out, step: int = 2, optimizer: bool = True, **flags) -> str:
    """Write what a plan looks at of a checkpoint."""
    folder = out / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    names = [TRAINER_STATE, "adapter_model.safetensors", *(["optimizer.pt", "scheduler.pt"] if optimizer else [])]
    for name in names:
        (folder / name).write_text("x")
    write_manifest(folder, step, flags)
    return str(folder)


def complete(out, **flags) -> None:
    """Leave what a plan looks at of a run that ended."""
    (out / "adapter_model.safetensors").write_text("x")
    (out / COMPLETED).write_text(json.dumps({"flags": flags}))


# ---- From where ----------------------------------------------------------------------------------------------------


def test_a_command_starts_with_the_base_where_there_is_nothing(out):
    fresh = plan(out / "new")
    assert fresh.checkpoint is None and fresh.training.do_train and fresh.has_work and fresh.tuned
    assert fresh.notes == ()
    assert fresh.training == arguments(output_dir=str(out / "new")).training


def test_a_command_goes_on_from_the_newest_checkpoint(out):
    save_checkpoint(out, 2)
    newest = save_checkpoint(out, 10)
    again = plan(out, do_eval=True)
    assert again.checkpoint == newest and again.training.do_train
    assert again.notes == (f"going on from {newest}",)
    assert again.training.eval_on_start is False  # the run did that when it started


def test_a_checkpoint_is_used_without_training(out):
    checkpoint = save_checkpoint(out, optimizer=False)
    later = plan(out, **LATER)
    assert (later.checkpoint, later.notes) == (checkpoint, (f"using {checkpoint}",))
    assert later.tuned and later.training.eval_on_start is None


def test_the_checkpoint_that_is_named_goes_before_what_the_directory_holds(out, tmp_path):
    save_checkpoint(out, 10)
    named = save_checkpoint(tmp_path / "other", 2)
    assert plan(out, resume_from_checkpoint=named).checkpoint == named
    assert plan(out, resume_from_checkpoint=named).notes == ()


def test_a_completed_run_is_trained_on_where_a_checkpoint_is_named(out):
    named = save_checkpoint(out)
    complete(out)
    again = plan(out, resume_from_checkpoint=named)
    assert (again.checkpoint, again.training.do_train, again.has_work) == (named, True, True)


def test_weights_without_an_optimizer_are_not_trained_on(out):
    save_checkpoint(out, optimizer=False)
    with pytest.raises(CheckpointError, match="has no optimizer.pt"):
        plan(out)


def test_a_named_directory_that_is_no_checkpoint_is_refused(out):
    with pytest.raises(CheckpointError, match="--resume_from_checkpoint .*not a checkpoint"):
        plan(out, resume_from_checkpoint=str(out))


# ---- What is left to do --------------------------------------------------------------------------------------------


def test_nothing_is_left_of_a_completed_run(out):
    complete(out)
    again = plan(out)
    assert not again.has_work and again.checkpoint == str(out)
    assert [note for note in again.notes if "holds a completed run: it is not trained further" in note]


@pytest.mark.parametrize("step", ["do_eval", "do_predict", "do_mmlu_eval"])
def test_a_completed_run_is_measured_and_not_trained(out, step):
    complete(out)
    again = plan(out, **{step: True})
    assert again.has_work and not again.training.do_train
    assert again.tuned and again.checkpoint == str(out)


def test_a_completed_run_that_is_measured_needs_no_note(out):
    complete(out)
    assert plan(out, **LATER).notes == ()


def test_the_base_as_it_is_is_said(out):
    base = plan(out, **LATER)
    assert not base.tuned and base.has_work
    [note] = base.notes
    assert "holds no tuned weights: this is the base model as it is" in note


def test_a_base_is_not_compared_with_itself(out):
    with pytest.raises(RequestError, match=f"--compare_base: {out} holds no tuned weights"):
        plan(out, compare_base=True, **LATER)
    assert plan(out, compare_base=True, do_eval=True).training.compare_base
    save_checkpoint(out)
    assert plan(out, compare_base=True, **LATER).training.compare_base


@pytest.mark.parametrize("trains", [True, False])
def test_a_run_is_pushed_where_it_trains(out, trains, monkeypatch):
    monkeypatch.setattr("arguments.training.check_push_request", lambda *flags: None)
    pushing = plan(out, push_to_hub=True, do_train=trains, do_eval=True)
    assert pushing.pushes is trains
    assert any("--push_to_hub: nothing is pushed" in note for note in pushing.notes) is not trains
    assert not plan(out).pushes


# ---- Flags as they are carried out ---------------------------------------------------------------------------------


def test_questions_are_laid_out_as_the_checkpoint_was_trained(out):
    assert plan(out).data.prompt_format is None
    save_checkpoint(out, prompt_format="plain")
    assert plan(out).data.prompt_format == "plain"
    assert plan(out, prompt_format="chat").data.prompt_format == "chat"


def test_a_plan_does_not_change(out):
    with pytest.raises(FrozenInstanceError):
        plan(out).checkpoint = "other"


@pytest.mark.parametrize(
    ("checkpoint", "completed", "trains", "said"),
    [
        (None, False, True, None),
        (None, False, False, "holds no tuned weights"),
        ("out/checkpoint-1", False, True, "going on from out/checkpoint-1"),
        ("out/checkpoint-1", False, False, "using out/checkpoint-1"),
        ("out", True, True, "holds a completed run"),
        ("out", True, False, None),
    ],
)
def test_what_is_said_of_where_a_command_starts(checkpoint, completed, trains, said):
    training = arguments(output_dir="out", do_train=trains, do_eval=True).training
    notes = start_notes(training, checkpoint, completed)
    assert len(notes) == (said is not None) and all(said in note for note in notes)


# ---- The output directory ------------------------------------------------------------------------------------------


def test_the_output_directory_is_made(tmp_path):
    prepare_output(str(tmp_path / "new" / "out"))
    assert list((tmp_path / "new" / "out").iterdir()) == []


def test_an_output_directory_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="--output_dir .*file/out cannot be written: Not a directory"):
        prepare_output(str(tmp_path / "file" / "out"))
