"""The model card: it holds for any path, loads what was trained, and its table is kept up to date."""

import json
import re
import shlex
import shutil

import pytest

import qlora
from eval.report.card import CardFacts, code_block, code_span, refresh_model_card, write_model_card
from eval.report.metrics import save_results

TABLE = b"# Mine, \xe9dit\xe9e\r\n## How good it is\n| metric | value |\n|---|---|\n"


def test_the_rows_of_the_card_are_replaced_and_nothing_else(tmp_path, capsys):
    """Whatever its encoding and line ends are."""
    card, below = tmp_path / "README.md", b"\r\nNot for production.\n| a | b |\n"
    card.write_bytes(TABLE + b"| eval_loss | 2 |\n| eval_samples | 9 |\n" + below)
    save_results(str(tmp_path), "eval", {"eval_loss": 1.5})
    refresh_model_card(str(tmp_path))
    assert card.read_bytes() == TABLE + b"| eval_loss | 1.5 |\n" + below
    assert capsys.readouterr().out == "" and not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("page", ["# Mine\n", "## How good it is\nVery.\n"])
def test_a_page_without_our_table_is_left_as_it_is(tmp_path, page, capsys):
    save_results(str(tmp_path), "eval", {"eval_loss": 1.0})
    (tmp_path / "README.md").write_text(page)
    refresh_model_card(str(tmp_path))
    assert (tmp_path / "README.md").read_text() == page
    assert "README.md has no table of metrics as this tool writes it, and stays as it is." in capsys.readouterr().out


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
        facts = {
            "output_dir": str(tmp_path),
            "base": "org/base",
            "dataset": "rows.jsonl",
            "kind": "LoRA adapter (r = 4, alpha = 16)",
            "full_finetune": False,
            "precision": "4 bits (nf4)",
            "prompt_format": None,
            "command": command,
            "hub_datasets": datasets,
            "settings": {"adapter": {"lora_r": 4, "lora_modules": "a|b"}},
        }
        write_model_card(CardFacts(**facts | settings))
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
    assert "| which weights are trained | `lora_r 4, lora_modules a\\|b` |" in card.text
    assert "--prompt_format" not in card.text
    assert "as `--prompt_format chat` lays them out." in write_card(prompt_format="chat")[0].text


def test_a_base_in_a_directory_is_no_name_on_the_hub(write_card, tmp_path):
    """Even where it looks like one; the hub would refuse the card."""
    card, _ = write_card(base=str(tmp_path))
    assert "base_model" not in card.data.to_dict() and "datasets" not in card.data.to_dict()
    assert f"`{tmp_path}`" in card.text and "with the base, a local directory, held in" in card.text


@pytest.mark.parametrize("odd", ODD)
def test_a_card_holds_for_any_path(write_card, odd):
    command = ["--model_name_or_path", odd, "--dataset", f"{odd}.jsonl", "--hub_token", "secret"]
    card, code = write_card(command, base=odd, dataset=f"{odd}.jsonl")
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
    card, code = write_card(dataset="rows\udcff.jsonl", base="base\udcff")
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
