"""The benchmarks run and print one row for each way; how fast it is is not looked at."""

import json

import torch

from scripts.benchmark import main
from scripts.benchmark_mmlu import main as score_mmlu
from scripts.matrix_limit import operations
from tests.support.paths import REPOSITORY
from tests.support.rounding import ROUNDING


def rows_of(printed):
    """The cells of the rows of a Markdown table, its header first."""
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_training_is_measured(rows_file, make_base, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["scripts/benchmark.py", "--rows", "8"])
    sizes = ["--rows", "8", "--batch", "2", "--accumulation", "2", "--rounds", "1"]
    contestants = ["qlora.py", "plain script"]
    files = ["--json", str(tmp_path / "all.json"), "--png", str(tmp_path / "all.png")]
    work = ["--dataset", str(rows_file), "--model", str(make_base()), *sizes, *files]
    main([*work, "--only", *contestants, "--", "--use_cpu"])
    printed = capsys.readouterr().out
    assert "python -m scripts.benchmark --rows 8" in printed and " cores" in printed and "GFLOP/s" in printed
    header, *table = rows_of(printed)
    assert [row[0] for row in table] == contestants and table[1][3] == "1.00"
    assert all(float(row[1].replace(",", "")) > 0 and float(row[5]) > 0 and float(row[7]) > 0 for row in table)
    measured = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert [list(measured["runs"]), measured["work"]["rows"]] == [contestants, 8]
    assert measured["needed"]["supervised"] < measured["needed"]["computed"] <= measured["needed"]["tokens"]
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")


def test_answers_are_measured_and_compared(rows_file, make_base, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["scripts/benchmark.py", "--what", "predict"])
    sizes = ["--rows", "6", "--batch", "2", "--accumulation", "1", "--rounds", "1", "--new_tokens", "4"]
    contestants = ["qlora.py", "plain script in float32"]
    work = ["--what", "predict", "--dataset", str(rows_file), "--model", str(make_base()), *sizes]
    main([*work, "--only", *contestants, "--", "--use_cpu"])
    header, *table = rows_of(capsys.readouterr().out)
    assert header[1] == "rows/s" and header[-1] == "same answers"
    assert [(row[0], row[-1]) for row in table] == [(name, "6 of 6") for name in contestants]


def test_operations_are_those_of_a_count_by_torch(make_base):
    """Forward and backward of a padded batch without anything shared, attention aside."""
    from peft import LoraConfig, get_peft_model
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(make_base())
    ids = torch.zeros(2, 50, dtype=torch.long)
    rank = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = get_peft_model(model.requires_grad_(False), rank)
    tuned.enable_input_require_grads()
    with FlopCounterMode(display=False) as counter:
        tuned(input_ids=ids).logits.sum().backward()
    counts = {str(name): number for name, number in counter.get_flop_counts()["Global"].items()}
    report = {"train": {"tokens": 100, "supervised": {"tokens": 100}}, "batching": {}}
    assert operations(str(make_base()), report, lora_r=4).total == counts["aten.mm"]


def test_mmlu_benchmark_prints_a_table(make_base, capsys, monkeypatch):
    questions = str(REPOSITORY / "data" / "demo" / "mmlu.json")
    monkeypatch.setattr("sys.argv", ["scripts/benchmark_mmlu.py", "FILE", "--subjects", "1"])
    score_mmlu([questions, "--model", str(make_base()), "--subjects", "1", "--every", "7"])
    printed = capsys.readouterr().out
    assert "40 questions, prompts of" in printed and "peak memory" in printed
    table = rows_of(printed)
    assert [row[0] for row in table[1:]] == [
        *("one forward pass a question", "the same, head at the answer alone", "over shared prefixes")
    ]
    assert [row[1] for row in table[1:]] == ["6", "6", "40"]
    assert all(row[5] == "6 of 6" and float(row[4]) < ROUNDING for row in table[1:])
