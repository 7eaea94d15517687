"""Records of an instruction, what it is about, and the answer → Alpaca's prompt and the answer, or a conversation.

    convert = instruction(context="input", answer="output")
    convert({"instruction": "Add.", "input": "1 2", "output": "3"})  # {"input": Alpaca's prompt, "output": "3", …}

The pieces of a record are one `Instruction`, which is laid out here and nowhere else.
"""

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from data.formats.conversations import as_message, conversation, needs_conversation
from data.formats.fields import SkipRow, items, optional_items, pairs, spread, text, texts

# The published QLoRA runs had these prompts of Stanford Alpaca, with the space after "Response:".
# https://github.com/tatsu-lab/stanford_alpaca#data-release
ALPACA_PROMPT_DICT = {
    "prompt_input": (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response: "
    ),
    "prompt_no_input": (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Response: "
    ),
}


def extract_alpaca_dataset(example: Mapping) -> dict[str, str]:
    """Return {"input": prompt} for a record with `instruction` and, where there is one, `input`."""
    # Some exports write an absent input as null.
    has_input = example.get("input", "") not in ("", None)
    prompt = ALPACA_PROMPT_DICT["prompt_input" if has_input else "prompt_no_input"]
    return {"input": prompt.format(**example)}


def extract_unnatural_instructions_data(
    examples: Mapping[str, list], extract_reformulations: bool = False
) -> dict[str, list[str]]:
    """Flatten a batch of Unnatural Instructions records (https://arxiv.org/abs/2212.09689).

    Args:
        examples: columns of the batch; `instances` is a list (records) of lists of dicts that hold
            `instruction_with_input` and `output`; `reformulations` the same, or None where a record has none.
        extract_reformulations: append the paraphrases, those of all records after all instances.

    Returns:
        {"input": [...], "output": [...]}, as many as there are instances (and reformulations) in the batch.
    """
    groups = list(examples["instances"])
    if extract_reformulations:
        groups += [group for group in examples["reformulations"] if group is not None]
    instances = [instance for group in groups for instance in group]
    return {
        "input": [instance["instruction_with_input"] for instance in instances],
        "output": [instance["output"] for instance in instances],
    }


class Instruction(NamedTuple):
    """What is asked for, and what it is about, "" where there is nothing."""

    text: str
    context: str = ""

    def pairs(self, answers: list[str]) -> list[dict]:
        """Return a row for each answer, with the Alpaca prompt."""
        prompt = extract_alpaca_dataset({"instruction": self.text, "input": self.context})["input"]
        return pairs(prompt, answers, asked=self.user_turn())

    def user_turn(self) -> str:
        """Return the instruction and its context on the lines after it, as LLaMA-Factory writes them.

        https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md
        """
        return "\n".join(part for part in self if part)


def _optional_text(record: Any, column: str, of: str = "") -> str:
    return "" if record.get(column) is None else text(record, column, of)


def instruction(context: str, answer: str) -> Callable[[Mapping], dict | list[dict]]:
    """Return a formatter of a record with `instruction`, what it is about in the column `context`, and an answer.

    A list in column `answer` holds several reference answers: one row each. With a system text, earlier turns or tools,
    which the Alpaca prompt has no place for, each row is a conversation.
    """

    def convert(record: Mapping) -> dict | list[dict]:
        asked = Instruction(text(record, "instruction"), _optional_text(record, context))
        answers = texts(record, answer)
        history = optional_items(record, "history")
        if history or needs_conversation(record):
            rows = [_after(history, asked, final, record) for final in answers]
        else:
            rows = asked.pairs(answers)
        return rows[0] if isinstance(record[answer], str) else rows

    return convert


def _after(history: list, asked: Instruction, answer: str, record: Mapping) -> dict:
    """Return the conversation of earlier [question, answer] pairs, and of the last one, which alone is learned."""
    if not all(isinstance(turns, list) and len(turns) == 2 for turns in history):
        raise SkipRow("column 'history' holds something other than lists of a question and its answer")
    contents = [*itertools.chain(*history), asked.user_turn(), answer]
    roles = itertools.cycle(("user", "assistant"))
    messages = [as_message({"role": role, "content": content}) for role, content in zip(roles, contents, strict=False)]
    return conversation(record, messages, start=len(messages) - 1)


def seed_task(record: Mapping) -> list[dict | SkipRow]:
    """Return a row for each of the `instances` of an instruction. Raises SkipRow."""
    asked = text(record, "instruction")

    def rows_of(instance: Any) -> list[dict | SkipRow]:
        answer = text(instance, "output", "an instance")
        return Instruction(asked, _optional_text(instance, "input", "an instance")).pairs([answer])

    return spread(items(record, "instances"), rows_of)


def unnatural_instructions(record: Mapping, reformulations: bool = False) -> list[dict | SkipRow]:
    """Return a row for each of the `instances`, and for each of the `reformulations` where asked. Raises SkipRow."""

    def rows_of(instance: Any, of: str) -> list[dict | SkipRow]:
        return pairs(text(instance, "instruction_with_input", of), [text(instance, "output", of)])

    rows = spread(items(record, "instances"), partial(rows_of, of="an instance"))
    if reformulations and record.get("reformulations"):  # null or empty where a record has none
        rows += spread(items(record, "reformulations"), partial(rows_of, of="a reformulation"))
    return rows
