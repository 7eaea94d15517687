"""A prompt and its answer in two columns, texts or messages → a pair or a conversation, and what of it is learned."""

import pytest

from data.formats.exchanges import as_exchange
from data.formats.fields import SkipRow

SYSTEM = {"role": "system", "content": "Be short."}
HI = {"role": "user", "content": "hi"}
HELLO = {"role": "assistant", "content": "hello"}
NO = {"role": "assistant", "content": "no"}
AGAIN = {"role": "user", "content": "again?"}
TOOLS = [{"type": "function", "function": {"name": "now"}}]


def learned(record, source="prompt", target="completion", **flags):
    """(role, content, whether it is learned) of each message."""
    made = as_exchange(record, source, target, **flags)["messages"]
    return [(one["role"], one["content"], one["supervised"]) for one in made]


ANSWERED = [("user", "hi", False), ("assistant", "hello", True)]


@pytest.mark.parametrize("prompt", ["hi", HI, [HI], [{"from": "human", "value": "hi"}]])
@pytest.mark.parametrize("completion", ["hello<|endoftext|>", HELLO, [HELLO]])
def test_texts_are_a_pair_and_anything_else_a_conversation(prompt, completion):
    record = {"prompt": prompt, "completion": completion}
    if isinstance(prompt, str) and isinstance(completion, str):
        assert as_exchange(record, "prompt", "completion") == {"input": "hi", "output": "hello"}
        assert learned(record, chat=True) == ANSWERED
    elif isinstance(completion, str):
        assert learned(record | {"completion": "hello"}) == ANSWERED
    else:
        assert learned(record) == ANSWERED


def test_a_system_text_or_tools_make_a_conversation_of_two_texts():
    record = {"prompt": "hi", "completion": "hello", "tools": None, "system": " "}
    assert "messages" not in as_exchange(record, "prompt", "completion")
    assert learned(record | {"system": "Be short."}) == [("system", "Be short.", False), *ANSWERED]
    made = as_exchange(record | {"tools": TOOLS}, "prompt", "completion")
    assert made["tools"] == TOOLS and len(made["messages"]) == 2


def test_only_what_the_completion_says_is_learned():
    prompt = [SYSTEM, HI, HELLO, AGAIN]
    completion = [NO, {"role": "tool", "content": "12"}, HELLO, NO | {"train": False}, AGAIN]
    assert [role for role, _, is_learned in learned({"prompt": prompt, "completion": completion}) if is_learned] == [
        "assistant",
        "assistant",
    ]
    numbers = [n for n, one in enumerate(learned({"prompt": prompt, "completion": completion})) if one[2]]
    assert numbers == [4, 6]


@pytest.mark.parametrize("prompt", ["hi", [HI]])
@pytest.mark.parametrize("before", [[], [SYSTEM]])
def test_an_answer_may_repeat_the_prompt(prompt, before):
    shown = [("system", "Be short.", False)] * len(before) + ANSWERED
    assert learned({"prompt": prompt, "chosen": [*before, HI, HELLO]}, target="chosen") == shown


def test_chosen_and_rejected_texts_may_repeat_the_prompt():
    both = {"prompt": "2 + 2 =", "chosen": "2 + 2 = 4", "rejected": "2 + 2 = 5"}
    assert as_exchange(both, "prompt", "chosen") == {"input": "2 + 2 =", "output": " 4"}
    one = both | {"rejected": "5"}
    assert as_exchange(one, "prompt", "chosen")["output"] == "2 + 2 = 4"


@pytest.mark.parametrize("source", ["prompt", None])
def test_what_the_rejected_answer_begins_with_too_is_prompt(source):
    record = {"prompt": "hi", "chosen": [HI, HELLO, AGAIN, HELLO], "rejected": [HI, HELLO, AGAIN, NO]}
    shown = learned(record, source, "chosen")
    assert [one[2] for one in shown] == [False, False, False, True]
    whole = learned(record | {"rejected": [HI, NO, AGAIN, NO]}, source, "chosen")
    assert [one[2] for one in whole] == [False, True, False, True]


@pytest.mark.parametrize("rejected", [{}, {"rejected": None}, {"rejected": [HI, HELLO, AGAIN, HELLO]}])
def test_of_a_chosen_conversation_alone_the_last_answer_is_learned(rejected):
    shown = learned({"chosen": [HI, HELLO, AGAIN, HELLO], **rejected}, None, "chosen")
    assert [one[2] for one in shown] == [False, False, False, True]


def test_shared_turns_differ_where_their_thoughts_do():
    chosen = [HI, HELLO | {"thinking": "So."}, AGAIN, HELLO]
    shown = learned({"chosen": chosen, "rejected": [HI, HELLO, AGAIN, NO]}, None, "chosen")
    assert [one[2] for one in shown] == [False, True, False, True]


def test_of_preferences_in_a_conversation_only_the_chosen_answer_is_learned():
    record = {"conversations": [HI, HELLO, HI], "chosen": {"from": "gpt", "value": "good"}, "rejected": {}}
    good = [("user", "hi", False), ("assistant", "hello", False), ("user", "hi", False), ("assistant", "good", True)]
    for chosen in (record["chosen"], "good", [record["chosen"]]):
        assert learned(record | {"chosen": chosen}, "conversations", "chosen") == good
    with_system = learned(record | {"system": "s"}, "conversations", "chosen")
    assert with_system == [("system", "s", False), *good]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"chosen": AGAIN}, "the answer starts with a user turn that is not in the prompt"),
        ({"chosen": [AGAIN, HELLO]}, "the answer starts with a user turn that is not in the prompt"),
        ({"chosen": [SYSTEM, HELLO]}, "the answer starts with a system turn that is not in the prompt"),
        ({"chosen": [HI]}, "no assistant turn"),
        ({"chosen": [HELLO | {"weight": 0}]}, "every assistant turn is marked as not to be learned"),
        ({"chosen": None}, "column 'chosen' is missing or null"),
        ({"chosen": 3}, "column 'chosen' holds a number, not a text"),
        ({"chosen": []}, "column 'chosen' holds an empty list"),
        ({"chosen": {"from": "gpt", "value": 3}}, "'value' of a message holds a number, not a text"),
        ({"prompt": []}, "column 'prompt' holds an empty list"),
        ({"rejected": [3]}, "a message is a number, not an object"),
    ],
)
def test_what_cannot_be_trained_on(columns, reason):
    with pytest.raises(SkipRow) as skipped:
        as_exchange({"prompt": [HI], "chosen": [HELLO]} | columns, "prompt", "chosen")
    assert str(skipped.value) == reason
