"""The text of an MMLU prompt as QLoRA's authors published it (https://arxiv.org/abs/2305.14314).

    format_prompt(Question("anatomy", "Which?", ("1", "2", "3", "4"), "B"), examples=[])

A prompt ends in "Answer:", behind which a letter is scored.
"""

import json
from typing import NamedTuple

LETTERS = ("A", "B", "C", "D")


class Question(NamedTuple):
    """A multiple-choice question of a subject; `letter` is that of the right one of the four `choices`."""

    subject: str
    text: str
    choices: tuple[str, ...]
    letter: str


def format_subject(subject: str) -> str:
    """Return a subject as the header has it, with a space in front of the first word too: " abstract algebra"."""
    return "".join(f" {word}" for word in subject.split("_"))


def format_question(question: Question) -> str:
    """Return the question, its choices on a line each, and "Answer:" without an answer."""
    choices = "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, question.choices, strict=True))
    return f"{question.text}{choices}\nAnswer:"


def format_prompt(question: Question, examples: list[Question]) -> str:
    """Return the header, the examples with their answers, and the question."""
    header = f"The following are multiple choice questions (with answers) about {format_subject(question.subject)}."
    answered = [f"{format_question(example)} {example.letter}" for example in examples]
    return "\n\n".join([header, *answered, format_question(question)])


def format_line(question: Question, examples: list[Question]) -> str:
    """Return the line of a prompt file: an object with `subject`, `input` (the prompt) and `output` (the letter)."""
    row = {"subject": question.subject, "input": format_prompt(question, examples), "output": question.letter}
    return json.dumps(row) + "\n"
