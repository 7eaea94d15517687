"""Two processes with half of the batch each do what one process does with all of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import qlora

REPOSITORY = Path(__file__).resolve().parent.parent


def run_two(argv: list[str]) -> str:
    """Run a command line in two processes; gives what they printed."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "qlora.py", *argv]
    run = subprocess.run(
        launch, cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


def assert_same_weights(one: dict, two: dict) -> None:
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-5)


def test_two_processes_train_evaluate_and_predict_as_one(make_base, command, tmp_path, adapter_of):
    flags = ["--train_sampling_strategy", "sequential", "--do_eval", "--do_predict", "--eval_dataset_size", "7"]
    flags += ["--per_device_eval_batch_size", "2", "--max_grad_norm", "0.3"]
    flags += ["--do_mmlu_eval", "--mmlu_dataset", str(REPOSITORY / "data" / "demo" / "mmlu.json")]
    flags += ["--max_mmlu_samples", "12"]
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert qlora.main(command(make_base(), *flags, "--output_dir", str(alone))) == 0
    printed = run_two(command(make_base(), *flags, "--output_dir", str(together), "--gradient_accumulation_steps", "1"))
    assert printed.count("summary") == 1  # the first process speaks for all
    assert_same_weights(adapter_of(alone), adapter_of(together))
    assert (together / "predictions.jsonl").read_text() == (alone / "predictions.jsonl").read_text()
    one, two = (json.loads((out / "metrics.json").read_text()) for out in (alone, together))
    for name in ("eval_loss", "mmlu_eval_loss", "mmlu_eval_accuracy", "predict_bleu"):
        assert two[name] == pytest.approx(one[name], abs=1e-5), name
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in (together / "checkpoint-3").iterdir()}


def test_two_processes_share_a_step(make_base, command, tmp_path, adapter_of):
    """Random order, steps of 8 rows, a last one of 3 in each of two epochs, other micro-batches in each process."""
    flags = ["--packing", "--max_tokens_per_batch", "150", "--max_train_samples", "19", "--logging_steps", "1"]
    flags += ["--max_steps", "-1", "--num_train_epochs", "2", "--learning_rate", "0.001", "--save_strategy", "no"]
    flags += ["--include_num_input_tokens_seen"]
    alone, together = tmp_path / "alone", tmp_path / "together"
    argv = command(make_base(), *flags, "--gradient_accumulation_steps", "4", "--output_dir", str(alone))
    assert qlora.main(argv) == 0
    run_two(command(make_base(), *flags, "--output_dir", str(together)))
    assert_same_weights(adapter_of(alone), adapter_of(together))
    states = [json.loads((out / "trainer_state.json").read_text()) for out in (alone, together)]
    losses = [[entry["loss"] for entry in state["log_history"] if "loss" in entry] for state in states]
    assert len(losses[0]) == 6 and losses[1] == pytest.approx(losses[0], rel=1e-4)
    # Not one row is trained on twice to fill up a share.
    assert states[0]["num_input_tokens_seen"] == states[1]["num_input_tokens_seen"]
