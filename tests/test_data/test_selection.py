"""Which rows a run trains and evaluates on: splits that stay the same, mixes, samples, and what is said of them."""

import json
from pathlib import Path

import datasets
import pytest

from common.errors import DataError
from data.selection import Rows, Splits, first_rows, load_rows, mixed
from data.splits import split_indices
from tests.support.flags import arguments, data_request

ALONE = {"do_eval": False, "do_predict": False}


@pytest.fixture
def write(tmp_path):
    """A function: name and records → the path of a file of them."""

    def write_file(name: str, records: list[dict]) -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        return str(path)

    return write_file


@pytest.fixture
def file(write) -> str:
    """20 rows, whose outputs are a0 to a19."""
    return write("rows.jsonl", numbered("a", 20))


def numbered(letter: str, count: int) -> list[dict]:
    return [{"input": f"{letter}?", "output": f"{letter}{n}"} for n in range(count)]


def rows_of(dataset: str, **flags) -> Rows:
    """The rows of a run that trains, evaluates and predicts, with four rows held out, unless `flags` say otherwise."""
    asked = {"do_train": True, "do_eval": True, "do_predict": True, "eval_dataset_size": 4} | flags
    return load_rows(data_request(dataset=dataset, **asked))


def purposes(rows: Rows) -> list[tuple[str, int]]:
    return [(use.purpose, len(use.rows)) for use in rows.uses]


# ---- What is asked for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flags", "wanted"), [(ALONE, False), ({"do_eval": True}, True), ({"do_predict": True}, True)])
def test_rows_are_evaluated_where_losses_or_answers_are_asked_for(file, flags, wanted):
    assert data_request(dataset=file, **flags).wants_eval is wanted


def test_the_seed_of_the_data_goes_before_that_of_the_run(file):
    def held_out(**flags):
        return rows_of(file, **flags).eval["output"][:]

    assert held_out(seed=7) != held_out()
    assert held_out(seed=7) == held_out(data_seed=7) == held_out(seed=1, data_seed=7)
    assert held_out(data_seed=0) == held_out(seed=0)


# ---- Splits --------------------------------------------------------------------------------------------------------


def test_rows_are_held_out_of_the_data_set_where_no_others_are_given(file, capsys):
    rows = rows_of(file)
    train, held_out = split_indices(20, 4, seed=42)
    assert rows.train["output"][:] == [f"a{n}" for n in train]
    assert rows.eval["output"][:] == [f"a{n}" for n in held_out]
    assert purposes(rows) == [("both", 20)]
    assert "20 kept = 16 train + 4 held out (seed 42)" in capsys.readouterr().out


def test_training_alone_holds_nothing_out(file):
    rows = rows_of(file, **ALONE, eval_dataset_size=1024)
    assert rows.train["output"][:] == [f"a{n}" for n in range(20)]
    assert rows.eval is None and purposes(rows) == [("train", 20)]


def test_a_later_run_evaluates_the_rows_that_training_held_out(file):
    later = rows_of(file, do_train=False)
    assert later.train is None
    assert later.eval["output"][:] == rows_of(file).eval["output"][:]


def test_a_later_prediction_sees_them_too_where_rows_were_dropped(write):
    """A row without an answer is dropped whatever the run is for, or the split would be another one."""
    file = write("rows.jsonl", [{"input": "a?", "output": ""}, *numbered("a", 19)])
    later = rows_of(file, do_train=False, do_eval=False)
    assert later.eval["output"][:] == rows_of(file).eval["output"][:]


def test_questions_without_answers_are_predicted_from_a_file_of_their_own(write):
    file = write("rows.jsonl", [{"input": "a?", "output": ""}, *numbered("a", 3)])
    predicted = rows_of(file, eval_dataset=file, do_train=False, do_eval=False)
    assert predicted.eval["output"][:] == ["", "a0", "a1", "a2"]
    assert rows_of(file, eval_dataset=file, do_train=False).eval["output"][:] == ["a0", "a1", "a2"]


def test_eval_dataset_is_used_whole_and_training_too(file, write):
    rows = rows_of(file, eval_dataset=write("eval.jsonl", numbered("b", 2)))
    assert len(rows.train) == 20 and rows.eval["output"][:] == ["b0", "b1"]
    assert purposes(rows) == [("eval", 2), ("train", 20)]


def test_what_is_not_trained_on_is_not_read_beside_an_eval_dataset(tmp_path, write):
    unread = tmp_path / "unread.jsonl"
    unread.write_text("{")
    rows = rows_of(str(unread), eval_dataset=write("eval.jsonl", numbered("b", 2)), do_train=False)
    assert rows.eval["output"][:] == ["b0", "b1"] and purposes(rows) == [("eval", 2)]


def test_a_mix_to_evaluate_holds_rows_of_all_its_parts(file, write):
    others = f"{write('b.jsonl', numbered('b', 6))},{write('c.jsonl', numbered('c', 6))}"
    rows = rows_of(file, eval_dataset=others)
    assert sorted(rows.eval["output"]) == [f"{letter}{n}" for letter in "bc" for n in range(6)]


def test_more_rows_held_out_than_there_are_is_refused(file):
    with pytest.raises(DataError, match=f"--eval_dataset_size 20 holds 20 rows out, but {file} has 20"):
        rows_of(file, eval_dataset_size=20)


# ---- Named data sets -----------------------------------------------------------------------------------------------


def test_a_named_data_set_is_evaluated_on_the_split_that_it_brings(hub):
    hub.splits = {
        "train": [{"text": f"### Human: t{n}"} for n in range(5)],
        "test": [{"text": f"### Human: e{n}"} for n in range(3)],
    }
    rows = rows_of("oasst1")
    assert rows.train["output"][:] == [f"### Human: t{n}" for n in range(5)]
    assert rows.eval["output"][:] == [f"### Human: e{n}" for n in range(3)]


def test_a_named_data_set_without_eval_rows_is_split(hub):
    hub.splits = {"train": [{"prompt": f"p{n}", "completion": f"c{n}"} for n in range(9)]}
    rows = rows_of("self-instruct")
    assert (len(rows.train), len(rows.eval)) == (5, 4)
    assert hub.asked["revision"] == "refs/convert/parquet"
    assert hub.asked["token"] is None


def test_a_named_data_set_evaluates_a_file_by_its_validation_rows(hub, file):
    hub.splits = {name: [{"input": "i", "output": name}] for name in ("train", "validation", "test")}
    rows = rows_of(file, eval_dataset="longform")
    assert len(rows.train) == 20
    assert rows.eval["output"][:] == ["validation"]


# ---- Formats -------------------------------------------------------------------------------------------------------


def test_dataset_format_overrides_the_columns(write):
    file = write("a.jsonl", [{"instruction": "i", "input": f"x{n}", "output": "o"} for n in range(6)])
    assert rows_of(file, **ALONE).train[0]["input"].endswith("### Input:\nx0\n\n### Response: ")
    assert rows_of(file, **ALONE, dataset_format="input-output").train[0]["input"] == "x0"
    with pytest.raises(DataError, match="--dataset_format alpaka: unknown; did you mean alpaca"):
        rows_of(file, dataset_format="alpaka")


def test_questions_are_counted_that_a_prompt_format_lays_out(file, write):
    chat = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}] * 3
    asked = [{"instruction": "i", "output": f"o{n}"} for n in range(2)]
    both = rows_of(f"{write('chat.jsonl', chat)},{write('asked.jsonl', asked)}", **ALONE)
    assert len(both.train) == 5 and both.prompts == 2


# ---- Mixes ---------------------------------------------------------------------------------------------------------


def test_a_mix_takes_rows_by_weight_and_says_how_many(file, write, capsys):
    chat = [
        {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a"}]} for n in range(8)
    ]
    other = write("chat.jsonl", chat)
    rows = rows_of(f"{file}:0.75,{other}:0.25", **ALONE)
    assert sorted(Path(name).name for name in rows.train["file"]) == ["chat.jsonl"] * 7 + ["rows.jsonl"] * 20
    assert [use.weight for use in rows.uses] == [0.75, 0.25]
    assert rows.uses[1].rows["place"][:] == [1, 3, 4, 5, 6, 7, 8]  # by a seeded choice, not the first ones
    said = capsys.readouterr().out
    assert f"{file}: 20 of 20 rows, 74.1% of the mix" in said
    assert f"{other}: 7 of 8 rows, 25.9% of the mix" in said
    assert rows_of(f"{file}:3,{other}:1", **ALONE).train["input"][:] == rows.train["input"][:]


def test_a_mix_without_weights_is_all_rows_split_together(file, write):
    rows = rows_of(f"{file},{write('b.jsonl', numbered('b', 8))}")
    assert (len(rows.train), len(rows.eval)) == (24, 4)
    assert purposes(rows) == [("both", 20), ("both", 8)]


def test_the_first_rows_of_a_mix_are_of_all_its_parts(file, write):
    rows = rows_of(f"{file},{write('b.jsonl', numbered('b', 20))}", **ALONE)
    assert {output[0] for output in rows.train["output"][:10]} == {"a", "b"}
    again = mixed(rows.uses, seed=42)["output"][:]
    assert again == rows.train["output"][:] and again != mixed(rows.uses, seed=7)["output"][:]


def test_one_source_keeps_its_order_and_none_gives_no_rows(file):
    rows = rows_of(file, **ALONE)
    assert mixed(rows.uses, seed=42)["output"][:] == [f"a{n}" for n in range(20)]
    assert mixed((), seed=42) is None


# ---- What was read -------------------------------------------------------------------------------------------------


def test_the_digest_is_that_of_what_is_trained_on(file, write):
    other = write("b.jsonl", numbered("b", 5))
    digest = rows_of(file).digest
    assert rows_of(file, eval_dataset=other).digest == digest == rows_of(file, **ALONE).digest
    assert rows_of(other).digest != digest
    assert rows_of(f"{file},{other}").digest == rows_of(f"{other},{file}").digest != digest
    assert rows_of(file, eval_dataset=other, do_train=False).digest is None


def test_splits_that_are_there_come_by_name():
    rows = datasets.Dataset.from_list([{"output": "a"}])
    assert Splits().items() == []
    assert Splits(eval=rows).items() == [("eval", rows)]
    assert Splits(train=rows, eval=rows).items() == [("train", rows), ("eval", rows)]


def test_samples_are_the_first_rows_of_their_split(file, capsys):
    rows = rows_of(file)
    some = first_rows(rows, arguments(max_train_samples=5, max_eval_samples=2).data)
    assert some.train["output"][:] == rows.train["output"][:5]
    assert some.eval["output"][:] == rows.eval["output"][:2]
    assert "used: 5 of 16 train, 2 of 4 eval rows" in capsys.readouterr().out
    whole = first_rows(rows, arguments(max_eval_samples=500).data)
    assert (len(whole.train), len(whole.eval)) == (16, 4)


def test_nothing_is_said_of_samples_where_there_are_no_rows(capsys):
    assert first_rows(Rows(), arguments(max_train_samples=5).data) == Splits()
    assert not capsys.readouterr().out
