"""Checkpoints are sealed when they are whole, and final weights read back."""

import shutil

import pytest
from transformers import TrainerCallback

import qlora
from common.errors import SavingError
from training.checkpoint.find import get_last_checkpoint
from training.checkpoint.save import check_reads_back

FULL = ("--full_finetune", "--bits", "32", "--learning_rate", "0.001")


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
