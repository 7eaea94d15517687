"""Conversations as ids and labels: answers and their ends are supervised, BOS stands once, EOS is last."""

import itertools

import pytest

from common.errors import DataError
from common.labels import IGNORE_INDEX
from data.tokens.encoder import NO_ANSWER
from data.tokens.templates import ChatRenderer
from tests.support.token_rows import (
    CHAT,
    TOKENIZERS,
    batch,
    encode,
    encoder,
    runs,
    templates_for,
    turns,
)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_supervised_tokens_are_the_answers_and_their_ends(name, request):
    tokenizer = request.getfixturevalue("tiny_tokenizer" if name == "tiny" else "tokenizers")
    tokenizer = tokenizer if name == "tiny" else tokenizer(name)
    for template in templates_for(tokenizer):
        made = encoder(tokenizer, template=template)
        text, spans = ChatRenderer(tokenizer).render(turns(*CHAT), None)
        (row,) = encode(made, turns(*CHAT))
        answers = [tokenizer.decode(run, clean_up_tokenization_spaces=False) for run in runs(row)]
        assert [answer.removesuffix(tokenizer.eos_token).strip() for answer in answers] == [
            text[start:end].removesuffix(tokenizer.eos_token).strip() for start, end, *_ in spans
        ], template
        assert [answer.count("It is 4.") for answer in answers] == [1, 0]
        assert row["labels"][-1] == row["input_ids"][-1] == tokenizer.eos_token_id
        # Llama 2 puts BOS before each question; none has it twice at the start.
        beginnings = 2 if template == "llama-2-chat" else 1
        if tokenizer.bos_token_id not in (None, tokenizer.eos_token_id):
            assert row["input_ids"].count(tokenizer.bos_token_id) == beginnings, template


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_prompt_is_encoded_as_generation_encodes_it(name, request):
    tokenizer = request.getfixturevalue("tiny_tokenizer" if name == "tiny" else "tokenizers")
    tokenizer = tokenizer if name == "tiny" else tokenizer(name)
    answers = ["是的", "\n\nYes", " Yes", "\tYes", "  Yes  ", "yes", "."]  # tokens would reach over a white border
    for template in templates_for(tokenizer):
        made = encoder(tokenizer, template=template)
        chats = [[*CHAT[:3], ("assistant", answer)] for answer in answers]
        for chat, row in zip(chats, encode(made, *(turns(*chat) for chat in chats)), strict=True):
            before = [{"role": role, "content": content} for role, content in CHAT[:3]]
            prompt = tokenizer.apply_chat_template(before, add_generation_prompt=True, return_dict=False)
            if tokenizer.bos_token_id is not None and prompt[0] != tokenizer.bos_token_id:
                prompt = [tokenizer.bos_token_id, *prompt]
            assert row["input_ids"][: row["prompt_length"]] == prompt, (template, chat[-1])
            assert row["labels"][row["prompt_length"]] != IGNORE_INDEX
            assert set(row["labels"][row["prompt_length"] :]).isdisjoint([IGNORE_INDEX])
            shown = tokenizer.decode(runs(row)[-1], clean_up_tokenization_spaces=False)
            assert chat[-1][1].strip() in shown


@pytest.mark.parametrize("template", ["default", "chatml", "llama-2-chat", "qwen3"])
def test_train_on_source_supervises_all_of_it(tiny_tokenizer, template):
    (row,) = encode(encoder(tiny_tokenizer, template=template), turns(*CHAT))
    (whole,) = encode(encoder(tiny_tokenizer, template=template, train_on_source=True), turns(*CHAT))
    assert whole["labels"] == whole["input_ids"] == row["input_ids"]
    assert whole["supervised"] == whole["length"]
    for name in ("prompt_length", "source_tokens", "target_tokens"):
        assert whole[name] == row[name]


def test_a_row_ends_with_its_last_supervised_answer(tiny_tokenizer):
    made = encoder(tiny_tokenizer)
    exact, longer, silent = encode(made, turns(*CHAT[:2]), turns(*CHAT[:3]), turns(*CHAT, silent=(3,)))
    others = {"source_tokens", "source_cut", *batch()}
    for row in (longer, silent):  # what stands behind the last answer is left out, and counted
        assert row["source_cut"] == row["source_tokens"] - exact["source_tokens"] > 0 == exact["source_cut"]
        assert {name: row[name] for name in row if name not in others} == {
            name: exact[name] for name in exact if name not in others
        }


def test_train_on_source_learns_the_turns_behind_the_last_answer_too(tiny_tokenizer):
    (row,) = encode(encoder(tiny_tokenizer, train_on_source=True), turns(*CHAT[:3]))
    assert row["source_cut"] == row["target_cut"] == 0
    assert list(row["labels"]) == list(row["input_ids"]) and row["supervised"] == row["length"]
    assert CHAT[2][1] in tiny_tokenizer.decode(row["input_ids"])
    (cut,) = encode(encoder(tiny_tokenizer, row["length"] - 2, 1, train_on_source=True), turns(*CHAT[:3]))
    assert cut["source_cut"] > 0 and cut["input_ids"][-1] == tiny_tokenizer.eos_token_id


def test_an_answer_of_weight_0_is_shown_and_not_learned(tiny_tokenizer):
    made = encoder(tiny_tokenizer)
    (row,) = encode(made, turns(*CHAT, silent=(1,)))
    assert [tiny_tokenizer.decode(run) for run in runs(row)] == [" 是的, 🙂!\n\nYes\tit is  4.</s>"]
    assert "It is 4.</s>\n" in tiny_tokenizer.decode(row["input_ids"])


def test_eos_follows_a_mark_that_is_another(tiny_tokenizer):
    (row,) = encode(encoder(tiny_tokenizer, template="chatml"), turns(*CHAT))
    first, last = (tiny_tokenizer.decode(run) for run in runs(row))
    assert first == "It is 4.<|im_end|>"
    assert last.endswith("4.<|im_end|></s>")
    (row,) = encode(encoder(tiny_tokenizer, template="phi-3"), turns(*CHAT))
    assert tiny_tokenizer.decode(row["input_ids"]).endswith("4.<|end|>\n</s>")
    assert tiny_tokenizer.decode(runs(row)[0]) == "It is 4.<|end|>"


@pytest.mark.parametrize("template", ["default", "chatml", "llama-2-chat", "phi-3", "qwen3"])
@pytest.mark.parametrize("train_on_source", [False, True])
def test_cut_conversations_keep_eos_and_whole_counts(tiny_tokenizer, template, train_on_source):
    (whole,) = encode(encoder(tiny_tokenizer, template=template), turns(*CHAT))
    spans, at = [], 0
    for supervised, run in itertools.groupby(whole["labels"], key=lambda label: label != IGNORE_INDEX):
        length = len(list(run))
        spans += [(at, at + length)] if supervised else []
        at += length
    (start, end), (second, _) = spans
    for limit in range(2, whole["length"] + 2):
        made = encoder(tiny_tokenizer, 1, limit - 1, train_on_source, template)
        (row,) = encode(made, turns(*CHAT))
        answers = sum(min(e, limit) - s for s, e in spans if s < limit - 1)
        if limit - 1 <= start:
            assert (row["dropped"], row["length"]) == (NO_ANSWER, 0)
            assert (row["source_cut"], row["target_cut"]) == (row["source_tokens"], row["target_tokens"])
            continue
        assert row["input_ids"][-1] == row["labels"][-1] == tiny_tokenizer.eos_token_id
        assert row["input_ids"][:-1] == whole["input_ids"][: row["length"] - 1]
        assert row["source_tokens"] == whole["source_tokens"]
        assert row["target_tokens"] == whole["target_tokens"]
        assert row["prompt_length"] == (start if limit - 1 <= second else second)
        if limit - 1 <= second:  # it ends with the first answer, never in the question
            assert end <= row["length"] <= min(end + 1, limit) or row["length"] == limit < end
        elif limit < whole["length"]:
            assert row["length"] == limit
            assert row["target_cut"] == whole["length"] - limit
            assert row["source_cut"] == 0
            assert row["target_tokens"] - row["target_cut"] == answers
        else:
            assert row["length"] == whole["length"]


def test_a_conversation_that_is_cut_asks_for_the_answer_that_is_left(tiny_tokenizer):
    """It would else be predicted at one question, and compared with the answer to another."""
    (whole,) = encode(encoder(tiny_tokenizer), turns(*CHAT))
    assert (whole["input"], whole["output"]) == ("", "")  # as they were given
    made = encoder(tiny_tokenizer, 1, whole["prompt_length"])
    cut, other = encode(made, turns(*CHAT), ("q", "a"))
    assert (cut["input"], cut["output"]) == (CHAT[0][1], CHAT[1][1])
    assert (other["input"], other["output"]) == ("q", "a")


def test_a_conversation_that_cannot_be_used_is_dropped_with_the_reason(tiny_tokenizer):
    made = encoder(tiny_tokenizer, 10, 10, template="gemma-2")
    rows = encode(made, turns(("system", "s"), *CHAT), turns(("user", "Why? " * 30), *CHAT[1:2]), turns(*CHAT[:2]))
    assert rows[0]["dropped"] == "the chat template refuses it: System role not supported (line 2 of the template)"
    assert [row["dropped"] for row in rows[1:]] == [NO_ANSWER, NO_ANSWER]
    assert [row["labels"] for row in rows] == [[], [], []]


def test_bos_that_is_eos(tokenizers):
    tokenizer = tokenizers("gpt2")
    end = tokenizer.eos_token_id
    (row,) = encode(encoder(tokenizer), turns(*CHAT))
    assert [i for i, token in enumerate(row["input_ids"]) if token == end] == [
        0,
        row["input_ids"].index(end, 1),
        row["length"] - 1,
    ]
    assert row["labels"][0] == IGNORE_INDEX
    assert row["labels"].count(end) == 2


def test_a_tokenizer_that_cannot_tell_places_is_refused(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(type(tiny_tokenizer), "is_fast", False)
    made = encoder(tiny_tokenizer)
    with pytest.raises(DataError, match="cannot tell where .*\ngive a model with a tokenizer.json"):
        made(batch(turns(*CHAT)))
    assert encode(made, ("a", "b"))[0]["dropped"] is None
