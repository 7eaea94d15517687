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
    monkeypatch.setattr("sys.argv", ["scripts/benchmark.py", "--rows", "8"])
    sizes = ["--rows", "8", "--batch", "2", "--accumulation", "2", "--rounds", "1"]
    contestants = ["qlora.py", "plain script"]
    main(["--dataset", str(rows_file), "--model", str(make_base()), *sizes, "--only", *contestants, "--", "--use_cpu"])
    printed = capsys.readouterr().out
    assert "python -m scripts.benchmark --rows 8" in printed and " cores" in printed
    header, *table = rows_of(printed)
    assert [row[0] for row in table] == contestants and table[1][3] == "1.00"
    assert all(float(row[1].replace(",", "")) > 0 and float(row[4]) > 0 for row in table)


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
