"""Chat records → a conversation: messages with the roles system, user, assistant and tool, and which are learned.

    >>> as_conversation({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]})
    ... # doctest: +NORMALIZE_WHITESPACE
    {'messages': [{'role': 'user', 'content': 'hi', 'supervised': False},
                  {'role': 'assistant', 'content': 'hello', 'supervised': True}], 'tools': None}

Reads ShareGPT's `from` and `value` and OpenAI's `role` and `content`, which LLaMA-Factory and others mix.
"""

import json
from collections.abc import Mapping
from typing import Any

from data.fields import SkipRow, field, items, kind, text

ROLES = {
    "system": "system",
    "developer": "system",  # what OpenAI's newer models call it
    "human": "user",
    "user": "user",
    **dict.fromkeys(("gpt", "chatgpt", "bard", "bing", "assistant", "model", "bot"), "assistant"),
    "function_call": "assistant",  # the model's call of a tool, as text
    **dict.fromkeys(("tool", "observation", "function", "function_response", "ipython"), "tool"),
}
MESSAGE = "a message"


def as_conversation(record: Mapping, column: str = "conversations") -> dict:
    """Return {"messages": [{"role", "content", "supervised"}, …], "tools": list or None} of the messages in `column`.

    Every assistant message is learned unless its weight is 0. A text in the column `system` goes before the others.

    Raises:
        SkipRow: the conversation cannot be read, has nothing to learn, or is marked as a bad one.
    """
    # KTO (https://arxiv.org/abs/2402.01306): good and bad answers in one file.
    if record.get("label") is False:
        raise SkipRow("label is false: an answer marked as bad")
    messages = _with_system(record, [_message(raw) for raw in items(record, column)])
    if not any(message["supervised"] for message in messages):
        has_answer = any(message["role"] == "assistant" for message in messages)
        raise SkipRow("every assistant turn has weight 0" if has_answer else "no assistant turn")
    return {"messages": messages, "tools": _tools(record)}


def as_chosen(record: Mapping) -> dict:
    """Return the conversation followed by the answer in `chosen`, the only one that is learned. Raises SkipRow."""
    chosen = field(record, "chosen")
    if not isinstance(chosen, Mapping):
        chosen = {"role": "assistant", "content": text(record, "chosen")}
    before = [_message(raw) | {"supervised": False} for raw in items(record, "conversations")]
    answer = _message(chosen)
    if answer["role"] != "assistant":
        raise SkipRow("the chosen answer is not an assistant turn")
    messages = _with_system(record, [*before, answer | {"supervised": True}])
    return {"messages": messages, "tools": _tools(record)}


def _message(raw: Any) -> dict:
    if not isinstance(raw, Mapping):
        raise SkipRow(f"{MESSAGE} is {kind(raw)}, not an object")
    name = text(raw, _which(raw, "role", "from"), MESSAGE)
    if name not in ROLES:
        raise SkipRow(f"role {name!r} is unknown (known: {', '.join(ROLES)})")
    role = ROLES[name]
    return {"role": role, "content": _content(raw), "supervised": _weight(raw) == 1 and role == "assistant"}


def _which(raw: Mapping, *names: str) -> str:
    """Return the one of `names` that the message uses; in Parquet it has all that any message uses, as null."""
    return next((name for name in names if raw.get(name) is not None), next((n for n in names if n in raw), names[0]))


def _content(raw: Mapping) -> str:
    calls = _calls(raw)
    name = _which(raw, *(("value", "content") if raw.get("from") is not None else ("content", "value")))
    value = raw.get(name)
    if calls and value in (None, "", []):
        return calls
    if isinstance(value, list):
        content = "".join(_part(part) for part in items(raw, name, MESSAGE))
    else:
        content = text(raw, name, MESSAGE)
    return f"{content}\n{calls}" if calls else content


def _part(part: Any) -> str:
    of = "a part of a message"
    if isinstance(part, str):
        return text({"text": part}, "text", of)
    if (part_type := text(part, "type", of)) != "text":
        raise SkipRow(f"a part of type {part_type!r}: only text can be trained on")
    return text(part, _which(part, "text", "value"), of)


def _calls(raw: Mapping) -> str:
    """Return OpenAI's `tool_calls` as the text that ShareGPT's function_call turns hold, one JSON object a line.

    That is {"name": …, "arguments": …}. Ids are left out: they are random, so that there is nothing in them to learn.
    """
    lines = []
    for call in items(raw, "tool_calls", MESSAGE) if raw.get("tool_calls") else []:
        function = field(call, "function", "a tool call")
        arguments = field(function, "arguments", "a tool call's function")
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except (ValueError, RecursionError):
                raise SkipRow("the arguments of a tool call are not JSON") from None
        name = text(function, "name", "a tool call's function")
        lines.append(json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False))
    return text({"tool_calls": "\n".join(lines)}, "tool_calls", MESSAGE)


def _weight(raw: Mapping) -> float:
    """Return 0 or 1: OpenAI's `weight`, LLaMA-Factory's `loss_weight`, 1 where there is neither."""
    weight = raw.get(_which(raw, "weight", "loss_weight"))
    if weight is None:
        return 1
    if not isinstance(weight, int | float) or weight not in (0, 1):
        raise SkipRow("the weight of a message is neither 0 nor 1")
    return weight


def _with_system(record: Mapping, messages: list[dict]) -> list[dict]:
    """Return the messages after the text in column `system`; where the first is a system message itself, it stands."""
    if record.get("system") in (None, "") or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": text(record, "system"), "supervised": False}, *messages]


def _tools(record: Mapping) -> list | None:
    """Return the tools that the conversation may use, a list or the JSON text of one; None where there are none."""
    tools = record.get("tools")
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError):
            raise SkipRow("column 'tools' holds a text that is not JSON") from None
    if isinstance(tools, str) or not tools:
        return None
    if not isinstance(tools, list):
        raise SkipRow(f"column 'tools' holds {kind(tools)}, not a list")
    text({"tools": json.dumps(tools, ensure_ascii=False, default=str)}, "tools")  # half a character may stand in it
    return tools
