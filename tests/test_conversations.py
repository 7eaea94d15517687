"""Chat records of every shape → messages with our four roles, and which of them are learned."""

import doctest
import json

import pytest

import data.conversations
import data.tasks
from data.conversations import ROLES, as_chosen, as_conversation
from data.fields import SkipRow


def message(role, content, supervised=None):
    return {"role": role, "content": content, "supervised": role == "assistant" if supervised is None else supervised}


HI, HELLO = message("user", "hi"), message("assistant", "hello")
RAW = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
TOOLS = [{"name": "add", "parameters": {}}]


def messages_of(raw, **columns):
    return as_conversation({"messages": raw, **columns}, "messages")["messages"]


@pytest.mark.parametrize("module", [data.conversations, data.tasks], ids=lambda module: module.__name__)
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


@pytest.mark.parametrize("name", ["weight", "loss_weight"])
def test_weight_says_which_answers_are_learned(name):
    raw = [RAW[0] | {name: 0.0}, RAW[1] | {name: 0}, RAW[0] | {name: 1}, RAW[1] | {name: 1.0}]
    assert [one["supervised"] for one in messages_of(raw)] == [False, False, False, True]


@pytest.mark.parametrize(
    ("tools", "expected"),
    [(TOOLS, TOOLS), (json.dumps(TOOLS), TOOLS), ("", None), (" ", None), ("[]", None), ([], None), (None, None)],
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


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (None, "column 'messages' holds null"),
        ("hi", "column 'messages' holds a text, not a list"),
        ({"role": "user"}, "column 'messages' holds an object, not a list"),
        ([], "column 'messages' holds an empty list"),
        (["hi"], "a message is a text, not an object"),
        (RAW[:1], "no assistant turn"),
        ([RAW[0], RAW[1] | {"weight": 0}], "every assistant turn has weight 0"),
        ([{"content": "hi"}, RAW[1]], "'role' of a message is missing"),
        ([{"role": None, "content": "hi"}, RAW[1]], "'role' of a message holds null"),
        ([{"from": 3, "value": "hi"}, RAW[1]], "'from' of a message holds a number, not a text"),
        ([{"role": "critic", "content": "hi"}, RAW[1]], f"role 'critic' is unknown (known: {', '.join(ROLES)})"),
        ([{"role": "user"}, RAW[1]], "'content' of a message is missing"),
        ([{"from": "human"}, RAW[1]], "'value' of a message is missing"),
        ([{"role": "user", "content": None}, RAW[1]], "'content' of a message holds null"),
        ([{"from": "human", "value": 7}, RAW[1]], "'value' of a message holds a number, not a text"),
        ([{"role": "user", "content": {"a": 1}}, RAW[1]], "'content' of a message holds an object, not a text"),
        (
            [{"role": "user", "content": "a\ud83d"}, RAW[1]],
            "'content' of a message holds half of a character (\\ud800 to \\udfff alone)",
        ),
        ([{"role": "user", "content": []}, RAW[1]], "'content' of a message holds an empty list"),
        ([{"role": "user", "content": [3]}, RAW[1]], "a part of a message is a number, not an object"),
        ([{"role": "user", "content": [{"text": "hi"}]}, RAW[1]], "'type' of a part of a message is missing"),
        ([{"role": "user", "content": [{"type": "text"}]}, RAW[1]], "'text' of a part of a message is missing"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, RAW[1]],
            "a part of type 'image_url': only text can be trained on",
        ),
        ([RAW[0], RAW[1] | {"weight": 0.5}], "the weight of a message is neither 0 nor 1"),
        ([RAW[0], RAW[1] | {"loss_weight": "1"}], "the weight of a message is neither 0 nor 1"),
        ([RAW[0], {"role": "assistant", "tool_calls": "x"}], "'tool_calls' of a message holds a text, not a list"),
        ([RAW[0], {"role": "assistant", "tool_calls": [{}]}], "'function' of a tool call is missing"),
        (
            [RAW[0], {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}],
            "the arguments of a tool call are not JSON",
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
        ({"label": False}, "label is false: an answer marked as bad"),
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


def test_only_false_marks_a_bad_answer():
    for label in (True, None, 0, "no"):
        assert messages_of(RAW, label=label) == [HI, HELLO]


def test_of_preferences_only_the_chosen_answer_is_learned():
    record = {"conversations": [*RAW, RAW[0]], "chosen": {"from": "gpt", "value": "good"}, "rejected": {}}
    good = [HI, message("assistant", "hello", False), HI, message("assistant", "good")]
    assert as_chosen(record) == {"messages": good, "tools": None}
    assert as_chosen(record | {"chosen": "good"})["messages"] == good
    assert as_chosen(record | {"system": "s", "tools": TOOLS}) == {
        "messages": [message("system", "s"), *good],
        "tools": TOOLS,
    }


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"chosen": {"from": "human", "value": "x"}}, "the chosen answer is not an assistant turn"),
        ({"chosen": None}, "column 'chosen' holds null"),
        ({"chosen": RAW}, "column 'chosen' holds a list, not a text"),
        ({"chosen": {"from": "gpt", "value": 3}}, "'value' of a message holds a number, not a text"),
        ({"conversations": []}, "column 'conversations' holds an empty list"),
    ],
)
def test_preferences_that_cannot_be_trained_on(columns, reason):
    with pytest.raises(SkipRow) as skipped:
        as_chosen({"conversations": RAW[:1], "chosen": RAW[1]} | columns)
    assert str(skipped.value) == reason
