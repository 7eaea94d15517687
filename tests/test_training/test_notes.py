"""What a run says before it begins: machine, start, flags without effect, and what differs from the checkpoint."""

import pytest

from common.errors import CheckpointError
from tests.support.flags import arguments
from training.checkpoint.manifest import write_manifest
from training.checkpoint.same_run import HELD_OUT, recorded_flags, with_data
from training.notes import print_changes, print_data_changes, print_notes, unused_flags
from training.plan import Plan


@pytest.fixture(autouse=True)
def without_launcher(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)


def recorded(**flags) -> dict:
    """What a checkpoint of a command with these flags records."""
    model, data, training, _ = arguments(**flags)
    return recorded_flags(model, data, training, "adamw_torch_fused", processes=1)


@pytest.fixture
def checkpoint(tmp_path):
    """A function: what it records → the directory of a checkpoint."""

    def save(flags: dict) -> str:
        write_manifest(tmp_path, 1, flags)
        return str(tmp_path)

    return save


def plan_of(checkpoint: str | None = None, notes: tuple[str, ...] = (), **flags) -> Plan:
    return Plan(*arguments(use_cpu=True, **flags), checkpoint=checkpoint, notes=notes)


def unused(**flags) -> list[tuple[list[str], str]]:
    _, data, training, generation = arguments(use_cpu=True, **flags)
    return list(unused_flags(data, training, generation))


# ---- Flags without effect ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "named", "needed"),
    [
        ({"eval_dataset": "e.jsonl"}, "--eval_dataset e.jsonl", "--do_eval or --do_predict"),
        ({"predict_with_generate": True}, "--predict_with_generate", "--do_eval or --eval_strategy"),
        ({"max_mmlu_samples": 5}, "--max_mmlu_samples", "--do_mmlu_eval"),
        ({"torch_empty_cache_steps": 5}, "--torch_empty_cache_steps 5", "a GPU"),
        ({"run_name": "mine"}, "--run_name mine", "a tracker (--report_to)"),
        ({"do_predict": True, "temperature": 0.5}, "--temperature", "--do_sample or --num_beams above 1"),
    ],
)
def test_a_flag_without_effect_is_named_with_what_it_needs(flags, named, needed):
    assert unused(**flags) == [([named], needed)]


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"eval_dataset": "e.jsonl", "do_eval": True},
        {"eval_dataset": "e.jsonl", "do_predict": True},
        {"predict_with_generate": True, "do_eval": True},
        {"max_mmlu_samples": 5, "do_mmlu_eval": True},
        {"do_predict": True, "temperature": 0.5, "do_sample": True},
        {"temperature": 0.5},  # nothing is generated at all
    ],
)
def test_flags_with_an_effect_are_not_named(flags):
    assert unused(**flags) == []


def test_flags_of_one_kind_come_together():
    assert unused(max_mmlu_samples=5, mmlu_split="test") == [(["--mmlu_split", "--max_mmlu_samples"], "--do_mmlu_eval")]


# ---- Before the data is read ---------------------------------------------------------------------------------------


def test_machine_start_and_flags_are_said_a_line_each(capsys):
    print_notes(plan_of(notes=("going on from somewhere",), max_mmlu_samples=5), {})
    machine, start, flags = capsys.readouterr().out.splitlines()
    assert machine.startswith("note: running on the CPU")
    assert start == "going on from somewhere"
    assert flags == "note: --max_mmlu_samples: no effect without --do_mmlu_eval."


def test_changes_are_said_of_a_checkpoint_that_is_gone_on_from(checkpoint, capsys):
    path = checkpoint(recorded(seed=1))
    print_notes(plan_of(path), recorded(seed=2))
    assert f"other flags than {path} was made with: --seed 2 (was 1)" in capsys.readouterr().out
    print_notes(plan_of(), recorded(seed=2))
    assert "--seed" not in capsys.readouterr().out


def test_the_same_flags_are_not_mentioned(checkpoint, capsys):
    print_changes(arguments().training, checkpoint(recorded()), recorded())
    assert not capsys.readouterr().out


def test_without_training_only_what_decides_answers_is_said(checkpoint, capsys):
    flags = {"do_train": False, "do_predict": True, "eval_dataset": "new.jsonl"}
    path = checkpoint(recorded(seed=1, source_max_len=512))
    print_changes(arguments(**flags).training, path, recorded(**flags, seed=2, source_max_len=256))
    said = capsys.readouterr().out
    assert "--source_max_len 256 (was 512)" in said and "--seed" not in said


def test_a_change_without_effect_is_refused(checkpoint):
    with pytest.raises(CheckpointError, match="--learning_rate 0.1 .*would have no effect"):
        print_changes(arguments().training, checkpoint(recorded()), recorded(learning_rate=0.1))


@pytest.mark.parametrize("step", [{"do_eval": True}, {"do_predict": True}])
def test_rows_that_were_trained_on_are_not_evaluated_in_silence(step, checkpoint, capsys):
    path = checkpoint(recorded())  # of a training that held nothing out
    print_changes(arguments(**step).training, path, recorded(**step))
    assert "WARNING: rows that are evaluated now were trained on" in capsys.readouterr().out
    checkpoint(recorded() | {HELD_OUT: True})
    print_changes(arguments(**step).training, path, recorded(**step))
    assert "WARNING" not in capsys.readouterr().out


def test_rows_are_not_mentioned_where_none_are_evaluated(checkpoint, capsys):
    print_changes(arguments().training, checkpoint(recorded()), recorded(eval_dataset_size=5))
    assert "WARNING" not in capsys.readouterr().out


# ---- Once the data is read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "template", "trains", "parts"),
    [
        ("1", "a", True, []),
        ("2", "a", True, ["the rows of --dataset", "some may come twice"]),
        ("1", "b", True, ["the chat template", "some may come twice"]),
        ("2", "a", False, ["the rows of --dataset", "held-out rows may have been trained on"]),
    ],
)
def test_rows_and_template_that_changed_are_warned_of(rows, template, trains, parts, checkpoint, capsys):
    path = checkpoint(with_data(recorded(), "chat", "1", "a"))
    flags = {"do_train": trains, "do_eval": True}
    print_data_changes(plan_of(path, **flags), with_data(recorded(**flags), "chat", rows, template))
    said = capsys.readouterr().out
    assert ("WARNING: changed since" in said) is bool(parts) and all(part in said for part in parts)


def test_a_command_that_starts_anew_has_no_rows_to_compare(capsys):
    print_data_changes(plan_of(), with_data(recorded(), "chat", "1", "a"))
    assert not capsys.readouterr().out
