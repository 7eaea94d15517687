"""Chat records → a conversation: messages with the roles system, user, assistant and tool, and which are learned.

    >>> as_conversation({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]})
    ... # doctest: +NORMALIZE_WHITESPACE
    {'messages': [{'role': 'user', 'content': 'hi', 'supervised': False},
                  {'role': 'assistant', 'content': 'hello', 'supervised': True}], 'tools': None}

Reads ShareGPT's `from` and `value` and OpenAI's `role` and `content`, which LLaMA-Factory and others mix. A thought
beside the content of an answer is its `reasoning`.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from data.formats.fields import SkipRow, field, is_empty, items, kind, optional_items, parsed, text, truth

ROLES = {
    "system": "system",
    "developer": "system",  # what OpenAI's newer models call it
    "human": "user",
    "user": "user",
    **dict.fromkeys(("gpt", "chatgpt", "bard", "bing", "assistant", "model", "bot"), "assistant"),
    "function_call": "assistant",  # the model's call of a tool, as text
    **dict.fromkeys(("tool", "observation", "function", "function_response", "ipython"), "tool"),
}
# These are the fields of an assistant message, each under all its names.
REASONING = ("reasoning_content", "thinking", "reasoning")  # DeepSeek's and Qwen's, gpt-oss's, OpenRouter's
# The value is what the field holds, as true or false, where the message is to be learned.
LEARNED = {"weight": True, "loss_weight": True, "train": True, "loss": True, "masked": False}
LEARNED_IN_PART = ("train_detail", "training_detail")  # axolotl's, which hold spans of characters
CALLS = ("tool_calls", "function_call")  # OpenAI's name, and its older one
# These columns belong to the conversation that another column holds, whatever the format.
BESIDE_MESSAGES = ("system", "tools", "functions")
MESSAGE = "a message"


def as_conversation(record: Mapping, column: str = "conversations") -> dict:
    """Return {"messages": [{"role", "content", "supervised"}, …], "tools": list or None} of the messages in `column`.

    Every assistant message is learned unless a field of it says otherwise. A text in the column `system` goes before
    the others.

    Raises:
        SkipRow: the conversation cannot be read, or has nothing to learn.
    """
    return conversation(record, [as_message(raw) for raw in items(record, column)])


def conversation(record: Mapping, messages: list[dict], start: int = 0) -> dict:
    """Return the conversation of these messages, with the system text and the tools that their record has.

    Args:
        start: number of the first message that can be learned.

    Raises:
        SkipRow: a column cannot be read, or there is nothing to learn.
    """
    messages = [message | {"supervised": message["supervised"] and n >= start} for n, message in enumerate(messages)]
    if not any(message["supervised"] for message in messages):
        has_answer = any(message["role"] == "assistant" for message in messages[start:])
        raise SkipRow("every assistant turn is marked as not to be learned" if has_answer else "no assistant turn")
    # `functions` is what OpenAI called `tools` before.
    functions = [{"type": "function", "function": function} for function in optional_items(record, "functions")]
    tools = optional_items(record, "tools") + functions
    return {"messages": _with_system(record, messages), "tools": tools or None}


def needs_conversation(record: Mapping) -> bool:
    """Return whether a record has a system text or tools, which a pair of two texts has no place for."""
    return not all(is_empty(record.get(name)) for name in BESIDE_MESSAGES)


def _with_system(record: Mapping, messages: list[dict]) -> list[dict]:
    """Return the messages after the text in column `system`; where the first is a system message itself, it stands."""
    if is_empty(record.get("system")) or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": text(record, "system"), "supervised": False}, *messages]


def as_message(raw: Any) -> dict:
    """Return {"role", "content", "supervised"} of a raw message, and "reasoning" where it has any. Raises SkipRow."""
    if not isinstance(raw, Mapping):
        raise SkipRow(f"{MESSAGE} is {kind(raw)}, not an object")
    name = text(raw, _which(raw, "role", "from"), MESSAGE)
    if name not in ROLES:
        raise SkipRow(f"role {name!r} is unknown (known: {', '.join(ROLES)})")
    message = {"role": ROLES[name], "content": _content(raw), "supervised": _is_learned(raw)}
    if message["role"] != "assistant":
        return message | {"supervised": False}
    if spans := next((name for name in LEARNED_IN_PART if not is_empty(raw.get(name))), None):
        raise SkipRow(f"{spans!r} of {MESSAGE} learns parts of a turn, which cannot be done: split the turn")
    reasoning = _reasoning(raw)
    return message | {"reasoning": reasoning} if reasoning else message


def _which(raw: Mapping, *names: str) -> str:
    """Return the one of `names` that the message uses, the first where it uses none."""
    return next((name for name in names if raw.get(name) is not None), names[0])


def _which_content(raw: Mapping) -> str:
    return _which(raw, *(("value", "content") if raw.get("from") is not None else ("content", "value")))


def _content(raw: Mapping) -> str:
    """Return the text of a message, and after it the calls of tools, one a line."""
    calls, name = _calls(raw), _which_content(raw)
    value = raw.get(name)
    if calls and value in (None, "", []):
        return calls
    is_list = isinstance(value, list)
    content = "".join(map(_part, items(raw, name, MESSAGE))) if is_list else text(raw, name, MESSAGE)
    return f"{content}\n{calls}" if calls else content


def _part(part: Any) -> str:
    """Return the text of one part of a content that is a list."""
    of = "a part of a message"
    if isinstance(part, str):
        return text({"text": part}, "text", of)
    if (part_type := text(part, "type", of)) != "text":
        raise SkipRow(f"a part of type {part_type!r}: only text can be trained on")
    return text(part, _which(part, "text", "value"), of)


def _is_learned(raw: Mapping) -> bool:
    """Return whether the message's own fields leave it to be learned; it is where there are none."""
    marks = {name: raw[name] for name in LEARNED if not is_empty(raw.get(name))}
    for name, value in marks.items():
        if truth(value) is None:
            raise SkipRow(f"{name!r} of {MESSAGE} is neither true (1) nor false (0)")
    verdicts = {truth(value) == LEARNED[name] for name, value in marks.items()}
    if len(verdicts) > 1:
        raise SkipRow(f"fields of {MESSAGE} contradict each other ({', '.join(LEARNED)})")
    return verdicts != {False}


def _reasoning(raw: Mapping) -> str:
    """Return the thought that stands beside the content of an assistant message, "" where there is none."""
    thoughts = {text(raw, name, MESSAGE) for name in REASONING if not is_empty(raw.get(name))}
    if len(thoughts) > 1:  # servers that rename the field send the same text under both names
        raise SkipRow(f"{MESSAGE} has two different thoughts ({', '.join(REASONING)})")
    return next(iter(thoughts), "")


def _calls(raw: Mapping) -> str:
    """Return OpenAI's `tool_calls` as the text that ShareGPT's function_call turns hold, one JSON object a line.

    That is {"name": …, "arguments": …}. Ids are left out: they are random, so that there is nothing in them to learn.
    """
    calls = items(raw, "tool_calls", MESSAGE) if raw.get("tool_calls") else []
    functions = [field(call, "function", "a tool call") for call in calls]
    functions += [raw["function_call"]] if raw.get("function_call") else []
    named = [(text(function, "name", "a tool call's function"), _arguments(function)) for function in functions]
    lines = [json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False) for name, arguments in named]
    return text({"tool_calls": "\n".join(lines)}, "tool_calls", MESSAGE)


def _arguments(function: Mapping) -> Any:
    """Return the arguments of a call, whether they are an object or its JSON text; nothing in any form is {}."""
    arguments = function.get("arguments")
    if is_empty(arguments):
        return {}
    return parsed(arguments, "'arguments' of a tool call's function") if isinstance(arguments, str) else arguments


def unused_fields(record: Mapping, columns: tuple[str, ...]) -> list[str]:
    """Return the names of the fields that hold something and that decide nothing, such as "messages[].name".

    Args:
        columns: those that hold a list of messages, or one message; other values in them are passed over.
    """
    unused: list[str] = []
    for column in columns:
        value = record.get(column)
        messages, label = (value, f"{column}[]") if isinstance(value, list) else ([value], column)
        for message in _objects(messages):
            unused += (f"{label}.{name}" for name in _unused_of_message(message))
    first = (_objects(record.get(columns[0])) or [{}])[0]
    if not is_empty(record.get("system")) and _role(first) == "system":
        unused.append("system")
    return list(dict.fromkeys(unused))


def _unused_of_message(raw: Mapping) -> Iterator[str]:
    """Give the names of the fields of a message, its parts and its calls that decide nothing."""
    content = _which_content(raw)
    used = {_which(raw, "role", "from"), content, *CALLS}
    if _role(raw) == "assistant":
        used |= {*REASONING, *LEARNED}
    else:  # Only the assistant's turns are learned: a field that asks for more decides nothing.
        used |= {name for name, learned in LEARNED.items() if truth(raw.get(name)) is not learned}
    yield from _others(raw, used)
    for part in _objects(raw.get(content)):
        yield from _others(part, {"type", _which(part, "text", "value")}, "content[].")
    for call in _objects(raw.get("tool_calls")):
        yield from _others(call, {"function", "type"}, "tool_calls[].")
        yield from _others(call.get("function"), {"name", "arguments"}, "tool_calls[].function.")


def _role(raw: Mapping) -> str | None:
    name = raw.get(_which(raw, "role", "from"))
    return ROLES.get(name) if isinstance(name, str) else None


def _objects(value: Any) -> list[Mapping]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _others(raw: Any, used: set[str], label: str = "") -> list[str]:
    fields = raw.items() if isinstance(raw, Mapping) else ()
    return [f"{label}{name}" for name, value in fields if name not in used and not is_empty(value)]
