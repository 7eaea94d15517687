"""A prompt and its answer in two columns, each a text or messages → a pair, or a conversation that learns the answer.

    >>> as_exchange({"prompt": "1 + 2 =", "completion": " 3"}, "prompt", "completion")
    {'input': '1 + 2 =', 'output': ' 3'}

TRL writes prompts and completions, and preferences, in these ways: https://huggingface.co/docs/trl/dataset_formats.
"""

from collections.abc import Mapping
from itertools import takewhile

from data.formats.conversations import as_message, conversation, needs_conversation
from data.formats.fields import SkipRow, items, text

# Published fine-tuning files end their completions with the stop token of GPT-3, as text. To another model it is
# letters, which it would learn to write before its own stop token.
GPT3_STOP = "<|endoftext|>"


def as_exchange(record: Mapping, source: str | None, target: str, chat: bool = False) -> dict:
    """Return the prompt in column `source` and the answer in column `target`.

    Two texts are a pair, unless the record has what only a conversation has. Otherwise each column holds a text, a
    message or a list of messages, and what the assistant says in the answer is learned. An answer may repeat the
    prompt; of a chosen one, what the rejected one begins with too is prompt.

    Args:
        source: None where the prompt stands in the answer alone.
        chat: make a conversation of two texts too.

    Raises:
        SkipRow: a column cannot be read, or the answer follows another prompt.
    """
    if source and isinstance(record.get(source), str) and isinstance(record.get(target), str):
        prompt, answer = text(record, source), text(record, target).removesuffix(GPT3_STOP)
        if target == "chosen" and prompt.strip() and _both_start(record, prompt):
            answer = answer.removeprefix(prompt)
        if not (chat or needs_conversation(record)):
            return {"input": prompt, "output": answer}
        record = {**record, target: answer}
    before = _messages(record, source, "user") if source else []
    messages, start = _continued(before, _messages(record, target, "assistant"))
    if target == "chosen" and isinstance(record.get("rejected"), list):
        rejected, _ = _continued(before, _messages(record, "rejected", "assistant"))
        start = max(start, min(_shared(messages, rejected), _last_answer(messages)))
    elif source is None:
        start = _last_answer(messages)
    return conversation(record, messages, start)


def _both_start(record: Mapping, prompt: str) -> bool:
    """Return whether the chosen and the rejected text repeat the prompt."""
    answers = (record.get("chosen"), record.get("rejected"))
    return all(isinstance(answer, str) and answer.startswith(prompt) for answer in answers)


def _messages(record: Mapping, column: str, role: str) -> list[dict]:
    """Return the messages in a column: a list of them, one alone, or a text that is said by `role`."""
    value = record.get(column)
    if isinstance(value, list):
        return [as_message(raw) for raw in items(record, column)]
    return [as_message(value if isinstance(value, Mapping) else {"role": role, "content": text(record, column)})]


def _continued(prompt: list[dict], answer: list[dict]) -> tuple[list[dict], int]:
    """Return the prompt and the answer to it as one list, and the number of the first message of the answer."""
    for start in (0, 1):  # where the answer repeats the prompt, a system turn may stand before it
        if _shared(answer[start:], prompt) == len(prompt) and (start == 0 or answer[0]["role"] == "system"):
            return answer, start + len(prompt)
    if answer[0]["role"] in ("system", "user"):
        raise SkipRow(f"the answer starts with a {answer[0]['role']} turn that is not in the prompt")
    return prompt + answer, len(prompt)


def _shared(messages: list[dict], others: list[dict]) -> int:
    """Return how many messages both lists start with, whether they are learned or not."""
    unmarked = ([message | {"supervised": None} for message in turns] for turns in (messages, others))
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(*unmarked, strict=False))))


def _last_answer(messages: list[dict]) -> int:
    """Return the number of the assistant's last message; 0 where it says nothing."""
    return max((number for number, message in enumerate(messages) if message["role"] == "assistant"), default=0)
