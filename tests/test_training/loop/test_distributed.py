"""Two processes with half of the batch each do what one process does with all of it."""

import json
import os
import subprocess
import sys

import pytest

import qlora
from tests.support.paths import REPOSITORY
from tests.support.rounding import DESCENT, ROUNDING, assert_near

# Runs every command line of a JSON file in turn, as one start of the libraries takes longer than all the runs. The
# launcher's processes can meet once only: they part at the end of the last run.
LAUNCHED = """
import contextlib, gc, json, runpy, sys
from unittest import mock

gc.disable()
import training.loop.trainer
from transformers import LlamaForCausalLM

gc.freeze()  # as in conftest.py
gc.enable()

with open(sys.argv[1], encoding="utf-8") as file:
    runs = json.load(file)
for name, argv in runs.items():
    if name == "mean losses":
        LlamaForCausalLM.accepts_loss_kwargs = False
    sys.argv = ["qlora.py", *argv]
    part = contextlib.nullcontext() if name == list(runs)[-1] else mock.patch("torch.distributed.destroy_process_group")
    with part:
        try:
            runpy.run_path("qlora.py", run_name="__main__")
        except SystemExit as end:
            assert end.code == 0, (name, end.code)
"""
# name → flags; those of one process alone; those of two together.
RUNS = {
    "whole run": (
        [
            *("--train_sampling_strategy", "sequential", "--do_eval", "--do_predict", "--eval_dataset_size", "7"),
            *("--per_device_eval_batch_size", "2", "--max_grad_norm", "0.3", *DESCENT, "--do_mmlu_eval"),
            *("--mmlu_dataset", str(REPOSITORY / "data" / "demo" / "mmlu.json"), "--max_mmlu_samples", "12"),
        ],
        [],
        ["--gradient_accumulation_steps", "1"],
    ),
    # Random order, steps of 8 rows, a last one of 3 in each of two epochs, other micro-batches in each process.
    "shared steps": (
        [
            *("--packing", "--max_tokens_per_batch", "150", "--max_train_samples", "19", "--logging_steps", "1"),
            *("--max_steps", "-1", "--num_train_epochs", "2", "--save_strategy", "no", *DESCENT),
            "--include_num_input_tokens_seen",
        ],
        ["--gradient_accumulation_steps", "4"],
        [],
    ),
    # The model of one process alone takes sums of losses.
    "mean losses": (
        ["--max_train_samples", "18", "--logging_steps", "1", "--save_strategy", "no", "--max_grad_norm", "0"],
        ["--per_device_train_batch_size", "16", "--gradient_accumulation_steps", "1"],
        ["--per_device_train_batch_size", "4"],
    ),
}


@pytest.fixture(scope="module")
def runs(make_base, command_to, tmp_path_factory):
    """Directory with every run, `name/alone` and `name/together`, and what the two processes printed."""
    folder = tmp_path_factory.mktemp("runs")
    together = {}
    for name, (flags, one, two) in RUNS.items():
        assert qlora.main(command_to(folder / name / "alone", make_base(), *flags, *one)) == 0
        together[name] = command_to(folder / name / "together", make_base(), *flags, *two)
    (folder / "launched.py").write_text(LAUNCHED, encoding="utf-8")
    (folder / "runs.json").write_text(json.dumps(together), encoding="utf-8")
    run = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
            *(str(folder / "launched.py"), str(folder / "runs.json")),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
    )
    assert run.returncode == 0, run.stderr[-12000:]
    return folder, run.stdout


@pytest.fixture
def both(runs):
    """A function: name of a run, and of a file → what that of one process and that of two hold."""

    def read(name: str, file: str) -> list[dict]:
        return [json.loads((runs[0] / name / way / file).read_text()) for way in ("alone", "together")]

    return read


def logged(state: dict, *names: str) -> list[list[float]]:
    """What was logged of each step."""
    return [[entry[name] for name in names] for entry in state["log_history"] if "loss" in entry]


def test_two_processes_train_evaluate_and_predict_as_one(runs, both, adapter_of):
    folder, printed = runs
    assert printed.count("\nsummary\n") == len(RUNS)  # the first process speaks for all
    alone, together = (folder / "whole run" / way for way in ("alone", "together"))
    assert_near(adapter_of(together), adapter_of(alone))
    assert (together / "predictions.jsonl").read_text() == (alone / "predictions.jsonl").read_text()
    one, two = both("whole run", "metrics.json")
    for name in ("eval_loss", "mmlu_eval_loss", "mmlu_eval_accuracy", "predict_bleu"):
        assert two[name] == pytest.approx(one[name], rel=ROUNDING), name
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in (together / "checkpoint-3").iterdir()}


def test_two_processes_share_a_step(runs, both, adapter_of):
    assert_near(*(adapter_of(runs[0] / "shared steps" / way) for way in ("together", "alone")))
    one, two = both("shared steps", "trainer_state.json")
    assert len(logged(one, "loss")) == 6
    assert_near(logged(two, "loss"), logged(one, "loss"))
    # Not one row is trained on twice to fill up a share.
    assert one["num_input_tokens_seen"] == two["num_input_tokens_seen"]


def test_two_processes_learn_by_tokens_from_mean_losses(both):
    """A model that takes means of losses, in two processes, learns as one that takes their sums, in one."""
    one, two = (logged(state, "loss", "grad_norm") for state in both("mean losses", "trainer_state.json"))
    assert len(one) == 3
    assert_near(two, one)
