"""Every script is bash; what each recipe runs, and each command of the pages, is a command line of this tool."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.memory_table import SHAPES, Need, recipe_argv, table
from tests.support.paths import REPOSITORY

SCRIPTS = sorted((REPOSITORY / "scripts").glob("finetune_*.sh"))
PAGES = [REPOSITORY / folder / "README.md" for folder in (".", "data", "data/demo", "data/mmlu", "eval")]
# Programs of the pages beside qlora.py, and the module whose `parse` reads their flags.
PROGRAMS = {
    "-m eval.generation": "eval.generation",
    "-m eval.judge": "eval.judge",
    "-m eval.elo": "eval.elo",
    "data/mmlu/prepare.py": "data.mmlu.prepare",
}

# Reads a JSON list of argument lists; writes for each the parsed values, or the message that refuses it.
PARSE_ALL = """
import json, sys
from arguments.declare import ArgumentsError
from arguments.parser import parse

results = []
for argv in json.load(sys.stdin):
    try:
        asked = parse(argv)
        values = {name: value for part in asked for name, value in vars(part).items()} | asked.training.resolved()
        results.append(values | {"step_batching": asked.training.step_batching})
    except ArgumentsError as error:
        results.append(str(error))
json.dump(results, sys.stdout, default=str)
"""

# What the published recipes say, and what the file names promise.
EXPECTED = {
    "finetune_guanaco_7b": {"model_name_or_path": "huggyllama/llama-7b", "learning_rate": 2e-4, "lora_dropout": 0.1},
    "finetune_guanaco_13b": {"model_name_or_path": "huggyllama/llama-13b", "learning_rate": 2e-4, "lora_dropout": 0.05},
    "finetune_guanaco_33b": {"model_name_or_path": "huggyllama/llama-30b", "learning_rate": 1e-4, "lora_dropout": 0.05},
    "finetune_guanaco_65b": {"model_name_or_path": "huggyllama/llama-65b", "learning_rate": 1e-4, "lora_dropout": 0.05},
    "finetune_llama2_guanaco_7b": {"model_name_or_path": "meta-llama/Llama-2-7b-hf", "use_auth_token": True},
    "finetune_alpaca": {"model_name_or_path": "EleutherAI/pythia-12b", "dataset": "alpaca", "max_steps": 10000},
    "finetune_qwen3_0.6b": {"model_name_or_path": "Qwen/Qwen3-0.6B-Base"},
    "finetune_qwen3_4b": {"model_name_or_path": "Qwen/Qwen3-4B-Base"},
    "finetune_qwen3_8b": {"model_name_or_path": "Qwen/Qwen3-8B-Base"},
    "finetune_qwen3_32b": {"model_name_or_path": "Qwen/Qwen3-32B"},
    "finetune_llama3.1_8b": {"model_name_or_path": "meta-llama/Llama-3.1-8B", "use_auth_token": True},
    "finetune_llama3.1_70b": {"model_name_or_path": "meta-llama/Llama-3.1-70B", "use_auth_token": True},
}
EVERY = {"bits": 4, "quant_type": "nf4", "double_quant": True, "lora_modules": "all", "do_train": True, "do_eval": True}
EVERY |= {"eval_strategy": "steps", "step_batching": True}
GUANACO = {"dataset": "oasst1", "max_steps": 1875, "eval_steps": 187, "lora_r": 64, "lora_alpha": 16, "bf16": True}
GUANACO |= {"source_max_len": 16, "target_max_len": 512, "max_new_tokens": 32, "do_mmlu_eval": True, "seed": 0}
PRESENT = {"dataset": "alpaca-clean", "max_steps": -1, "num_train_epochs": 1, "bf16": True, "do_mmlu_eval": False}


def commands(text: str, program: str = "qlora.py") -> list[list[str]]:
    """Arguments of each `python PROGRAM …` command in `text`, which may go on over lines that end in a backslash.

    Whatever stands in front of it (`$`, time, variables) and after it (`;`, `&&`, `|`, a comment) is left out, and
    so is a command that is only sketched, with "…" in it.
    """
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        match = re.search(rf"(?:^|\s)(?:python3?|torchrun\s.*) {re.escape(program)}(\s.*)?$", line)
        if match is None or "…" in line or line.lstrip().startswith("#"):
            continue
        lexer = shlex.shlex(match[1] or "", posix=True, punctuation_chars=True)
        lexer.whitespace_split = True  # so that "q_proj,v_proj" stays one word
        words = list(lexer)
        end = next((i for i, word in enumerate(words) if set(word) <= set("();<>|&")), len(words))
        found.append(words[:end])
    return found


def fenced_blocks(page: Path) -> str:
    return "\n".join(re.findall(r"^```[^\n]*\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S))


def indented_lines(page: Path) -> list[str]:
    return re.findall(r"^    (\S.*)", page.read_text(encoding="utf-8"), re.M)


@pytest.fixture(scope="module")
def parsed() -> dict[str, list]:
    """Recipe or page name → for each of its commands the parsed values (a dict), or the refusal (a string)."""
    runs = {script.stem: [recipe_argv(script)] for script in SCRIPTS}
    runs |= {str(page.relative_to(REPOSITORY)): commands(fenced_blocks(page)) for page in PAGES}
    argvs = [(name, argv) for name, its_runs in runs.items() for argv in its_runs if "--help" not in argv]
    run = subprocess.run(
        [sys.executable, "-c", PARSE_ALL],
        input=json.dumps([argv for _, argv in argvs]),
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert run.returncode == 0, run.stderr
    results: dict[str, list] = {name: [] for name in runs}
    for (name, _), result in zip(argvs, json.loads(run.stdout), strict=True):
        results[name].append(result)
    return results


def test_commands_are_found_in_text():
    text = 'time python qlora.py --bits 4 \\\n  --dataset "my data.jsonl"  # a comment\n'
    text += (
        "python qlora.py --lora_modules q_proj,v_proj | tee log\n# python qlora.py --no\npython qlora.py … --seed 2\n"
    )
    text += "torchrun --nproc_per_node 2 qlora.py --bf16\n"
    text += "CUDA_VISIBLE_DEVICES=0 python qlora.py --adam_beta2 0.999 --use_auth\n"
    assert commands(text) == [
        ["--bits", "4", "--dataset", "my data.jsonl"],
        ["--lora_modules", "q_proj,v_proj"],
        ["--bf16"],
        ["--adam_beta2", "0.999", "--use_auth"],
    ]


def test_every_recipe_is_listed():
    assert {script.stem for script in SCRIPTS} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_recipe_parses(name, parsed):
    [values] = parsed[name]
    assert isinstance(values, dict), values
    guanaco, alpaca = "guanaco" in name, name == "finetune_alpaca"
    expected = EVERY | (GUANACO if guanaco else {} if alpaca else PRESENT) | EXPECTED[name]
    assert {key: values[key] for key in expected} == expected
    assert values["per_device_train_batch_size"] * values["gradient_accumulation_steps"] == 16
    # Evaluation holds logits too: with no more rows than training it never needs more memory.
    assert values["per_device_eval_batch_size"] <= values["per_device_train_batch_size"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_recipe_gives_each_flag_once(script):
    flags = [word for word in recipe_argv(script) if word.startswith("--")]
    assert len(flags) == len(set(flags)), "a shared flag is repeated: one of the two is not read"


def test_recipes_write_to_directories_of_their_own(parsed):
    directories = [parsed[script.stem][0]["output_dir"] for script in SCRIPTS]
    assert len(set(directories)) == len(directories)


def test_documented_commands_parse(parsed):
    refused = [f"{page}: {result}" for page in map(str, parsed) if page.endswith(".md") for result in parsed[page]]
    refused = [line for line in refused if not line.partition(": ")[2].startswith("{")]
    assert not refused, "\n".join(refused)


@pytest.mark.parametrize("program", PROGRAMS)
def test_documented_commands_of_other_programs_parse(program):
    text = "\n".join(fenced_blocks(page) for page in PAGES)
    text += "".join(f"\n{line}" for page in PAGES for line in indented_lines(page))
    argvs = [argv for argv in commands(text, program) if "--help" not in argv]
    assert argvs, f"no page shows {program}"
    for argv in argvs:
        importlib.import_module(PROGRAMS[program]).parse(argv)  # exits where it refuses


def test_documented_scripts_exist():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"\bscripts/[\w.-]+\.(?:sh|py)\b", text))
    assert not [name for name in sorted(named) if not (REPOSITORY / name).is_file()]


@pytest.mark.parametrize("script", sorted((REPOSITORY / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_is_bash(script):
    run = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_recipe_runs_from_anywhere_and_takes_more_flags(script, tmp_path):
    """With a `python` that shows its arguments: it starts in the repository root, and added flags come last."""
    shown = tmp_path / "python"
    shown.write_text('#!/bin/sh\npwd; for word; do printf "%s\\n" "$word"; done\n')
    shown.chmod(0o755)
    run = subprocess.run(
        ["bash", str(script), "--seed", "7", "two words"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    lines = run.stdout.splitlines()
    assert run.returncode == 0, run.stderr
    assert Path(lines[0]) == REPOSITORY and lines[1] == "qlora.py" and lines[-3:] == ["--seed", "7", "two words"]


def source_environment(directory: Path, **variables: str) -> subprocess.CompletedProcess:
    """Source scripts/environment.sh in `directory`, with the interpreter of this test as `python`."""
    return subprocess.run(
        ["bash", "-c", 'set -euo pipefail; source "$0"; echo done', str(REPOSITORY / "scripts" / "environment.sh")],
        capture_output=True,
        text=True,
        cwd=directory,
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables},
    )


def test_active_environment_that_lacks_a_package_is_left_alone(tmp_path):
    (tmp_path / "requirements.txt").write_text("pytest==1.0  # why\nno-such-package-anywhere==2.0\n")
    run = source_environment(tmp_path, VIRTUAL_ENV="/some/where")
    assert run.returncode == 2 and "done" not in run.stdout
    assert "lacks no-such-package-anywhere." in run.stderr and "pip install -r requirements.txt" in run.stderr
    assert f"pytest {pytest.__version__} (not 1.0)" in run.stdout
    assert not (tmp_path / ".venv").exists()


def test_environment_is_made_once(tmp_path):
    """With a .venv that was made from the same requirements.txt, nothing is installed."""
    for place in (tmp_path, tmp_path / ".venv"):
        place.mkdir(exist_ok=True)
        (place / "requirements.txt").write_text("pytest==1.0\n")
    (tmp_path / ".venv" / "bin").mkdir()
    (tmp_path / ".venv" / "bin" / "activate").write_text("echo activated\n")
    run = source_environment(tmp_path)
    assert run.returncode == 0, run.stderr
    assert "activated" in run.stdout and "installing" not in run.stdout and run.stdout.endswith("done\n")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_memory_comment_is_what_the_flags_give(script):
    assert Need(script).comment() in script.read_text(encoding="utf-8")


def test_memory_shapes_count_as_published():
    """Weights of the architectures, and for LLaMA 7B with r = 64 what trains and what is stored (two to a byte)."""
    counts = {name: shape.quantized() + shape.other() for name, shape in SHAPES.items()}
    assert counts["huggyllama/llama-7b"] == 6_738_415_616
    assert counts["meta-llama/Llama-3.1-8B"] == 8_030_261_248
    assert counts["meta-llama/Llama-3.1-70B"] == 70_553_706_496
    shape = SHAPES["huggyllama/llama-7b"]
    assert shape.lora(64) == 159_907_840
    assert shape.quantized() // 2 + shape.other() + shape.lora(64) == 3_660_320_768
    # The others to three digits: their norms and biases inside attention are left out.
    rounded = {"Qwen/Qwen3-0.6B-Base": 0.596, "Qwen/Qwen3-4B-Base": 4.02, "Qwen/Qwen3-8B-Base": 8.19}
    rounded |= {"Qwen/Qwen3-32B": 32.8, "EleutherAI/pythia-12b": 11.8, "huggyllama/llama-65b": 65.3}
    assert {name: float(f"{counts[name] / 1e9:.3g}") for name in rounded} == rounded


def test_memory_table_has_a_row_for_each_recipe():
    rows = table(SCRIPTS).splitlines()[2:]
    assert len(rows) == len(SCRIPTS) and {row.count("|") for row in rows} == {10}
