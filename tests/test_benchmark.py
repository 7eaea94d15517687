"""The benchmark runs and prints one row for each way; what it measures is not looked at."""

from scripts.benchmark import main


def test_benchmark_prints_a_table(rows_file, make_base, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["scripts/benchmark.py", "--rows", "12"])
    sizes = ["--rows", "12", "--batch", "2", "--accumulation", "2", "--max_tokens", "300"]
    main(["--dataset", str(rows_file), "--model", str(make_base()), *sizes, "--", "--lora_r", "4"])
    printed = capsys.readouterr().out
    assert "python -m scripts.benchmark --rows 12" in printed and " cores" in printed
    table = [line.split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    assert [row[0] for row in table[1:]] == [
        *("| random, fixed size", "| split by length", "| at most 300 tokens", "| packed, 300 tokens")
    ]
    assert [row[3] for row in table[:2]] == ["ratio", "1.00"]
    padding = [float(row[1].rstrip("%")) for row in table[1:]]
    assert padding[0] > padding[1] > padding[3] == 0
