"""The command line as people use it, from end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import qlora

REPOSITORY = Path(__file__).resolve().parent.parent


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_whole_run_leaves_what_it_says(make_base, command, tmp_path, capsys):
    out = tmp_path / "out"
    assert qlora.main(command(make_base(), "--do_eval", "--do_predict", "--predict_with_generate")) == 0
    for name in ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md", "completed"):
        assert (out / name).is_file(), name
    metrics = json.loads((out / "metrics.json").read_text())
    for split in ("train", "eval", "predict"):
        assert json.loads((out / f"{split}_results.json").read_text()).items() <= metrics.items()
    assert metrics["train_steps"] == 3 and metrics["eval_samples"] == metrics["predict_samples"] == 4
    lines = read_lines(out / "predictions.jsonl")
    assert len(lines) == 4
    assert {"input", "output", "instruction", "prediction", "prediction_with_input"} == lines[0].keys()
    printed = capsys.readouterr().out
    assert "24 kept = 20 train + 4 held out" in printed and "summary" in printed
    assert f"{metrics['eval_loss']:.4f}" in printed
    card = (out / "README.md").read_text()
    assert "base_model: " in card and "--do_predict" in card and "[More Information Needed]" not in card
    assert (out / "adapter_model.safetensors").stat().st_mode & 0o777 == (out / "tokenizer.json").stat().st_mode & 0o777


def test_adapter_loads_with_plain_peft(make_base, make_args, command, tmp_path):
    """`PeftModel.from_pretrained(base, output_dir)` gives the logits that the tool itself evaluates with."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training.model import get_accelerate_model

    argv = command(make_base(), "--bits", "32")
    assert qlora.main(argv) == 0
    out = tmp_path / "out"
    tokenizer = AutoTokenizer.from_pretrained(out)
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    base = AutoModelForCausalLM.from_pretrained(make_base())
    with torch.no_grad():
        untuned = base(ids).logits
        theirs = PeftModel.from_pretrained(base, out).eval()(ids).logits
        ours = get_accelerate_model(make_args(argv)[0], str(out))[0].eval()(ids).logits
    torch.testing.assert_close(theirs, ours)
    assert (theirs - untuned).abs().max() > 1e-3


def test_base_model_is_predicted_with_where_nothing_is_tuned(make_base, command, tmp_path, capsys):
    assert qlora.main(command(make_base(), "--do_train", "False", "--do_eval")) == 0
    assert "this is the base model" in capsys.readouterr().out
    out = tmp_path / "out"
    assert not (out / "completed").exists() and not (out / "adapter_model.safetensors").exists()


def test_evaluation_between_steps_and_best_checkpoint(make_base, command, tmp_path):
    flags = ["--evaluation_strategy", "steps", "--eval_steps", "1", "--save_steps", "1", "--load_best_model_at_end"]
    assert qlora.main(command(make_base(), *flags)) == 0
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    losses = {entry["step"]: entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry}
    assert losses.keys() == {0, 1, 2, 3}
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["eval_loss"] == pytest.approx(min(losses[step] for step in (1, 2, 3)), rel=1e-6)


def test_bfloat16_on_the_cpu_warns_and_runs(make_base, command, capsys):
    assert qlora.main(command(make_base(), "--bf16", "--do_eval")) == 0
    assert "bf16 on a CPU" in capsys.readouterr().out


def test_fp16_without_a_gpu_is_refused(make_base, command, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert qlora.main(command(make_base(), "--fp16")) == 2
    assert "--fp16 without a CUDA GPU" in capsys.readouterr().err


def test_wrong_data_is_refused_before_the_model_loads(command, tmp_path, capsys, monkeypatch):
    import training.model

    def never(*args):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(training.model, "get_accelerate_model", never)
    assert qlora.main(command(tmp_path, "--dataset", str(tmp_path / "absent.jsonl"))) == 2
    error = capsys.readouterr().err
    assert error.startswith("qlora.py: error: ") and "absent.jsonl" in error and "Traceback" not in error


def test_mmlu_without_its_files_is_refused(make_base, command, capsys, monkeypatch, tmp_path):
    import eval.mmlu as mmlu

    monkeypatch.setattr(mmlu, "MMLU_DIRECTORY", tmp_path)
    assert qlora.main(command(make_base(), "--do_mmlu_eval")) == 2
    assert "five_shot_mmlu_val.json" in capsys.readouterr().err


def test_sampling_flags_without_sampling_are_said(make_base, command, capsys):
    flags = ["--do_train", "False", "--do_predict", "--temperature", "0.7"]
    assert qlora.main(command(make_base(), *flags)) == 0
    assert "--temperature: no effect without --do_sample" in capsys.readouterr().out


def test_sampling_and_beams_run(make_base, command, tmp_path):
    for flags in (["--do_sample", "--temperature", "0.7", "--top_p", "0.9"], ["--num_beams", "2"]):
        out = tmp_path / flags[0]
        argv = command(make_base(), "--do_train", "False", "--do_predict", *flags, "--output_dir", str(out))
        assert qlora.main(argv) == 0
        assert len(read_lines(out / "predictions.jsonl")) == 4


@pytest.mark.parametrize("argv, status, text", [
    (["--help"], 0, "--model_name_or_path"),
    (["--lerning_rate", "1e-4"], 2, "Did you mean --learning_rate?"),
    (["--bits", "4", "--full_finetune"], 2, "--full_finetune with --bits 4"),
])  # fmt: skip
def test_as_a_program(argv, status, text):
    run = subprocess.run([sys.executable, "qlora.py", *argv], cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == status
    assert text in (run.stdout if status == 0 else run.stderr)
    assert "Traceback" not in run.stderr


def test_real_model_on_real_rows(shared_data, tmp_path):
    """64 rows of Alpaca with a real 260K-parameter Llama: the loss falls, and everything is written."""
    flags = [
        "--max_train_samples",
        "64",
        "--eval_dataset_size",
        "16",
        "--source_max_len",
        "128",
        "--target_max_len",
        "64",
    ]
    flags += ["--max_steps", "8", "--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "1"]
    flags += ["--learning_rate", "2e-3", "--do_eval", "--do_predict", "--max_new_tokens", "4", "--disable_tqdm", "True"]
    model, rows = shared_data / "models" / "stories260K", shared_data / "alpaca" / "alpaca_data.json.gz"
    argv = ["--model_name_or_path", str(model), "--dataset", str(rows), "--output_dir", str(tmp_path), *flags]
    assert qlora.main(argv) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["eval_loss"] < metrics["eval_loss_before"] - 0.1
    assert len(read_lines(tmp_path / "predictions.jsonl")) == 16


def test_stopped_as_a_program(make_base, command, tmp_path):
    """SIGTERM to the process: it saves, exits with 143, and the same command goes on."""
    argv = [sys.executable, "qlora.py", *command(make_base(), "--max_steps", "100000", "--save_steps", "100000")]
    argv[argv.index("--disable_tqdm") + 1] = "True"
    argv += ["--logging_steps", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(argv, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if "'loss'" in line:
                process.terminate()
                break
        rest = process.stdout.read()
        assert process.wait(timeout=120) == 143
    assert "the same command goes on from" in rest
    assert len(list((tmp_path / "out").glob("checkpoint-*/manifest.json"))) == 1
