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
from data.formats.fields import SkipRow, is_empty, text, truth
from data.formats.instructions import instruction, seed_task, unnatural_instructions
from data.formats.tasks import flat_task_row, task_rows

Formatter = Callable[[Mapping], dict | list[dict | SkipRow]]
# These columns say whether an answer is a good one, in data for KTO (https://arxiv.org/abs/2402.01306); the first is
# TRL's name, the other LLaMA-Factory's.
MARKS = ("label", "kto_tag")


def _as_pair(record: Mapping, source: str, target: str, prompt: str) -> dict:
    """Return the answer in column `target`, after what column `source` asks in the words of `prompt` around "{}"."""
    question = text(record, source)
    asked = {} if prompt == "{}" else {"asked": question}
    return {"input": prompt.replace("{}", question), "output": text(record, target), **asked}


def _as_answer(record: Mapping, column: str) -> dict:
    """Return a whole column as an answer that no prompt stands before."""
    return {"input": "", "output": text(record, column)}


def _chip2(record: Mapping) -> dict:
    turns = text(record, "text").split("\n<bot>: ")
    if len(turns) != 2:
        # The published script reads the first answer only, so that later ones would be lost without a word.
        raise SkipRow("not exactly one answer that starts with '\\n<bot>: '")
    return {"input": turns[0].replace("<human>: ", ""), "output": turns[1]}


def waits(messages: Any) -> bool:
    """Return whether these are messages of which the last is not the assistant's."""
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
    formatter: Formatter
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


def _instances(name: str, columns: tuple[str, ...], formatter: Formatter, field: str, **options: Any) -> Format:
    """Return a format of records with `instances`, the first of which has a field of this name."""

    def looks_right(record: Mapping) -> bool:
        instances = record["instances"]
        first = instances[0] if isinstance(instances, list) and instances else None
        return isinstance(first, Mapping) and field in first

    return Format(name, columns, formatter, looks_right, looks=f"instances with {field}", **options)


def _unnatural(name: str, *columns: str, **options: Any) -> Format:
    formatter = partial(unnatural_instructions, reformulations="reformulations" in columns)
    consumed = ("instances", "reformulations")
    return _instances(name, columns, formatter, "instruction_with_input", consumed=consumed, **options)


def _pair(name: str, source: str, target: str, prompt: str = "{}", **options: Any) -> Format:
    formatter = partial(_as_pair, source=source, target=target, prompt=prompt)
    return Format(name, (source, target), formatter, answer=target, **options)


def _exchange(name: str, source: str, target: str, chat: bool = False, **options: Any) -> Format:
    return Format(name, (source, target), partial(as_exchange, source=source, target=target, chat=chat), **options)


def _chat(name: str, column: str) -> Format:
    formatter = partial(as_conversation, column=column)
    return Format(name, (column,), formatter, consumed=(column, "tools"), chat=True)


def _chat_preference(name: str, column: str, **options: Any) -> Format:
    return _exchange(name, column, "chosen", chat=True, consumed=(column, "chosen", "tools"), **options)


def _text(name: str, column: str, start: str = "", formatter: Formatter | None = None) -> Format:
    """Return a format of one column, a text that starts so: an answer as a whole, or what `formatter` makes of it."""

    def looks_right(record: Mapping) -> bool:
        return isinstance(record[column], str) and record[column].startswith(start)

    looks = f"{column} starts with {start}" if start else f"{column} is a text"
    return Format(name, (column,), formatter or partial(_as_answer, column=column), looks_right, looks=looks)


# The order is that of detection: the first format that fits wins, so what asks for more stands first.
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
        _unnatural("unnatural-instructions-full", "instances", "reformulations", nullable=("reformulations",)),
        _unnatural("unnatural-instructions", "instances", aliases=("unnatural-instructions-core",)),
        _instances("seed-tasks", ("instruction", "instances"), seed_task, "output", consumed=("instances",)),
        _chat_preference("sharegpt-preference", "conversations"),
        _chat_preference(
            "messages-preference",
            "messages",
            looks_right=lambda record: waits(record["messages"]),
            looks="messages end before the answer",
        ),
        _chat("sharegpt", "conversations"),
        _chat("messages", "messages"),
        _instruction("alpaca", "input", "output", answer="output"),
        _instruction("dolly", "context", "response", ("context",), answer="response", nullable=("context",)),
        _pair("input-output", "input", "output"),
        _exchange("self-instruct", "prompt", "completion", aliases=("prompt-completion",), answer="completion"),
        _pair("prompt-target", "prompt", "target"),
        _pair("flan", "inputs", "targets"),
        # The prompt is that of https://github.com/EleutherAI/lm-evaluation-harness/tree/main/lm_eval/tasks/gsm8k
        _pair("question-answer", "question", "answer", "Question: {}\nAnswer: ", aliases=("gsm8k",)),
        _instruction("alpaca-preference", "input", "chosen"),
        _exchange("preference", "prompt", "chosen"),
        # Intel/orca_dpo_pairs and the sets made after it have these columns; axolotl reads them as turns of a chat.
        _exchange("question-preference", "question", "chosen", chat=True),
        _exchange("input-preference", "input", "chosen", chat=True),
        _text("hh-rlhf", "chosen"),
        Format(
            "implicit-preference",
            ("chosen",),
            partial(as_exchange, source=None, target="chosen"),
            lambda record: isinstance(record["chosen"], list),
            looks="chosen is a list of messages",
            consumed=("chosen",),
            uses=("rejected",),
        ),
        _text("chip2", "text", "<human>:", _chip2),
        _text("oasst1", "text", "### Human:"),
        Format("text", ("text",), partial(_as_answer, column="text")),
    )
}
