"""The start of the real command: refusals and help before torch is loaded."""

import os
import re
import subprocess
import sys

import pytest

import qlora
from arguments.parser import NEEDED_MODULES
from tests.support.paths import REPOSITORY


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


def test_the_request_is_read_before_anything_heavy_loads():
    printed = run_python(
        """
import sys
from arguments.parser import check_installed, parse
from common.errors import RequestError
from data.sources.mixes import parse_names
for argv in (["--lerning_rate", "1"], ["--full_finetune"], ["--dataset", "no.json"], ["--help"], []):
    try:
        check_installed()
        parse_names(parse(argv).data)
        assert not argv, "not refused"
    except (RequestError, SystemExit):
        pass
    heavy = {"torch", "peft", "bitsandbytes", "datasets", "accelerate", "transformers"} & sys.modules.keys()
    assert not heavy, (argv, heavy)
print("done")
"""
    )
    assert printed.rstrip().endswith("done")


@pytest.mark.parametrize("module", ["accelerate", "jinja2"])
def test_a_package_that_is_not_installed_is_named_first(monkeypatch, capsys, module):
    """transformers would say "Could not import module 'set_seed'"."""
    monkeypatch.setitem(sys.modules, module, None)
    assert qlora.main(["--model_name_or_path", "nowhere", "--dataset", "nothing"]) == 2
    said = f"qlora.py: error: not installed: {module}. Run: pip install -r requirements.txt\n"
    assert capsys.readouterr() == ("", said)


def test_every_module_that_is_needed_is_pinned():
    pinned = re.findall(r"^([\w-]+)==", (REPOSITORY / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(NEEDED_MODULES) <= set(pinned)
