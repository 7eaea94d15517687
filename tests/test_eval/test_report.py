"""metrics.json over several commands: what a later one measures again replaces all of its kind; and the model card."""

import json
import re
import shlex
import shutil
from types import SimpleNamespace

import pytest

import qlora
from eval.report.metrics import save_metrics
from eval.report.report import code_block, code_span, next_command, refresh_model_card, write_model_card


@pytest.fixture
def save(tmp_path):
    """A function: split, metrics and whether the command trains → what metrics.json holds then."""
    trainer = SimpleNamespace(is_world_process_zero=lambda: True)

    def save_one(split, metrics, do_train=False):
        args = SimpleNamespace(output_dir=str(tmp_path), do_train=do_train, compare_base=False)
        save_metrics(trainer, split, dict(metrics), args)
        return json.loads((tmp_path / "metrics.json").read_text())

    return save_one


def test_a_later_measurement_leaves_nothing_of_its_kind(save):
    save("train", {"train_steps": 3, "eval_loss_before": 2.0}, do_train=True)
    first = {"eval_loss": 1.0, "eval_supervised_tokens": 9, "eval_chrf": 0.1, "base_eval_loss": 2.0}
    mmlu = {"mmlu_eval_accuracy": 0.3, "mmlu_eval_accuracy_virology": 0.3, "base_mmlu_eval_accuracy": 0.2}
    kept = save("eval", first | mmlu, do_train=True)
    assert kept == {"train_steps": 3, "eval_loss_before": 2.0, **first, **mmlu}
    alone = save("eval", {"mmlu_eval_accuracy": 0.5})  # MMLU of other questions
    assert alone == {"train_steps": 3, "eval_loss_before": 2.0, **first, "mmlu_eval_accuracy": 0.5}
    again = save("eval", {"eval_loss": 0.9, "eval_supervised_tokens": 9})
    assert again == {
        "train_steps": 3,
        "eval_loss_before": 2.0,
        "eval_loss": 0.9,
        "eval_supervised_tokens": 9,
        "mmlu_eval_accuracy": 0.5,
    }


def test_the_loss_before_training_goes_with_its_rows(save):
    save("train", {"eval_loss_before": 2.0}, do_train=True)
    assert "eval_loss_before" in save("eval", {"eval_loss": 1.0, "eval_supervised_tokens": 9}, do_train=True)
    assert "eval_loss_before" not in save("eval", {"eval_loss": 1.0, "eval_supervised_tokens": 8})


def test_predictions_of_other_rows_replace_those_of_earlier_ones(save):
    save("predict", {"predict_exact_match": 1.0, "base_predict_exact_match": 0.0, "predict_references": 3})
    assert save("predict", {"predict_references": 0}) == {"predict_references": 0}


def test_a_comparison_that_no_longer_holds_is_removed_and_said(save, tmp_path, capsys):
    (tmp_path / "comparison.json").write_text("{}")
    for _ in range(2):
        save("eval", {"eval_loss": 1.0})
    assert not (tmp_path / "comparison.json").exists()
    assert capsys.readouterr().out.count("comparison.json is removed") == 1


TABLE = b"# Mine, \xe9dit\xe9e\r\n## How good it is\n| metric | value |\n|---|---|\n"


def test_the_rows_of_the_card_are_replaced_and_nothing_else(save, tmp_path, capsys):
    """Whatever its encoding and line ends are."""
    card, below = tmp_path / "README.md", b"\r\nNot for production.\n| a | b |\n"
    card.write_bytes(TABLE + b"| eval_loss | 2 |\n| eval_samples | 9 |\n" + below)
    save("eval", {"eval_loss": 1.5})
    refresh_model_card(str(tmp_path))
    assert card.read_bytes() == TABLE + b"| eval_loss | 1.5 |\n" + below
    assert capsys.readouterr().out == "" and not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("page", ["# Mine\n", "## How good it is\nVery.\n"])
def test_a_page_without_our_table_is_left_as_it_is(save, tmp_path, page, capsys):
    save("eval", {"eval_loss": 1.0})
    (tmp_path / "README.md").write_text(page)
    refresh_model_card(str(tmp_path))
    assert (tmp_path / "README.md").read_text() == page
    assert "README.md has no table of metrics as this tool writes it, and stays as it is." in capsys.readouterr().out


def test_the_next_command_says_nothing_twice():
    args = SimpleNamespace(do_predict=False, do_eval=True, eval_dataset=None, do_train=False)
    command = ["--do_eval", "--do_train", "False"]
    assert next_command(args, command) == "python qlora.py --do_eval --do_train False --do_predict"
    args.do_train = True
    assert next_command(args, ["--do_eval"]) == "python qlora.py --do_eval --do_train False --do_predict"


# ---- The model card ------------------------------------------------------------------------------------------------

# Each ends a YAML value, a line of Markdown, code in it, or a Python string, or is another value in YAML.
ODD = (
    *(
        "a: b",
        "# no comment",
        'with "double" quotes',
        "with 'single' ones",
        "back\\slash",
        "ünï — 中文",
        "tick`s",
        "```",
    ),
    *("line\nbreak", "{x}", "- [link](x)", "a|b", "*", "~", "&amp;", "<b>", "%", "!tag", "null", "@", "key: [1, {"),
)


@pytest.fixture
def write_card(tmp_path):
    """A function: settings → (the card as huggingface_hub reads it, its code by language)."""
    from huggingface_hub import ModelCard

    def write(command=("--bits", "4"), datasets=(), **settings):
        defaults = {"full_finetune": False, "lora_r": 4, "lora_alpha": 16, "bits": 4, "quant_type": "nf4"}
        defaults |= {"prompt_format": None}
        defaults |= {"dataset": "rows.jsonl", "output_dir": str(tmp_path), "model_name_or_path": "org/base"}
        write_model_card(SimpleNamespace(**defaults | settings), list(command), list(datasets))
        card = ModelCard.load(tmp_path / "README.md")
        fences = re.findall(r"^(`{3,})(\w*)\n(.*?)\n\1$", card.text, re.MULTILINE | re.DOTALL)
        return card, {language: code for _, language, code in fences}

    return write


def test_the_card_of_a_model_of_the_hub(write_card):
    card, code = write_card(datasets=["tatsu-lab/alpaca"])
    metadata = {"base_model": "org/base", "datasets": ["tatsu-lab/alpaca"], "library_name": "peft"}
    assert card.data.to_dict() == metadata | {"pipeline_tag": "text-generation", "tags": ["qlora", "peft"]}
    assert card.text.startswith(
        "# LoRA adapter (r = 4, alpha = 16) of `org/base`\n\nTuned on `rows.jsonl` with the base "
    )
    assert "held in 4 bits (nf4)" in card.text and card.text.endswith("| metric | value |\n|---|---|\n")
    assert code[""] == "python qlora.py --bits 4"
    assert "--prompt_format" not in card.text
    assert "as `--prompt_format chat` lays them out." in write_card(prompt_format="chat")[0].text


def test_a_base_in_a_directory_is_no_name_on_the_hub(write_card, tmp_path):
    """Even where it looks like one; the hub would refuse the card."""
    card, _ = write_card(model_name_or_path=str(tmp_path))
    assert "base_model" not in card.data.to_dict() and "datasets" not in card.data.to_dict()
    assert f"`{tmp_path}`" in card.text and "with the base, a local directory, held in" in card.text


@pytest.mark.parametrize("odd", ODD)
def test_a_card_holds_for_any_path(write_card, odd):
    command = ["--model_name_or_path", odd, "--dataset", f"{odd}.jsonl", "--hub_token", "secret"]
    card, code = write_card(command, model_name_or_path=odd, dataset=f"{odd}.jsonl")
    assert card.data.base_model == ("null" if odd == "null" else None)  # the one that may be a name on the hub
    assert card.data.tags == ["qlora", "peft"]
    assert shlex.split(code[""]) == ["python", "qlora.py", *command[:-1], "***"]
    title, tuned = card.text.splitlines()[:3:2]
    for line, path in ((title, odd), (tuned, f"{odd}.jsonl")):
        shown = path if path.isprintable() else repr(path)
        spans = re.findall(r"(?<!`)(`+)(?!`) ?(.*?) ?(?<!`)\1(?!`)", line)
        assert [text for _, text in spans] == [shown]
    assert f"from_pretrained({json.dumps(odd, ensure_ascii=False)})" in code["python"]
    compile(code["python"], "card", "exec")


def test_a_path_that_is_no_text(write_card):
    """A byte that is not UTF-8 comes from the system as half of a surrogate pair."""
    card, code = write_card(dataset="rows\udcff.jsonl", model_name_or_path="base\udcff")
    assert "'rows\\udcff.jsonl'" in card.text
    compile(code["python"], "card", "exec")


def test_spans_and_blocks_of_code():
    assert [code_span(text) for text in ("a", "a`b", "`a", "``")] == ["`a`", "``a`b``", "`` `a ``", "``` `` ```"]
    assert code_block("a", "python") == "```python\na\n```"
    assert code_block("echo '````'") == "`````\necho '````'\n`````"


def test_the_code_of_a_card_loads_what_was_trained(make_base, rows_file, tmp_path, adapter_of, capsys):
    """From directories with quotes in their names; a later command brings the table up to date."""
    from huggingface_hub import ModelCard

    folder = tmp_path / """it's "odd": #1 `x` \\ ü"""
    base, out, rows = folder / "base", folder / "out", folder / "rows: 1.jsonl"
    shutil.copytree(make_base(), base)
    shutil.copy(rows_file, rows)
    argv = ["--model_name_or_path", str(base), "--dataset", str(rows), "--output_dir", str(out), "--bits", "32"]
    argv += ["--max_steps", "1", "--lora_r", "4", "--disable_tqdm", "True", "--eval_dataset_size", "4"]
    assert qlora.main(argv) == 0
    card = ModelCard.load(out / "README.md")
    assert card.data.to_dict().keys() == {"library_name", "pipeline_tag", "tags"}
    names = {}
    exec(re.search(r"```+python\n(.*?)\n```", card.text, re.DOTALL)[1], names)
    loaded = {name for name, _ in names["model"].named_parameters() if "lora_" in name}
    assert len(loaded) == len(adapter_of(out)) and names["tokenizer"].pad_token == "<pad>"
    assert qlora.main([*argv, "--do_train", "False", "--do_eval"]) == 0
    later = ModelCard.load(out / "README.md")
    assert "| eval_loss |" in later.text and "| eval_loss |" not in card.text
    assert later.data.to_dict() == card.data.to_dict() and "stays as it is" not in capsys.readouterr().out
