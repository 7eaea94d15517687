"""The start of the real command: refusals and help before torch is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from training.parsing import without_heavy_packages

REPOSITORY = Path(__file__).resolve().parent.parent


def start(*argv: str) -> subprocess.CompletedProcess:
    """`python qlora.py …` as people run it."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "qlora.py", *argv]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)


def run_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--lerning_rate", "1e-4"], ["--lerning_rate", "--learning_rate"]),
        (["--bits", "4", "--full_finetune"], ["--bits 4", "--full_finetune"]),
        (["--model_name_or_path", "./nowhere"], ["--model_name_or_path ./nowhere"]),
        (["--load_best_model_at_end"], ["--load_best_model_at_end"]),
    ],
)
def test_command_refuses_in_one_message(argv, parts):
    done = start(*argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("qlora.py: error: ") and "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr


def test_command_helps():
    done = start("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("--lora_r", "--evaluation_strategy", "--max_new_tokens", "examples:", "(default: 64)"):
        assert text in done.stdout


def test_checks_load_nothing_heavy_and_leave_nothing_behind():
    """After the check torch is not loaded, and the library that the run imports is the real one."""
    printed = run_python(
        """
import sys
from data.formats import DataError
from qlora import check_request
from training.arguments import ArgumentsError, check_command_line, parse
for argv in (["--lerning_rate", "1"], ["--full_finetune"], ["--dataset", "no.json"], ["--help"], []):
    try:
        check_request(argv)
        assert not argv, "not refused"
    except (ArgumentsError, DataError, SystemExit):
        pass
    found = {"torch", "peft", "bitsandbytes", "datasets", "accelerate", "transformers"} & sys.modules.keys()
    assert not found, (argv, found)
import transformers
assert transformers.is_torch_available()
import transformers.modeling_outputs  # uses torch as it is loaded
check_command_line(["--lerning_rate", "1"])  # the library is loaded: left to the full parse
print("done")
"""
    )
    assert printed.rstrip().endswith("done")


def test_light_import_restores_a_library_that_is_loaded():
    import transformers

    with without_heavy_packages():
        import transformers as other

        assert other is not transformers
    assert sys.modules["transformers"] is transformers
