"""The benchmarks run and print one row for each way; how fast it is is not looked at."""

from scripts.benchmark import main
from scripts.benchmark_mmlu import main as score_mmlu
from tests.support.paths import REPOSITORY
from tests.support.rounding import ROUNDING


def rows_of(printed):
    """The cells of the rows of a Markdown table, its header first."""
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_benchmark_prints_a_table(rows_file, make_base, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["scripts/benchmark.py", "--rows", "12"])
    sizes = ["--rows", "12", "--batch", "2", "--accumulation", "2", "--max_tokens", "300"]
    main(["--dataset", str(rows_file), "--model", str(make_base()), *sizes, "--", "--lora_r", "4"])
    printed = capsys.readouterr().out
    assert "python -m scripts.benchmark --rows 12" in printed and " cores" in printed
    table = rows_of(printed)
    assert [row[0] for row in table[1:]] == [
        *("random, fixed size", "split by length", "at most 300 tokens", "packed, 300 tokens")
    ]
    assert [row[3] for row in table[:2]] == ["ratio", "1.00"]
    padding = [float(row[1].rstrip("%")) for row in table[1:]]
    assert padding[0] > padding[1] > padding[3] == 0


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
