"""What a command may change of the run that it goes on with: what is said, and what is refused."""

import json
import shutil

import pytest

import qlora
from arguments.parser import parse
from training.checkpoint.same_run import recorded_flags


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


def test_refused_request_changes_nothing(make_base, command, trained, tmp_path):
    """A typo after a completed run: `completed` and the metrics stay."""
    before = {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    named = ["--resume_from_checkpoint", str(trained / "checkpoint-3"), "--max_steps", "9"]
    assert qlora.main(command(make_base(), *named, "--learning_rate", "1")) == 2
    assert qlora.main(command(make_base(), *named, "--dataset", str(tmp_path / "absent.jsonl"))) == 2
    assert {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()} == before


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


@pytest.fixture
def recorded(make_base, rows_file, two_checkpoints, tmp_path):
    """A function: flags that a checkpoint records, changed → the command that would go on from it."""
    out = shutil.copytree(two_checkpoints, tmp_path / "out")

    def change(**flags) -> list[str]:
        path = out / "checkpoint-2" / "manifest.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        assert flags.keys() <= manifest["flags"].keys()
        manifest["flags"] |= flags
        path.write_text(json.dumps(manifest), encoding="utf-8")
        argv = ["--model_name_or_path", str(make_base()), "--dataset", str(rows_file), "--output_dir", str(out)]
        return [*argv, "--max_steps", "3", "--lora_r", "4", "--disable_tqdm", "True"]

    return change


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr_scheduler_kwargs", {"min_lr": 1e-5}),
        ("lr_scheduler_type", "cosine"),
        ("optim_args", "momentum=0.9"),
        ("optim", "sgd"),
        ("weight_decay", 0.1),
    ],
)
def test_what_the_saved_optimizer_decides_cannot_be_changed(recorded, capsys, name, value):
    assert qlora.main(recorded(**{name: value})) == 2
    said = capsys.readouterr().err
    assert f"--{name} " in said and f"(was {value})" in said and "no effect" in said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("number of processes", 2, "number of processes 1 (was 2)"),
        ("gradient_accumulation_steps", 8, "--gradient_accumulation_steps 16 (was 8)"),
        ("max_grad_norm", 1.0, "--max_grad_norm 0.3 (was 1.0)"),
        ("torch_compile_backend", "inductor", "--torch_compile_backend None (was inductor)"),
        ("torch_compile_mode", "max-autotune", "--torch_compile_mode None (was max-autotune)"),
        ("liger_kernel_config", {"rope": True}, "--liger_kernel_config None (was {'rope': True})"),
        ("dataloader_in_order", False, "--dataloader_in_order True (was False)"),
        ("fsdp", True, "--fsdp None (was True)"),
        ("fsdp_config", {"version": 2}, "--fsdp_config None (was {'version': 2})"),
        ("deepspeed", "zero2.json", "--deepspeed None (was zero2.json)"),
    ],
)
def test_what_may_be_changed_is_said(recorded, capsys, name, value, said):
    assert qlora.main(recorded(**{name: value})) == 0
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("more", [["--load_best_model_at_end"], ["--lr_scheduler_type", "reduce_lr_on_plateau"]])
def test_when_it_is_evaluated_is_recorded_where_weights_depend_on_it(more):
    def flags(*argv: str) -> dict:
        model, data, training, _ = parse(["--eval_strategy", "steps", "--save_steps", "10", *argv])
        return recorded_flags(model, data, training, "adamw_torch_fused", processes=1)

    decisive = {"eval_steps", "save_steps", "eval_delay", "metric_for_best_model", "max_eval_samples"}
    assert decisive <= flags("--eval_steps", "5", *more).keys()
    assert decisive.isdisjoint(flags("--eval_steps", "5"))
    assert flags("--eval_steps", "5", *more) != flags("--eval_steps", "10", *more)
