"""How records of each data format become what is trained on: one row of FORMATS each.

    FORMATS["input-output"].convert({"input": "1 + 2 =", "output": " 3"})  # {"input": "1 + 2 =", "output": " 3"}

A formatter is a pure function of one record. It returns a pair {"input": prompt, "output": what is learned}, or a
conversation (see conversations.py), or a list of these where one record holds several examples. What cannot be trained
on raises `SkipRow` with the reason: it is dropped, counted and named by its line. In a list, a SkipRow in the place of
an example drops that example alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from data.formats.conversations import BESIDE_MESSAGES, ROLES, as_conversation, unused_fields
from data.formats.exchanges import as_exchange
from data.formats.fields import SkipRow, is_empty, pairs, text, truth
from data.formats.instructions import instruction, seed_task, unnatural_instructions
from data.formats.tasks import flat_task_row, task_rows

# Whether an answer is a good one, in data for KTO (https://arxiv.org/abs/2402.01306): TRL's name and LLaMA-Factory's.
MARKS = ("label", "kto_tag")


def _columns(source: str, target: str, prompt: str = "{}") -> Callable[[Mapping], dict]:
    """Return a formatter that takes the answer from column `target`, and what stands in `prompt` from `source`."""

    def convert(record: Mapping) -> dict:
        asked = text(record, source)
        [pair] = pairs(prompt.replace("{}", asked), [text(record, target)], None if prompt == "{}" else asked)
        return pair

    return convert


def _answer_only(column: str) -> Callable[[Mapping], dict]:
    """Return a formatter that learns a whole column, with no prompt before it."""
    return lambda record: {"input": "", "output": text(record, column)}


def _chip2(record: Mapping) -> dict:
    turns = text(record, "text").split("\n<bot>: ")
    if len(turns) != 2:
        # The published script reads the first answer only, so that later ones would be lost without a word.
        raise SkipRow("not exactly one answer that starts with '\\n<bot>: '")
    return {"input": turns[0].replace("<human>: ", ""), "output": turns[1]}


def _starts(column: str, start: str) -> dict[str, Any]:
    return {
        "looks": f"{column} starts with {start}",
        "looks_right": lambda record: isinstance(record[column], str) and record[column].startswith(start),
    }


def _instances_have(name: str) -> dict[str, Any]:
    def looks_right(record: Mapping) -> bool:
        instances = record["instances"]
        first = instances[0] if isinstance(instances, list) and instances else None
        return isinstance(first, Mapping) and name in first

    return {"looks": f"instances with {name}", "looks_right": looks_right}


def waits(messages: list) -> bool:
    """Return whether the last of these messages is not the assistant's."""
    last = messages[-1] if isinstance(messages, list) and messages else None
    role = last.get("role") or last.get("from") if isinstance(last, Mapping) else None
    return isinstance(role, str) and ROLES.get(role) != "assistant"


@dataclass(frozen=True)
class Format:
    """One data format.

    Attributes:
        name: what `--dataset_format` calls it.
        columns: columns that every record has; detection asks for all of them.
        formatter: record → pair, conversation, or a list of these and of `SkipRow`s.
        looks_right: asked about a record that has the columns, where these alone do not tell formats apart.
        consumed: columns that are in what `convert` returns and that are not repeated beside it.
        aliases: other names of it.
        looks: what `looks_right` asks for, in words.
        answer: the column of `columns` that holds the answer, where a question without one can still be predicted.
        chat: whether its rows are conversations, in the column `columns[0]`.
        uses: columns that it reads where a record has them, beside `columns` and what every format reads.
        nullable: columns of `columns`, beside `answer`, that a record may hold null in.
    """

    name: str
    columns: tuple[str, ...]
    formatter: Callable[[Mapping], dict | list[dict | SkipRow]]
    looks_right: Callable[[Mapping], bool] = lambda record: True
    consumed: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    looks: str = ""
    answer: str | None = None
    chat: bool = False
    uses: tuple[str, ...] = ()
    nullable: tuple[str, ...] = ()

    def convert(self, record: Mapping) -> dict | list[dict | SkipRow]:
        """Return what `formatter` makes of a record.

        Raises:
            SkipRow: the record cannot be trained on, or is marked as a bad answer.
        """
        for name in MARKS:
            if self._mark(record, name) is False:
                raise SkipRow(f"{name} is false: an answer marked as bad")
        return self.formatter(record)

    def _mark(self, record: Mapping, name: str) -> bool | None:
        """Return whether column `name` marks the answer as a good one; None where it holds no such mark.

        A label beside anything but a prompt and its completion is one only where it says true or false: 0 and 1 may be
        the ids of classes.
        """
        value = record.get(name)
        if is_empty(value):
            return None
        is_mark, mark = name == "kto_tag" or self.columns == ("prompt", "completion"), truth(value)
        if is_mark and mark is None:
            raise SkipRow(f"{name!r} is neither true nor false; rename the column if it does not mark bad answers")
        return mark if is_mark or str(value).lower() in ("true", "false") else None

    def unused(self, record: Mapping, is_conversation: bool) -> list[str]:
        """Return the names of columns, and of fields of messages, that hold something and decide nothing.

        Args:
            record: one that `convert` takes.
            is_conversation: whether it becomes one.
        """
        used = {*self.columns, *self.uses, *(BESIDE_MESSAGES if is_conversation else ())}
        used |= {name for name in MARKS if self._mark(record, name) is not None}
        columns = [name for name, value in record.items() if name not in used and not is_empty(value)]
        return columns + (unused_fields(record, self.columns) if is_conversation else [])


def _instruction(name: str, context: str, target: str, columns: tuple[str, ...] = (), **options: Any) -> Format:
    columns = ("instruction", *columns, target)
    return Format(name, columns, instruction(context, target), uses=(context, "history"), **options)


def _exchange(name: str, source: str, target: str, chat: bool = False, **options: Any) -> Format:
    return Format(name, (source, target), partial(as_exchange, source=source, target=target, chat=chat), **options)


# In the order of detection: the first that fits wins, so what asks for more stands first.
FORMATS = {
    row.name: row
    for row in (
        Format(
            "super-natural-instructions",
            ("Definition", "Positive Examples", "Instances"),
            task_rows,
            consumed=("Definition", "Positive Examples", "Negative Examples", "Instances"),
            aliases=("supernatural-instructions",),
        ),
        Format("natural-instructions", ("definition", "inputs", "targets"), flat_task_row, answer="targets"),
        Format(
            "unnatural-instructions-full",
            ("instances", "reformulations"),
            partial(unnatural_instructions, reformulations=True),
            **_instances_have("instruction_with_input"),
            consumed=("instances", "reformulations"),
            nullable=("reformulations",),
        ),
        Format(
            "unnatural-instructions",
            ("instances",),
            unnatural_instructions,
            **_instances_have("instruction_with_input"),
            consumed=("instances", "reformulations"),
            aliases=("unnatural-instructions-core",),
        ),
        Format(
            "seed-tasks",
            ("instruction", "instances"),
            seed_task,
            **_instances_have("output"),
            consumed=("instances",),
        ),
        _exchange(
            "sharegpt-preference",
            "conversations",
            "chosen",
            chat=True,
            consumed=("conversations", "chosen", "tools"),
        ),
        _exchange(
            "messages-preference",
            "messages",
            "chosen",
            chat=True,
            looks_right=lambda record: waits(record["messages"]),
            looks="messages end before the answer",
            consumed=("messages", "chosen", "tools"),
        ),
        Format("sharegpt", ("conversations",), as_conversation, consumed=("conversations", "tools"), chat=True),
        Format(
            "messages",
            ("messages",),
            partial(as_conversation, column="messages"),
            consumed=("messages", "tools"),
            chat=True,
        ),
        _instruction("alpaca", "input", "output", answer="output"),
        _instruction("dolly", "context", "response", ("context",), answer="response", nullable=("context",)),
        Format("input-output", ("input", "output"), _columns("input", "output"), answer="output"),
        _exchange("self-instruct", "prompt", "completion", aliases=("prompt-completion",), answer="completion"),
        Format("prompt-target", ("prompt", "target"), _columns("prompt", "target"), answer="target"),
        Format("flan", ("inputs", "targets"), _columns("inputs", "targets"), answer="targets"),
        # The prompt of https://github.com/EleutherAI/lm-evaluation-harness/tree/main/lm_eval/tasks/gsm8k
        Format(
            "question-answer",
            ("question", "answer"),
            _columns("question", "answer", "Question: {}\nAnswer: "),
            aliases=("gsm8k",),
            answer="answer",
        ),
        _instruction("alpaca-preference", "input", "chosen"),
        _exchange("preference", "prompt", "chosen"),
        # Intel/orca_dpo_pairs and the data sets made after it, which axolotl reads as turns of a chat.
        _exchange("question-preference", "question", "chosen", chat=True),
        _exchange("input-preference", "input", "chosen", chat=True),
        Format(
            "hh-rlhf",
            ("chosen",),
            _answer_only("chosen"),
            lambda record: isinstance(record["chosen"], str),
            looks="chosen is a text",
        ),
        Format(
            "implicit-preference",
            ("chosen",),
            partial(as_exchange, source=None, target="chosen"),
            lambda record: isinstance(record["chosen"], list),
            looks="chosen is a list of messages",
            consumed=("chosen",),
            uses=("rejected",),
        ),
        Format("chip2", ("text",), _chip2, **_starts("text", "<human>:")),
        Format("oasst1", ("text",), _answer_only("text"), **_starts("text", "### Human:")),
        Format("text", ("text",), _answer_only("text")),
    )
}
