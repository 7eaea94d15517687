"""Two processes with half of the batch each do what one process does with all of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

import qlora

REPOSITORY = Path(__file__).resolve().parent.parent


def test_two_processes_train_evaluate_and_predict_as_one(make_base, command, tmp_path, adapter_of):
    flags = ["--train_sampling_strategy", "sequential", "--do_eval", "--do_predict", "--eval_dataset_size", "7"]
    flags += ["--per_device_eval_batch_size", "2", "--max_grad_norm", "0.3"]
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert qlora.main(command(make_base(), *flags, "--output_dir", str(alone))) == 0
    argv = command(make_base(), *flags, "--output_dir", str(together), "--gradient_accumulation_steps", "1")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "qlora.py", *argv]
    run = subprocess.run(
        launch, cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.count("summary") == 1  # the first process speaks for all
    one, two = adapter_of(alone), adapter_of(together)
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-5)
    assert (together / "predictions.jsonl").read_text() == (alone / "predictions.jsonl").read_text()
    losses = [json.loads((out / "metrics.json").read_text())["eval_loss"] for out in (alone, together)]
    assert abs(losses[0] - losses[1]) < 1e-5
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in (together / "checkpoint-3").iterdir()}
