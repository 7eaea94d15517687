"""Prompts of Super-NaturalInstructions in the layout of Tk-Instruct (https://arxiv.org/abs/2204.07705).

    task_rows({"Definition": "Add.", "Instances": [{"input": "5 6", "output": ["11"]}]})
    # [{"input": "Definition: Add.…", "output": "11"}]

The layout is that of DataCollatorForNI with the flags of the published training script: the definition and at most two
positive examples, without their explanations. https://github.com/yizhongw/Tk-Instruct/blob/main/src/ni_collator.py
That collator also leaves out the examples that do not fit its source length; here the prompt is cut like any other.
"""

import string
from collections.abc import Mapping
from typing import Any

from data.formats.fields import SkipRow, items, pairs, spread, text, texts

POSITIVE_EXAMPLES = 2


def task_prompt(definition: str, examples: list[tuple[str, str]], question: str) -> str:
    """Return the prompt for one instance.

    >>> print(task_prompt("Add.", [("1 2", "3")], "2 2") + "|")
    Definition: Add.
    <BLANKLINE>
     Positive Example 1 -
    Input: 1 2.
     Output: 3.
    <BLANKLINE>
    Now complete the following example -
    Input: 2 2.
    Output: |
    """
    parts = [_ended(f"Definition: {definition.strip()}") + "\n\n"]
    for number, (source, target) in enumerate(examples, 1):
        source, target = _ended(f"Input: {source.strip()}"), _ended(f" Output: {target.strip()}")
        parts.append(f" Positive Example {number} -\n{source}\n{target}\n\n")
    question = _ended(f"Input: {question.strip()}")
    return "".join(parts) + f"Now complete the following example -\n{question}\nOutput: "


def _ended(line: str) -> str:
    return line if line[-1] in string.punctuation else line + "."


def task_rows(record: Mapping) -> list[dict | SkipRow]:
    """Return the rows of a whole task file: one for each instance and each of its reference outputs.

    Raises:
        SkipRow: its definition, its examples or its list of instances cannot be read.
    """
    definition = texts(record, "Definition")[0]  # it is a text in the files of 2021, and a list of one text since
    examples = items(record, "Positive Examples") if record.get("Positive Examples") else []
    examples = [
        (text(example, "input", "a positive example"), text(example, "output", "a positive example"))
        for example in examples[:POSITIVE_EXAMPLES]
    ]

    def rows_of(instance: Any) -> list[dict | SkipRow]:
        question = text(instance, "input", "an instance")
        return pairs(task_prompt(definition, examples, question), texts(instance, "output", "an instance"))

    return spread(items(record, "Instances"), rows_of)


def flat_task_row(record: Mapping) -> dict:
    """Return the row of one line of a hub copy that has the definition beside each instance, and no examples."""
    prompt = task_prompt(text(record, "definition"), [], text(record, "inputs"))
    return {"input": prompt, "output": text(record, "targets")}
