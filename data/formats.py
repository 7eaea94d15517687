"""How records of each data format become what is trained on: one row of FORMATS each.

A formatter is a pure function of one record. It returns a pair {"input": prompt, "output": what is learned}, or a
conversation (see conversations.py), or a list of these where one record holds several examples. What cannot be trained
on raises `SkipRow` with the reason: it is dropped, counted and named by its line. In a list, a SkipRow in the place of
an example drops that example alone.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from data.conversations import ROLES, as_chosen, as_conversation
from data.fields import DataError, SkipRow, items, pairs, spread, text, texts
from data.tasks import flat_task_row, task_rows

# The prompts of Stanford Alpaca as the published QLoRA runs had them, with the space after "Response:".
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
# The stop token of GPT-3, which published fine-tuning files end their completions with as text. To another model it is
# letters, which it would learn to write before its own stop token.
GPT3_STOP = "<|endoftext|>"


def extract_alpaca_dataset(example: Mapping) -> dict[str, str]:
    """Return {"input": prompt} for a record with `instruction` and, where there is one, `input`."""
    # A null input is how some exports write an absent one.
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


def _columns(source: str, target: str, prompt: str = "{}") -> Callable[[Mapping], dict]:
    """Return a formatter that takes the answer from column `target`, and what stands in `prompt` from `source`."""
    return lambda record: {"input": prompt.replace("{}", text(record, source)), "output": text(record, target)}


def _answer_only(column: str) -> Callable[[Mapping], dict]:
    """Return a formatter that learns a whole column, with no prompt before it."""
    return lambda record: {"input": "", "output": text(record, column)}


def _instruction(context: str, answer: str) -> Callable[[Mapping], dict | list[dict | SkipRow]]:
    """Return a formatter that puts `instruction` and the column `context`, if any, into the Alpaca prompt.

    A list in column `answer` holds several reference answers: one row each.
    """

    def convert(record: Mapping) -> dict | list[dict | SkipRow]:
        prompt, answers = _alpaca_prompt(text(record, "instruction"), record, context), texts(record, answer)
        is_one = isinstance(record[answer], str)
        return {"input": prompt, "output": answers[0]} if is_one else pairs(prompt, answers)

    return convert


def _alpaca_prompt(instruction: str, record: Mapping, context: str, of: str = "") -> str:
    source = "" if record.get(context) is None else text(record, context, of)
    return extract_alpaca_dataset({"instruction": instruction, "input": source})["input"]


def _prompt_completion(record: Mapping) -> dict:
    return {"input": text(record, "prompt"), "output": text(record, "completion").removesuffix(GPT3_STOP)}


def _chip2(record: Mapping) -> dict:
    turns = text(record, "text").split("\n<bot>: ")
    if len(turns) != 2:
        # The published script reads the first answer only; what comes after it would be lost without a word.
        raise SkipRow("not exactly one answer that starts with '\\n<bot>: '")
    return {"input": turns[0].replace("<human>: ", ""), "output": turns[1]}


def _unnatural_instructions(record: Mapping, reformulations: bool = False) -> list[dict | SkipRow]:
    def rows_of(instance: Any, of: str) -> list[dict | SkipRow]:
        return pairs(text(instance, "instruction_with_input", of), [text(instance, "output", of)])

    rows = spread(items(record, "instances"), partial(rows_of, of="an instance"))
    if reformulations and record.get("reformulations"):  # null or empty where a record has none
        rows += spread(items(record, "reformulations"), partial(rows_of, of="a reformulation"))
    return rows


def _seed_task(record: Mapping) -> list[dict | SkipRow]:
    instruction = text(record, "instruction")

    def rows_of(instance: Any) -> list[dict | SkipRow]:
        answer = text(instance, "output", "an instance")
        return pairs(_alpaca_prompt(instruction, instance, "input", "an instance"), [answer])

    return spread(items(record, "instances"), rows_of)


def _starts(column: str, start: str) -> Callable[[Mapping], bool]:
    return lambda record: isinstance(record[column], str) and record[column].startswith(start)


def _instances_have(name: str) -> Callable[[Mapping], bool]:
    def looks_right(record: Mapping) -> bool:
        instances = record["instances"]
        first = instances[0] if isinstance(instances, list) and instances else None
        return isinstance(first, Mapping) and name in first

    return looks_right


@dataclass(frozen=True)
class Format:
    """One data format.

    Attributes:
        name: what `--dataset_format` calls it.
        columns: columns that every record has; detection asks for all of them.
        convert: record → pair, conversation, or a list of these and of `SkipRow`s.
        looks_right: asked about a record that has the columns, where these alone do not tell formats apart.
        consumed: columns that are in what `convert` returns and that are not repeated beside it.
        aliases: other names of it.
        looks: what `looks_right` asks for, in words.
        answer: the column of `columns` that holds the answer, where a question without one can still be predicted.
        chat: whether its rows are conversations, in the column `columns[0]`.
    """

    name: str
    columns: tuple[str, ...]
    convert: Callable[[Mapping], dict | list[dict | SkipRow]]
    looks_right: Callable[[Mapping], bool] = lambda record: True
    consumed: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    looks: str = ""
    answer: str | None = None
    chat: bool = False


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
            partial(_unnatural_instructions, reformulations=True),
            _instances_have("instruction_with_input"),
            looks="instances with instruction_with_input",
            consumed=("instances", "reformulations"),
        ),
        Format(
            "unnatural-instructions",
            ("instances",),
            _unnatural_instructions,
            _instances_have("instruction_with_input"),
            looks="instances with instruction_with_input",
            consumed=("instances", "reformulations"),
            aliases=("unnatural-instructions-core",),
        ),
        Format(
            "seed-tasks",
            ("instruction", "instances"),
            _seed_task,
            _instances_have("output"),
            looks="instances with output",
            consumed=("instances",),
        ),
        Format(
            "sharegpt-preference", ("conversations", "chosen"), as_chosen, consumed=("conversations", "chosen", "tools")
        ),
        Format("sharegpt", ("conversations",), as_conversation, consumed=("conversations", "tools"), chat=True),
        Format(
            "messages",
            ("messages",),
            partial(as_conversation, column="messages"),
            consumed=("messages", "tools"),
            chat=True,
        ),
        Format("alpaca", ("instruction", "output"), _instruction("input", "output"), answer="output"),
        Format("dolly", ("instruction", "context", "response"), _instruction("context", "response"), answer="response"),
        Format("input-output", ("input", "output"), _columns("input", "output"), answer="output"),
        Format(
            "self-instruct",
            ("prompt", "completion"),
            _prompt_completion,
            aliases=("prompt-completion",),
            answer="completion",
        ),
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
        Format("hh-rlhf", ("chosen",), _answer_only("chosen"), _starts("chosen", ""), looks="chosen is a text"),
        Format("chip2", ("text",), _chip2, _starts("text", "<human>:"), looks="text starts with <human>:"),
        Format(
            "oasst1",
            ("text",),
            _answer_only("text"),
            _starts("text", "### Human:"),
            looks="text starts with ### Human:",
        ),
        Format("text", ("text",), _answer_only("text")),
    )
}


@dataclass(frozen=True)
class NamedDataset:
    """What `--dataset NAME` stands for: its format and where it is (keyword arguments of `datasets.load_dataset`)."""

    format: str
    source: dict[str, Any]


# No hub can be reached where the tests run: repositories and columns are as their cards and users' code have them.
NAMED_DATASETS = {
    "alpaca": NamedDataset("alpaca", {"path": "tatsu-lab/alpaca"}),
    "alpaca-clean": NamedDataset("alpaca", {"path": "yahma/alpaca-cleaned"}),
    "alpaca-gpt4": NamedDataset("alpaca", {"path": "vicgalle/alpaca-gpt4"}),
    "chip2": NamedDataset("chip2", {"path": "laion/OIG", "data_files": "unified_chip2.jsonl"}),
    "dolly": NamedDataset("dolly", {"path": "databricks/databricks-dolly-15k"}),
    # The whole is 14 folders and hundreds of GB. This is the first part of each zero-shot folder (cot, dialog, flan,
    # niv2, t0): 600 MB by the sizes on its pages.
    "flan-v2": NamedDataset("flan", {"path": "Open-Orca/FLAN", "data_files": {"train": "*_zsopt_data/part.0.parquet"}}),
    # Its main branch is a loading script, which datasets 4 and later refuse to run; the hub keeps a Parquet copy on a
    # branch of its own, one folder for each configuration. https://github.com/huggingface/datasets/issues/8012
    "self-instruct": NamedDataset(
        "self-instruct",
        {
            "path": "yizhongw/self_instruct",
            "revision": "refs/convert/parquet",
            "data_files": {"train": "self_instruct/**/*.parquet"},
        },
    ),
    "hh-rlhf": NamedDataset("hh-rlhf", {"path": "Anthropic/hh-rlhf"}),
    "longform": NamedDataset("input-output", {"path": "akoksal/LongForm"}),
    "oasst1": NamedDataset("oasst1", {"path": "timdettmers/openassistant-guanaco"}),
    "guanaco": NamedDataset("oasst1", {"path": "timdettmers/openassistant-guanaco"}),
    # One line for each instance of each task, the definition beside it: millions of rows, and no positive examples.
    # For the published prompts take the task files of https://github.com/allenai/natural-instructions.
    "supernatural-instructions": NamedDataset("natural-instructions", {"path": "Muennighoff/natural-instructions"}),
    "unnatural-instructions": NamedDataset("unnatural-instructions", {"path": "mrm8488/unnatural-instructions-core"}),
    "unnatural-instructions-core": NamedDataset(
        "unnatural-instructions", {"path": "mrm8488/unnatural-instructions-core"}
    ),
    "unnatural-instructions-full": NamedDataset(
        "unnatural-instructions-full", {"path": "mrm8488/unnatural-instructions-full"}
    ),
}
REFUSED_DATASETS = {"vicuna": "its training data was never released"}


def as_question(record: Mapping, row: Format) -> Mapping:
    """Return a record that lacks its answer with an empty one in its place; any other as it is."""
    if row.answer is not None and record.get(row.answer) is None:
        return {**record, row.answer: ""}
    turns = record.get(row.columns[0]) if row.chat else None
    if isinstance(turns, list) and turns and isinstance(turns[-1], Mapping):
        last = turns[-1].get("role", turns[-1].get("from"))
        if isinstance(last, str) and ROLES.get(last) != "assistant":
            return {**record, row.columns[0]: [*turns, {"role": "assistant", "content": ""}]}
    return record


def detect_format(first: Mapping, questions: bool = False) -> Format:
    """Return the first format whose columns are all in `first`, the first record, and that it looks like.

    With `questions`, the column of the answer may be absent.

    Raises:
        DataError: nothing fits; names the columns found and what each format needs.
    """
    for missing_allowed in (False, True) if questions else (False,):
        for row in FORMATS.values():
            columns = [column for column in row.columns if not (missing_allowed and column == row.answer)]
            if all(column in first for column in columns) and row.looks_right(first):
                return row
    found = f"no format fits its columns: {', '.join(map(repr, first)) or 'none'}"
    if hint := _misspelt(first):
        raise DataError(f"{found}\n{hint}")
    needs = "\n".join(
        f"  {row.name}: {', '.join(row.columns)}" + (f" ({row.looks})" if row.looks else "") for row in FORMATS.values()
    )
    raise DataError(
        f"{found}\nformats and the columns that each needs:\n{needs}\n"
        "rename the columns, or try --dataset_format with the name of the format that is meant"
    )


def _misspelt(first: Mapping) -> str:
    """Return what to do where the columns are nearly those of a format, or the rows seem to stand in one of them."""
    plain = {str(name).strip().lower(): name for name in first}
    for row in FORMATS.values():
        missing = [column for column in row.columns if column not in first]
        near = [difflib.get_close_matches(column.lower(), plain, n=1, cutoff=0.8) for column in missing]
        if missing and all(near):
            named = (f"{plain[name]!r} to {column!r}" for column, [name] in zip(missing, near, strict=True))
            return f"rename {' and '.join(named)} (format {row.name})"
    for row in FORMATS.values():
        if row.answer in row.columns and all(column in first for column in row.columns if column != row.answer):
            return (
                f"there is no {row.answer!r} (format {row.name}): rename the column that holds the answer, or, to "
                "predict one, give the file as --eval_dataset, with --do_predict and without --do_eval"
            )
    for name, value in first.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            return f"are the rows the list in {name!r}? Write it to a file of its own: jq .{name} FILE"
    return ""


def find_format(name: str) -> Format:
    """Return the format called `name`, or that of the data set of this name (published scripts say alpaca-clean).

    Raises:
        DataError: there is no such format; gives the nearest name and the list.
    """
    known = {alias: row for row in FORMATS.values() for alias in row.aliases} | FORMATS
    known = {data_set: FORMATS[row.format] for data_set, row in NAMED_DATASETS.items()} | known
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise DataError(f"--dataset_format {name}: unknown{hint}\nformats: {', '.join(FORMATS)}")
