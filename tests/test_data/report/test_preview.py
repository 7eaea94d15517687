"""The preview: what is marked is what is supervised, and the text is the decoded row, whatever the tokenizer."""

import re

import pytest

from data.batches.collator import DataCollatorForCausalLM
from data.report.preview import LONGEST_RUN, preview, show_row, split_runs

REAL_TOKENIZERS = ["gpt-neox-20b", "gpt2", "llama-2-hf", "mistral-7b-v0.1", "qwen1.5"]
TEXTS = [
    ("Name a colour: ", "Ünïcode, 日本語 and 🙂!\n\n"),
    ("你好，世界。", "👩‍💻 ok 🏳️‍🌈"),
    (" leading", "  two\t\ttabs "),
    ("Hello , world !", " it 's n't ..."),
]


def row_of(tokenizer, source, target):
    """A row of a source text and a supervised target text."""
    collator = DataCollatorForCausalLM(tokenizer, 10**6, 10**6, train_on_source=False, predict_with_generate=False)
    [row] = collator.encoded([{"input": source, "output": target}])
    ids = {name: row[name].tolist() for name in ("input_ids", "labels")}  # as a data set gives them
    return row | ids | {"file": "rows.jsonl", "place": 1}


def real_tokenizer(shared_data, name):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder = shared_data / "tokenizers" / name
    if (folder / "config.json").is_file():
        return AutoTokenizer.from_pretrained(folder)
    end = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **end)


def test_brackets(tiny_tokenizer):
    row = row_of(tiny_tokenizer, "Name two.\n", "1\n\t2")
    assert show_row(row, tiny_tokenizer, colour=False) == "<s>·0·Name two.↵\n⟦1↵\n⇥\t2</s>·1·⟧"


def test_colour(tiny_tokenizer):
    row = row_of(tiny_tokenizer, "Name two.\n", "1\n\n2")
    shown = show_row(row, tiny_tokenizer, colour=True)
    assert shown == (
        "\x1b[4m<s>·0·\x1b[0mName two.↵\n"
        "\x1b[1;32m1↵\x1b[0m\n\x1b[1;32m↵\x1b[0m\n\x1b[1;32m2\x1b[0m\x1b[1;32;4m</s>·1·\x1b[0m"
    )
    plain = show_row(row, tiny_tokenizer, colour=False)
    assert re.sub(r"\x1b\[[\d;]*m", "", shown) == plain.replace("⟦", "").replace("⟧", "")


def test_several_answers_in_a_row(tiny_tokenizer):
    ids = [0, *tiny_tokenizer.encode("Q1", add_special_tokens=False)]
    answer = [*tiny_tokenizer.encode("A", add_special_tokens=False), 1]
    row = {"input_ids": ids + answer + ids + answer, "labels": ([-100] * len(ids) + answer) * 2}
    assert show_row(row, tiny_tokenizer, colour=False) == "<s>·0·Q1⟦A</s>·1·⟧<s>·0·Q1⟦A</s>·1·⟧"


def test_neighbouring_special_tokens_and_a_row_without_supervision(tiny_tokenizer):
    row = {"input_ids": [0, 0, 3, 2], "labels": [-100] * 4}
    assert show_row(row, tiny_tokenizer, colour=False) == "<s>·0·<s>·0·<pad>·3·<unk>·2·"
    assert show_row({"input_ids": [], "labels": []}, tiny_tokenizer, colour=False) == ""


def test_an_added_token_has_its_id_and_added_white_space_is_text(tiny_tokenizer):
    tiny_tokenizer.add_tokens(["<think>", "   "])
    marker = tiny_tokenizer.convert_tokens_to_ids("<think>")
    row = row_of(tiny_tokenizer, "<think>hi", "a   b")
    assert tiny_tokenizer.convert_tokens_to_ids("   ") in row["input_ids"]
    assert show_row(row, tiny_tokenizer, colour=False) == f"<s>·0·<think>·{marker}·hi⟦a   b</s>·1·⟧"


@pytest.mark.parametrize("name", REAL_TOKENIZERS)
def test_the_runs_are_the_decoded_row(shared_data, name):
    tokenizer = real_tokenizer(shared_data, name)
    for source, target in TEXTS:
        row = row_of(tokenizer, source, target)
        ids = row["input_ids"]
        whole = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        assert source.strip() in whole and target.strip() in whole
        # The boundary anywhere, inside a character too.
        for boundary in range(len(ids) + 1):
            runs = split_runs(ids, [-100] * boundary + ids[boundary:], tokenizer)
            assert "".join(run.text for run in runs) == whole
            assert [run.special for run in runs if run.special is not None] == [
                token for token in ids if token in tokenizer.all_special_ids
            ]
        runs = split_runs(ids, row["labels"], tokenizer)
        supervised = "".join(run.text for run in runs if run.supervised)
        assert supervised.strip() == f"{target}{tokenizer.eos_token}".strip()


def test_a_character_of_several_tokens_stays_whole(shared_data):
    tokenizer = real_tokenizer(shared_data, "gpt2")
    ids = tokenizer.encode("a🙂b")
    assert len(ids) == 4  # 🙂 is two tokens of gpt2
    texts = [run.text for run in split_runs(ids, [-100, -100, *ids[2:]], tokenizer)]
    assert texts == ["a", "🙂b"]


def test_the_space_that_sentencepiece_keeps_in_a_token_is_shown(shared_data):
    tokenizer = real_tokenizer(shared_data, "llama-2-hf")
    row = row_of(tokenizer, "### Response:", " Paris")
    assert show_row(row, tokenizer, colour=False) == "<s>·1· ### Response:⟦ Paris</s>·2·⟧"


@pytest.mark.parametrize("colour", [False, True])
def test_data_cannot_control_the_terminal(tiny_tokenizer, colour):
    text = "\x1b[31mred\r\x07\x00 \u202eturned\u2028 \x9b1m\x7f"
    shown = show_row(row_of(tiny_tokenizer, text, text), tiny_tokenizer, colour)
    assert shown.count(r"\x1b[31mred\r\x07\x00 \u202eturned\u2028 \x9b1m\x7f") == 2
    assert all(character == "\n" or character.isprintable() for character in re.sub(r"\x1b\[[\d;]*m", "", shown))
    assert "\x1b[31m" not in shown


def test_joiners_hold_an_emoji_together(tiny_tokenizer):
    assert "👩\u200d💻" in show_row(row_of(tiny_tokenizer, "👩\u200d💻", "x"), tiny_tokenizer, colour=False)


def test_brackets_in_the_data_are_no_marks(tiny_tokenizer):
    row = row_of(tiny_tokenizer, "a⟦b⟧", "c")
    assert show_row(row, tiny_tokenizer, colour=False) == r"<s>·0·a\u27e6b\u27e7⟦c</s>·1·⟧"
    assert "a⟦b⟧" in show_row(row, tiny_tokenizer, colour=True)


def test_the_middle_of_a_long_run_is_left_out(tiny_tokenizer):
    half = LONGEST_RUN // 2
    exact, longer = "a" * half + "b" * half, "a" * half + "cc" + "b" * half
    assert exact in show_row(row_of(tiny_tokenizer, exact, "x"), tiny_tokenizer, colour=False)
    shown = show_row(row_of(tiny_tokenizer, "x", longer), tiny_tokenizer, colour=False)
    assert shown == f"<s>·0·x⟦{'a' * half}\n… 2 characters not shown …\n{'b' * half}</s>·1·⟧"


def three_rows(tokenizer):
    import datasets

    rows = [row_of(tokenizer, "Name\n", f"{number}") | {"place": 5 * number} for number in (1, 2, 3)]
    rows[1] |= {"source_cut": 1200, "target_cut": 3}
    return datasets.Dataset.from_list(rows)


def test_preview(tiny_tokenizer):
    rows = three_rows(tiny_tokenizer)
    tokens = len(rows[0]["input_ids"])
    assert preview(rows, tiny_tokenizer, 2, colour=False) == "\n".join(
        [
            "⟦brackets⟧: supervised, what the model learns to write; ↵: a line break; ⇥: a tab",
            "special tokens, as token·id·: bos <s>·0·, eos </s>·1·, pad <pad>·3·, unk <unk>·2·",
            "",
            f"── row 1 of 3: rows.jsonl, line 5: {tokens} tokens, 2 supervised, nothing cut",
            "<s>·0·Name↵\n⟦1</s>·1·⟧",
            "",
            f"── row 2 of 3: rows.jsonl, line 10: {tokens} tokens, 2 supervised, 1,200 cut from the source, "
            "3 cut from the target",
            "<s>·0·Name↵\n⟦2</s>·1·⟧",
        ]
    )
    assert preview(rows, tiny_tokenizer, 99, colour=False).count("── row ") == 3


def test_legend_of_a_tokenizer_without_a_pad_token(tiny_tokenizer):
    tiny_tokenizer.pad_token = None
    legend = preview(three_rows(tiny_tokenizer), tiny_tokenizer, 0, colour=True)
    assert legend.startswith("\x1b[1;32mbold green\x1b[0m: supervised")
    assert legend.endswith("bos <s>·0·, eos </s>·1·, no pad, unk <unk>·2·")


@pytest.mark.parametrize(
    "terminal, no_color, coloured", [(True, None, True), (True, "", True), (True, "1", False), (False, None, False)]
)
def test_colour_on_a_terminal_only(tiny_tokenizer, monkeypatch, terminal, no_color, coloured):
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    shown = preview(three_rows(tiny_tokenizer), tiny_tokenizer, 1)
    assert ("\x1b" in shown) == coloured
    assert ("⟦" in shown) != coloured
