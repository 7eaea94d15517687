"""Chat records of every shape → messages with our four roles, and which of them are learned."""

import doctest
import json

import pytest

import data.formats.conversations
import data.formats.exchanges
import data.formats.fields
import data.formats.tasks
from data.formats.conversations import LEARNED, REASONING, ROLES, as_conversation, unused_fields
from data.formats.fields import SkipRow


def message(role, content, supervised=None, **fields):
    learned = role == "assistant" if supervised is None else supervised
    return {"role": role, "content": content, "supervised": learned, **fields}


HI, HELLO = message("user", "hi"), message("assistant", "hello")
RAW = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
TOOLS = [{"name": "add", "parameters": {}}]


def messages_of(raw, **columns):
    return as_conversation({"messages": raw, **columns}, "messages")["messages"]


@pytest.mark.parametrize(
    "module",
    [data.formats.conversations, data.formats.exchanges, data.formats.fields, data.formats.tasks],
    ids=lambda module: module.__name__,
)
def test_examples_in_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


@pytest.mark.parametrize(
    "raw",
    [
        RAW,
        [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}],
        [{"from": "user", "content": "hi"}, {"role": "assistant", "value": "hello"}],
        # as Parquet has them: every message with every field
        [{**one, "from": None, "value": None, "weight": None, "tool_calls": None} for one in RAW],
        [
            {"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "value": "i"}]},
            {"role": "assistant", "content": ["hel", {"type": "text", "text": "lo", "value": None}]},
        ],
    ],
    ids=["openai", "sharegpt", "mixed", "parquet", "parts"],
)
def test_shapes_of_messages(raw):
    before = json.dumps(raw)
    assert messages_of(raw) == [HI, HELLO]
    assert json.dumps(raw) == before


@pytest.mark.parametrize(
    ("role", "names"),
    [
        ("system", ["system", "developer"]),
        ("user", ["human", "user"]),
        ("assistant", ["gpt", "chatgpt", "bard", "bing", "assistant", "model", "bot", "function_call"]),
        ("tool", ["observation", "tool", "function", "function_response", "ipython"]),
    ],
)
def test_names_of_roles(role, names):
    assert {name for name, known in ROLES.items() if known == role} == set(names)
    for name in names:
        assert messages_of([{"role": name, "content": "x"}, *RAW])[0] == message(role, "x")


def test_turns_after_the_last_answer_are_kept():
    assert messages_of([*RAW, RAW[0]]) == [HI, HELLO, HI]


def test_system_column_goes_first_unless_the_conversation_has_its_own():
    system = {"role": "system", "content": "mine"}
    assert messages_of(RAW, system="Be kind.") == [message("system", "Be kind."), HI, HELLO]
    assert messages_of([system, *RAW], system="Be kind.") == [message("system", "mine"), HI, HELLO]
    assert messages_of(RAW, system="") == messages_of(RAW, system=None) == [HI, HELLO]


# Which answers are learned


@pytest.mark.parametrize(
    ("name", "off", "on"),
    [
        ("weight", 0, 1),  # OpenAI, Mistral
        ("loss_weight", 0.0, 1.0),  # LLaMA-Factory
        ("train", False, True),  # axolotl
        ("loss", False, True),  # ms-swift
        ("masked", True, False),  # torchtune
        ("train", "False", "true"),
    ],
)
def test_fields_of_a_message_say_which_answers_are_learned(name, off, on):
    raw = [RAW[0] | {name: off}, RAW[1] | {name: off}, RAW[0] | {name: on}, RAW[1] | {name: on}, RAW[1] | {name: None}]
    assert [one["supervised"] for one in messages_of(raw)] == [False, False, False, True, True]
    assert name in LEARNED


def test_no_turn_but_the_assistants_is_learned_and_that_is_said():
    raw = [RAW[0] | {"train": True}, RAW[1] | {"train": True}]
    assert messages_of(raw) == [HI, HELLO]
    assert unused_fields({"messages": raw}, ("messages",)) == ["messages[].train"]
    assert unused_fields({"messages": [RAW[0] | {"train": False}, RAW[1]]}, ("messages",)) == []


# Thoughts


@pytest.mark.parametrize("name", REASONING)
def test_a_thought_is_kept_beside_the_answer(name):
    assert messages_of([RAW[0], RAW[1] | {name: "They greet me."}]) == [HI, HELLO | {"reasoning": "They greet me."}]
    for nothing in (None, "", " \n"):
        assert messages_of([RAW[0], RAW[1] | {name: nothing}]) == [HI, HELLO]


def test_a_thought_under_two_names_is_one():
    both = RAW[1] | {"reasoning": "So.", "reasoning_content": "So."}
    assert messages_of([both]) == [HELLO | {"reasoning": "So."}]


def test_a_thought_before_a_call_and_in_a_turn_that_is_not_learned():
    call = {"role": "assistant", "thinking": "The clock.", "tool_calls": [{"function": {"name": "now"}}]}
    assert messages_of([call, RAW[1] | {"train": False, "thinking": "Hm."}]) == [
        message("assistant", '{"name": "now", "arguments": {}}', reasoning="The clock."),
        message("assistant", "hello", False, reasoning="Hm."),
    ]


# Tools


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        *((TOOLS, TOOLS), (json.dumps(TOOLS), TOOLS)),
        *((nothing, None) for nothing in ("", " ", "[]", "null", [], {}, None)),
    ],
)
def test_tools_are_a_list_or_json(tools, expected):
    assert as_conversation({"messages": RAW, "tools": tools}, "messages") == {
        "messages": [HI, HELLO],
        "tools": expected,
    }


def test_tool_calls_become_the_text_that_sharegpt_has():
    calls = [
        {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"x": 1, "to": "é"}'}},
        {"id": "b", "type": "function", "function": {"name": "now", "arguments": {}}},
    ]
    written = '{"name": "add", "arguments": {"x": 1, "to": "é"}}\n{"name": "now", "arguments": {}}'
    for content in (None, "", []):
        assert messages_of([RAW[0], {"role": "assistant", "content": content, "tool_calls": calls}]) == [
            HI,
            message("assistant", written),
        ]
    assert messages_of([{"role": "assistant", "tool_calls": calls}])[0]["content"] == written
    assert messages_of([{"role": "assistant", "content": "Wait.", "tool_calls": calls}])[0]["content"] == (
        f"Wait.\n{written}"
    )


@pytest.mark.parametrize("nothing", ["{}", "", " ", "null", None, {}, ...])
def test_a_call_without_arguments_has_an_empty_object(nothing):
    function = {"name": "now"} if nothing is ... else {"name": "now", "arguments": nothing}
    [call] = messages_of([{"role": "assistant", "tool_calls": [{"function": function}]}])
    assert call["content"] == '{"name": "now", "arguments": {}}'


def test_a_null_in_the_json_text_of_arguments_is_meant():
    functions = [{"name": "f", "arguments": '{"x": null}'}]
    [call] = messages_of([{"role": "assistant", "tool_calls": [{"function": one} for one in functions]}])
    assert call["content"] == '{"name": "f", "arguments": {"x": null}}'


def test_openai_names_of_before_are_read():
    old = {"role": "assistant", "content": None, "function_call": {"name": "now", "arguments": "{}"}}
    made = as_conversation({"messages": [old], "functions": TOOLS}, "messages")
    assert made["messages"][0]["content"] == '{"name": "now", "arguments": {}}'
    assert made["tools"] == [{"type": "function", "function": TOOLS[0]}]


# What is left over


def test_what_decides_nothing_is_named_once():
    calls = [{"id": "a", "type": "function", "index": 0, "function": {"name": "now", "strict": True}}]
    raw = [
        {"role": "system", "content": "Be kind.", "name": "root"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}],
            "name": "A",
        },
        {"role": "assistant", "content": "", "tool_calls": calls, "prefix": True, "refusal": None, "audio": {}},
        {"role": "tool", "content": "12:00", "tool_call_id": "a", "thinking": "not mine"},
        {"from": "gpt", "value": "Noon.", "content": "Other.", "reasoning_content": "So.", "weight": 1},
    ]
    record = {"messages": raw, "system": "Be brief."}
    assert unused_fields(record, ("messages",)) == [
        "messages[].name",
        "messages[].content[].cache_control",
        "messages[].prefix",
        "messages[].tool_calls[].id",
        "messages[].tool_calls[].index",
        "messages[].tool_calls[].function.strict",
        "messages[].tool_call_id",
        "messages[].thinking",
        "messages[].content",
        "system",  # as the conversation has its own
    ]
    chosen = {"prompt": "hi", "chosen": {"role": "assistant", "content": "x", "score": 1}}
    assert unused_fields(chosen, ("prompt", "chosen")) == ["chosen.score"]


@pytest.mark.parametrize(
    "raw", [None, "x", 3, [3], [None], [{"role": []}], [{"content": [3]}], [{"tool_calls": [3, {}]}]]
)
def test_what_is_no_message_has_no_fields(raw):
    assert unused_fields({"messages": raw}, ("messages",)) == []


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (None, "column 'messages' is missing or null"),
        ("hi", "column 'messages' holds a text, not a list"),
        ({"role": "user"}, "column 'messages' holds an object, not a list"),
        ([], "column 'messages' holds an empty list"),
        (["hi"], "a message is a text, not an object"),
        (RAW[:1], "no assistant turn"),
        ([RAW[0], RAW[1] | {"weight": 0}], "every assistant turn is marked as not to be learned"),
        ([{"content": "hi"}, RAW[1]], "'role' of a message is missing or null"),
        ([{"role": None, "content": "hi"}, RAW[1]], "'role' of a message is missing or null"),
        ([{"from": 3, "value": "hi"}, RAW[1]], "'from' of a message holds a number, not a text"),
        ([{"role": "critic", "content": "hi"}, RAW[1]], f"role 'critic' is unknown (known: {', '.join(ROLES)})"),
        ([{"role": "user"}, RAW[1]], "'content' of a message is missing or null"),
        ([{"from": "human"}, RAW[1]], "'value' of a message is missing or null"),
        ([{"role": "user", "content": None}, RAW[1]], "'content' of a message is missing or null"),
        ([{"from": "human", "value": 7}, RAW[1]], "'value' of a message holds a number, not a text"),
        ([{"role": "user", "content": {"a": 1}}, RAW[1]], "'content' of a message holds an object, not a text"),
        (
            [{"role": "user", "content": "a\ud83d"}, RAW[1]],
            "'content' of a message holds half of a character (\\ud800 to \\udfff alone)",
        ),
        ([{"role": "user", "content": []}, RAW[1]], "'content' of a message holds an empty list"),
        ([{"role": "user", "content": [3]}, RAW[1]], "a part of a message is a number, not an object"),
        ([{"role": "user", "content": [{"text": "hi"}]}, RAW[1]], "'type' of a part of a message is missing or null"),
        ([{"role": "user", "content": [{"type": "text"}]}, RAW[1]], "'text' of a part of a message is missing or null"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, RAW[1]],
            "a part of type 'image_url': only text can be trained on",
        ),
        ([RAW[0], RAW[1] | {"weight": 0.5}], "'weight' of a message is neither true (1) nor false (0)"),
        ([RAW[0], RAW[1] | {"train": "maybe"}], "'train' of a message is neither true (1) nor false (0)"),
        (
            [RAW[0], RAW[1] | {"train": True, "weight": 0}],
            "fields of a message contradict each other (weight, loss_weight, train, loss, masked)",
        ),
        (
            [RAW[0], RAW[1] | {"train_detail": [{"begin_offset": 0, "end_offset": 1, "train": False}]}],
            "'train_detail' of a message learns parts of a turn, which cannot be done: split the turn",
        ),
        ([RAW[0], RAW[1] | {"thinking": ["So."]}], "'thinking' of a message holds a list, not a text"),
        (
            [RAW[0], RAW[1] | {"thinking": "So.", "reasoning": "Or so."}],
            "a message has two different thoughts (reasoning_content, thinking, reasoning)",
        ),
        ([RAW[0], {"role": "assistant", "tool_calls": "x"}], "'tool_calls' of a message holds a text, not a list"),
        ([RAW[0], {"role": "assistant", "tool_calls": [{}]}], "'function' of a tool call is missing or null"),
        (
            [RAW[0], {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}],
            "'arguments' of a tool call's function holds a text that is not JSON",
        ),
    ],
)
def test_what_cannot_be_trained_on(raw, reason):
    with pytest.raises(SkipRow) as skipped:
        messages_of(raw)
    assert str(skipped.value) == reason


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"system": 3}, "column 'system' holds a number, not a text"),
        ({"tools": "[{"}, "column 'tools' holds a text that is not JSON"),
        ({"tools": '{"name": "add"}'}, "column 'tools' holds an object, not a list"),
        ({"tools": 3}, "column 'tools' holds a number, not a list"),
        ({"tools": '["\\ud83d"]'}, "column 'tools' holds half of a character (\\ud800 to \\udfff alone)"),
    ],
)
def test_columns_beside_the_messages(columns, reason):
    with pytest.raises(SkipRow) as skipped:
        messages_of(RAW, **columns)
    assert str(skipped.value) == reason
