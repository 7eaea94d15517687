"""The demo's report on made-up predictions."""

import json

import pytest

from scripts.demo_report import curve, main


def test_report_adds_both_scores(tmp_path, capsys):
    rows = [{"instruction": f"q{n}?", "output": f"a{n}.", "fact": "capital" if n % 2 else "coin"} for n in range(4)]
    answers = {"predictions_base": ["", "a1.", "x", "x"], "predictions": ["a0.", " a1. ", "a2.", "x"]}
    for name, texts in answers.items():
        lines = [json.dumps({**row, "prediction": text}) for row, text in zip(rows, texts, strict=True)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    history = [{"step": 0, "eval_loss": 3.0}, {"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    (tmp_path / "metrics.json").write_text('{"eval_loss": 0.5, "eval_loss_before": 3.0}')
    main(str(tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics == {"eval_loss": 0.5, "eval_loss_before": 3.0, "base_exact_match": 0.25, "tuned_exact_match": 0.75}
    printed = capsys.readouterr().out
    assert "2.000 █▁ 1.000" in printed and "wrong; right is: a3." in printed
    table = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.startswith(("c", "all "))}
    assert table == {
        "capital": ["2", "50.0%", "50.0%"],
        "coin": ["2", "0.0%", "100.0%"],
        "all": ["4", "25.0%", "75.0%"],
    }


@pytest.mark.parametrize("values, bars", [([1, 2], "▁█"), ([5, 5, 5], "▁▁▁"), ([3, 2, 1], "█▅▁")])
def test_curve(values, bars):
    assert curve(values) == bars
