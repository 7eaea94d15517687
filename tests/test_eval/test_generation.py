"""predictions.jsonl, and the command that scores it and files of other tools."""

import json
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from common.labels import IGNORE_INDEX
from data.batches.collator import DataCollatorForCausalLM
from eval.generation import generation, predictions
from eval.generation.generation import main
from eval.generation.predictions import PREDICTION_FIELDS, line_metrics, prediction_lines, write_predictions
from eval.metrics.text import text_metrics
from tests.support.paths import REPOSITORY

ROWS = [
    {"prediction": "It is Paris.", "output": "It is Paris.", "fact": "capital", "prediction_tokens": 6},
    {"prediction": "It is Lyon.", "output": "It is Rome.", "fact": "capital", "prediction_tokens": 4},
    {"prediction": " euro", "output": "euro", "fact": "currency", "prediction_tokens": 2},
    {"prediction": "who knows", "fact": "currency", "prediction_tokens": 4},
]
ROWS = [row | {"prediction_stopped": row["prediction_tokens"] != 6} for row in ROWS]


@pytest.fixture
def collator(tiny_tokenizer):
    return DataCollatorForCausalLM(tiny_tokenizer, 64, 16, False, True)


def ids_of(tokenizer, *texts):
    """Generated ids as the trainer gives them: EOS where the text is marked with |, then padding and -100."""
    rows = []
    for text in texts:
        ids = tokenizer(text.rstrip("|"), add_special_tokens=False)["input_ids"]
        rows.append(ids + [tokenizer.eos_token_id, tokenizer.pad_token_id] * text.endswith("|"))
    longest = max(map(len, rows)) + 1
    return numpy.array([row + [IGNORE_INDEX] * (longest - len(row)) for row in rows])


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def answers(tmp_path):
    return write_lines(tmp_path / "answers.jsonl", ROWS)


# Writing


def test_lines_and_metrics(collator, tmp_path, capsys):
    rows = [
        {"input": "What is it? ", "output": "It is so. ", "id": 7, "length": 3},
        {"input": "And é?", "output": "no"},
        {"input": "It is so.", "output": "yes"},
        {"input": "What?", "output": ""},
    ]
    generated = ids_of(collator.tokenizer, "It is so.|", "yes", "It is so. yes|", "|")
    ends = [collator.tokenizer.eos_token_id]
    metrics = write_predictions(tmp_path / "p.jsonl", rows, generated, collator, ends)
    lines = read_lines(tmp_path / "p.jsonl")
    texts = ("It is so.", "yes", "It is so. yes")
    lengths = [len(collator.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    assert lines[0] == {
        "input": "What is it? ",
        "output": "It is so. ",
        "id": 7,
        "length": 3,
        "prediction_with_input": "What is it? It is so.",
        "prediction": "It is so.",
        "prediction_tokens": lengths[0] + 1,
        "prediction_stopped": True,
    }
    assert list(lines[0])[-4:] == list(PREDICTION_FIELDS)
    assert lines[1]["prediction_with_input"] == "And é?yes"
    assert (lines[1]["prediction_tokens"], lines[1]["prediction_stopped"]) == (lengths[1], False)
    # The prompt is cut off by tokens: an answer that repeats the prompt keeps it.
    assert lines[2]["prediction"] == "It is so. yes"
    assert (lines[3]["prediction"], lines[3]["prediction_tokens"]) == ("", 1)
    assert metrics["predict_references"] == 3
    assert metrics["predict_exact_match"] == pytest.approx(1 / 3)
    assert metrics["predict_stopped"] == pytest.approx(3 / 4)
    assert metrics["predict_new_tokens"] == pytest.approx((lengths[0] + 1 + lengths[1] + lengths[2] + 1 + 1) / 4)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("written", "prediction", "stopped"),
    [
        ("It is so.<|im_end|>", "It is so.", True),
        ("It is so. <|im_end|>\n<|im_start|>user\nWhy?<|im_end|>|", "It is so.", True),
        ("<|im_end|>|", "", True),
        ("It is <|im_en", "It is <|im_en", False),
        ("It is so.|", "It is so.", True),
    ],
)
def test_a_mark_that_is_text_ends_a_prediction_and_is_no_part_of_it(collator, written, prediction, stopped):
    """To a vocabulary without <|im_end|> it is letters, which decoding does not leave out."""
    collator.text_marks = ["<|end|>", "<|im_end|>"]
    row = {"input": "Is it?", "output": "It is so.", "messages": "[]"}
    [line] = prediction_lines([row | {"fields": "{}"}], ids_of(collator.tokenizer, written), collator, [1])
    assert (line["prediction"], line["prediction_stopped"]) == (prediction, stopped)
    assert line["prediction_with_input"].rstrip() == f"Is it?{prediction}".rstrip()
    assert line_metrics([line])["predict_exact_match"] == (prediction == row["output"])
    # A pair has no mark, whatever stands in its answer.
    [line] = prediction_lines(
        [row | {"messages": None, "fields": "{}"}], ids_of(collator.tokenizer, written), collator, [1]
    )
    assert line["prediction"] == written.rstrip("|")


def test_metrics_are_the_same_with_and_without_a_file_and_from_the_file(collator, tmp_path, capsys):
    rows = [{"input": "What is it? ", "output": "It is so."}, {"input": "And?", "output": "no, it is"}]
    generated = ids_of(collator.tokenizer, "It is so.|", "it is")
    ends = [collator.tokenizer.eos_token_id]
    written = write_predictions(tmp_path / "p.jsonl", rows, generated, collator, ends, prefix="predict")
    lines = prediction_lines(rows, generated, collator, ends)
    assert lines == read_lines(tmp_path / "p.jsonl")
    assert line_metrics(lines) == written
    assert written["predict_token_f1"] == pytest.approx((1 + 4 / 5) / 2)
    assert main([str(tmp_path / "p.jsonl"), "--output", str(tmp_path / "m.json")]) == 0
    [found] = json.loads((tmp_path / "m.json").read_text(encoding="utf-8")).values()
    assert {name: found["all"][name] for name in written} == written


def test_what_was_predicted_before_gives_way_and_is_named(collator, tmp_path, capsys):
    rows = [{"input": "a", "prediction": "old", "output": "yes", "prediction_tokens": "mine"}]
    generated = ids_of(collator.tokenizer, "yes|")
    write_predictions(tmp_path / "p.jsonl", rows, generated, collator, [collator.tokenizer.eos_token_id])
    [line] = read_lines(tmp_path / "p.jsonl")
    assert list(line) == ["input", "output", *PREDICTION_FIELDS]
    assert line["prediction"] == "yes" and line["prediction_tokens"] > 1
    assert "note: the rows have prediction, prediction_tokens already" in capsys.readouterr().out
    assert rows[0]["prediction"] == "old"


def test_half_a_character_in_a_field_is_written(collator, tmp_path):
    rows = [{"input": "a", "output": "yes", "note": "\ud83d"}]
    write_predictions(tmp_path / "p.jsonl", rows, ids_of(collator.tokenizer, "yes|"), collator, [1])
    assert read_lines(tmp_path / "p.jsonl")[0]["note"] == "\ud83d"


def test_answers_are_on_disk_before_they_are_scored(collator, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(predictions, "line_metrics", interrupt)
    with pytest.raises(KeyboardInterrupt):
        rows = [{"input": "a", "output": "yes"}]
        write_predictions(tmp_path / "p.jsonl", rows, ids_of(collator.tokenizer, "yes|"), collator, [1])
    assert read_lines(tmp_path / "p.jsonl")[0]["prediction"] == "yes"


def test_nothing_is_left_where_rows_and_predictions_differ_in_number(collator, tmp_path):
    with pytest.raises(ValueError):
        write_predictions(tmp_path / "p.jsonl", [], ids_of(collator.tokenizer, "a"), collator, [1])
    assert not list(tmp_path.iterdir())


# The command


def table(printed: str) -> dict[str, list[str]]:
    """Label → what stands behind it."""
    lines = [line.split("  ") for line in printed.splitlines() if "  " in line]
    return {label: [cell.strip() for cell in cells if cell.strip()] for label, *cells in lines}


def test_report_of_one_file(answers, capsys):
    assert main([answers]) == 0
    printed = table(capsys.readouterr().out)
    right = text_metrics([row["prediction"] for row in ROWS], [row.get("output") for row in ROWS])
    assert printed["answers"] == ["4"] and printed["with a reference"] == ["3"]
    assert printed["exact match"] == ["66.7", "[0.0, 100.0]"]
    assert printed["BLEU"] == [f"{100 * right['predict_bleu']:.1f}", "[20.4, 100.0]"]
    assert printed["chrF"][0] == f"{100 * right['predict_chrf']:.1f}"
    assert printed["distinct-1"] == [f"{100 * right['predict_distinct_1']:.1f}"]
    assert printed["stopped"][0] == "75.0"
    assert printed["new tokens"][0] == "4.0"


def test_several_files_and_groups(answers, tmp_path, capsys):
    other = write_lines(
        tmp_path / "other.jsonl", [{"prediction": "Rome", "output": "Rome", "fact": "city"}, {"prediction": "x"}]
    )
    output = tmp_path / "metrics.json"
    assert main([answers, other, "--by", "fact", "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    shown = table(printed)
    assert f"[1] {answers}\n[2] {other}\n" in printed
    assert shown["exact match"] == ["66.7", "[0.0, 100.0]", "100.0"]
    assert shown["stopped"][-1] == "–"  # the other file does not say
    assert shown["capital"][:3] == ["2", "2", "50.0"]
    assert shown["currency"][:3] == ["2", "1", "100.0"]
    assert printed.endswith(f"metrics: {output}\n")
    metrics = json.loads(output.read_text(encoding="utf-8"))
    assert metrics[answers]["by"]["currency"]["predict_new_tokens"] == 3
    assert metrics[answers]["by"]["currency"]["predict_stopped"] == 1
    assert metrics[answers]["all"]["predict_exact_match"] == pytest.approx(2 / 3)
    assert metrics[answers]["all"]["predict_exact_match_interval"] == [0, 1]
    low, high = metrics[answers]["all"]["predict_chrf_interval"]
    assert low < metrics[answers]["all"]["predict_chrf"] < high == 1
    assert len(metrics[answers]["by"]["capital"]["predict_bleu_interval"]) == 2
    assert metrics[other]["by"].keys() == {"city"}
    assert metrics[other]["without"]["predict_references"] == 0
    assert "predict_exact_match" not in metrics[other]["without"]
    assert "without" not in metrics[answers]
    assert [path.name for path in tmp_path.glob("*.partial")] == []


def test_groups_of_any_name_and_rows_without_one(tmp_path, capsys):
    facts = ["all", "all", "null", "(none)", None, "", float("nan"), 7, {"of": "Rome"}]
    path = write_lines(tmp_path / "a.jsonl", [{"prediction": "a", "fact": fact} for fact in facts])
    output = tmp_path / "scores.json"
    assert main([path, "--by", "fact", "--output", str(output)]) == 0
    shown = [line.split()[:2] for line in capsys.readouterr().out.split("by fact\n")[1].splitlines()[1:8]]
    assert shown[:3] == [["(none)", "1"], ["7", "1"], ["all", "2"]]
    assert shown[3:] == [["null", "1"], ['{"of":', '"Rome"}'], ["(none)", "3"], ["(all)", "9"]]
    [scores] = json.loads(output.read_text(encoding="utf-8")).values()
    counts = {group: scores["predict_samples"] for group, scores in scores["by"].items()}
    assert counts == {"(none)": 1, "7": 1, "all": 2, "null": 1, '{"of": "Rome"}': 1}
    assert (scores["without"]["predict_samples"], scores["all"]["predict_samples"]) == (3, 9)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("with_a_null", [False, True])
def test_predictions_that_went_through_pandas(answers, tmp_path, suffix, with_a_null):
    """Where one number is null, its column becomes one of floats."""
    import pandas

    rows = [{"prediction": "no", "output": "yes", "fact": "currency"}] if with_a_null else []
    write_lines(Path(answers), ROWS + rows)
    copy, scores = tmp_path / f"copy{suffix}", tmp_path / "scores.json"
    frame = pandas.read_json(answers, lines=True)
    (frame.to_csv if suffix == ".csv" else frame.to_parquet)(copy, index=False)
    assert main([answers, str(copy), "--by", "fact", "--output", str(scores)]) == 0
    found = json.loads(scores.read_text(encoding="utf-8"))
    assert found[str(copy)] == found[answers]
    assert found[answers]["by"]["capital"]["predict_new_tokens"] == 5
    assert found[answers]["by"]["capital"]["predict_stopped"] == 0.5


@pytest.mark.parametrize(
    "count, stopped, new_tokens, share",
    [
        ("12", "True", 12, 1),
        ("12.0", "FALSE", 12, 0),
        (3.0, False, 3, 0),
        (3, 1.0, 3, 1),
        ("", float("nan"), None, None),
    ],
)
def test_what_pandas_makes_of_numbers_and_truth(tmp_path, count, stopped, new_tokens, share):
    path = write_lines(tmp_path / "a.jsonl", [GOOD | {"prediction_tokens": count, "prediction_stopped": stopped}])
    assert main([path, "--output", str(tmp_path / "scores.json")]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))[path]["all"]
    assert (scores.get("predict_new_tokens"), scores.get("predict_stopped")) == (new_tokens, share)


def test_groups_of_numbers_that_pandas_made_floats(tmp_path, capsys):
    path = write_lines(tmp_path / "a.jsonl", [GOOD | {"level": level} for level in (3, 3.0, 3.5, None)])
    assert main([path, "--by", "level"]) == 0
    shown = table(capsys.readouterr().out)
    assert (shown["3"][0], shown["3.5"][0], shown["(none)"][0]) == ("2", "1", "1")


def test_groups_of_dates(tmp_path, capsys):
    import pandas

    days = pandas.to_datetime(["2024-05-01", "2024-05-02", None])
    pandas.DataFrame({"prediction": ["a", "b", "c"], "day": days}).to_parquet(tmp_path / "a.parquet")
    assert main([str(tmp_path / "a.parquet"), "--by", "day"]) == 0
    shown = table(capsys.readouterr().out)
    assert shown["2024-05-01 00:00:00"][0] == shown["2024-05-02 00:00:00"][0] == shown["(none)"][0] == "1"


@pytest.mark.parametrize(
    "other, said",
    [
        ([{"output": "Rome"}, {"output": "Paris"}], "1 of 2 references in {} not in {}"),
        ([{"output": "Paris"}, {"output": "Oslo"}, {"output": "x"}], "{} 2, {} 3 answers"),
        ([{"output": "Paris", "input": "X?"}, {"output": "Oslo", "input": "Norway?"}], "1 of 2 inputs in {} not in {}"),
        ([{"input": "X?"}, {"input": "Norway?"}], "1 of 2 inputs in {} not in {}"),
        # These are the same rows: in another order, without questions, without references.
        ([{"output": "Oslo", "input": "Norway?"}, {"output": "Paris", "input": "France?"}], None),
        ([{"output": "Paris"}, {"output": "Oslo"}], None),
        ([{"input": "France?"}, {"input": "Norway?", "output": " "}], None),
    ],
)
def test_files_of_other_rows_are_named(tmp_path, capsys, other, said):
    rows = [{"output": "Paris", "input": "France?"}, {"output": "Oslo", "input": "Norway?"}]
    paths = [
        write_lines(tmp_path / f"{name}.jsonl", [row | {"prediction": "Oslo"} for row in lines])
        for name, lines in (("one", rows), ("two", other))
    ]
    assert main(paths) == 0
    printed = capsys.readouterr().out
    note = f"note: these are not the same rows ({(said or '').format(*paths)}), so their numbers do not compare.\n"
    assert note in printed if said else "not the same rows" not in printed


def test_answers_without_references(tmp_path, capsys):
    path = write_lines(tmp_path / "a.jsonl", [{"prediction": "so so"}])
    assert main([path]) == 0
    printed = capsys.readouterr().out
    assert "BLEU" not in printed and table(printed)["distinct-1"] == ["50.0"]
    assert f"note: {path} has no text in 'output': --reference FIELD names what is right" in printed


def test_predictions_of_another_tool(shared_data, capsys):
    """252 answers of GPT-3 to the user-oriented instructions; BLEU and chrF2 as sacreBLEU 2.5.1 computes them."""
    path = shared_data / "self-instruct" / "davinci-self-instruct_predictions.jsonl"
    assert main([str(path), "--prediction", "response", "--reference", "target"]) == 0
    printed = capsys.readouterr().out
    assert f"generation {path} --prediction response --reference target --output scores.json" in printed
    printed, rows = table(printed), read_lines(path)
    right = sum(row["response"].strip() == row["target"].strip() for row in rows)
    assert printed["answers"] == ["252"]
    assert printed["exact match"][0] == f"{100 * right / 252:.1f}" == "6.0"
    assert (printed["BLEU"][0], printed["chrF"][0]) == ("7.1", "18.6")
    assert printed["ROUGE-L"][0] == "27.6"


GOOD = {"prediction": "a", "output": "a"}


@pytest.mark.parametrize(
    "lines, flags, said",
    [
        (
            [{"answer": "a"}],
            [],
            "line 1: column 'prediction' is missing or null\nfields there: answer; --prediction FIELD",
        ),
        ([GOOD, {"prediction": 3}], [], "line 2: column 'prediction' holds a number, not a text"),
        ([GOOD, {"prediction": "a", "output": ["a"]}], [], "line 2: column 'output' holds a list, not a text"),
        ([GOOD | {"prediction_tokens": "many"}], [], "prediction_tokens' holds 'many'; a whole number is allowed, or"),
        ([GOOD | {"prediction_tokens": 2.5}], [], "line 1: column 'prediction_tokens' holds 2.5; a whole number"),
        ([GOOD | {"prediction_tokens": True}], [], "'prediction_tokens' holds True; a whole number is allowed"),
        ([GOOD, GOOD | {"prediction_stopped": 2}], [], "line 2: column 'prediction_stopped' holds 2; true or false"),
        ([GOOD], ["--reference", "target"], "--reference target: no row of "),
        ([GOOD], ["--by", "fact"], "has this field; there are: output, prediction"),
        ([GOOD], ["--output", "no/such/m.json"], "there is no directory no/such; make it first"),
        ([GOOD], ["--output", "."], "--output . is a directory"),
    ],
)
def test_wrong_requests(tmp_path, capsys, lines, flags, said):
    assert main([write_lines(tmp_path / "a.jsonl", lines), *flags]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.out == ""
    assert ("--prediction FIELD" in captured.err) == ("column 'prediction' " in said or "'output'" in said)


def test_an_output_that_holds_something_else_stays(tmp_path, capsys):
    """Above all the answers themselves; scores of before make place."""
    answers, scores = Path(write_lines(tmp_path / "a.jsonl", [GOOD])), tmp_path / "scores.json"
    before = answers.read_bytes()
    assert main([str(answers), "--output", str(answers)]) == 2
    said = capsys.readouterr().err
    assert "a.jsonl holds something else than scores of this command; give another name" in said
    assert answers.read_bytes() == before
    assert main([str(answers), "--output", str(scores)]) == main([str(answers), "--output", str(scores)]) == 0
    scores.write_text('{"eval_loss": 1.5}')
    assert main([str(answers), "--output", str(scores)]) == 2


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no directory that root cannot write either")
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_read(answers, capsys, monkeypatch):
    monkeypatch.delattr(generation, "read_answers")
    assert main([answers, "--output", "/proc/scores.json"]) == 2
    captured = capsys.readouterr()
    assert "--output /proc/scores.json: no file can be made in /proc (" in captured.err and captured.out == ""


def test_scores_are_on_disk_before_they_are_printed(answers, tmp_path, monkeypatch, capsys):
    """As with `| head -2`."""

    def broken(text):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys.stdout, "write", broken)
    assert main([answers, "--output", str(tmp_path / "scores.json")]) == 1
    assert "Broken pipe" in capsys.readouterr().err
    [scores] = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8")).values()
    assert scores["all"]["predict_samples"] == 4


def test_files_that_cannot_be_read(tmp_path, capsys):
    assert main([str(tmp_path / "none.jsonl")]) == 2
    assert "No such file" in capsys.readouterr().err
    path = tmp_path / "cut.jsonl"
    path.write_text('{"prediction": "a"}\n{"prediction": "b\n', encoding="utf-8")
    assert main([str(path)]) == 2
    assert "cut.jsonl, line 2, column" in capsys.readouterr().err
    (tmp_path / "none.json").write_text("[]", encoding="utf-8")
    assert main([str(tmp_path / "none.json")]) == 2
    assert "no row in it" in capsys.readouterr().err


def test_command_is_light_and_works_alone(answers):
    """The module name of the README, as a process of its own, without the libraries that take seconds to import."""
    check = (
        "import runpy, sys\n"
        "try:\n    runpy.run_module('eval.generation', run_name='__main__')\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "print([name for name in ('torch', 'transformers', 'evaluate', 'datasets') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", check, answers], capture_output=True, text=True, cwd=REPOSITORY)
    assert run.stdout.endswith("--output scores.json\n[]\n"), run.stdout + run.stderr
