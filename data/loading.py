"""Named data sets and local files → formatted, checked, split and tokenized data sets: all that a run needs of them.

    module = make_data_module(tokenizer, data, training)         # prints what is trained on
    Trainer(..., train_dataset=module.train, data_collator=module.collator)

The data are five values, each made once of the one before: sources (`data.sources`), rows (`data.formats`,
`data.rows`), splits (`data.splits`), tokens (`data.tokens`), and the report on all of them (`data.report`). Whatever is
wrong with the data is a `DataError` that says where it is and what to do.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arguments.data import DataArguments
from arguments.training import TrainingArguments
from common.errors import DataError
from common.text import counted
from data.cache import cache_directory, key_of
from data.formats.layout import LAYOUTS
from data.rows import sample_tools
from data.selection import Request, Rows, Splits, first_rows, load_rows, say
from data.sources.mixes import Names, parse_names

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from data.batches.collator import DataCollatorForCausalLM
    from data.batches.shared import SharedBatchCollator, SharedStepCollator
    from data.batches.steps import StepCollator

    AnyStepCollator = StepCollator | SharedStepCollator


BATCH_SIZE = "per_device_train_batch_size"
TRIAL_ROWS = 4
UNEVEN = 1.5  # times the mean: how many tokens of one micro-batch may be supervised


@dataclass(frozen=True)
class Tokens(Splits):
    """Tokenized rows, and what tokenizing dropped: (split, file, reason, place) of each row."""

    dropped: tuple[tuple[str, str, str, int], ...] = ()


@dataclass(frozen=True)
class DataModule:
    """All that a run needs of its data.

    Attributes:
        train, eval, predict: `datasets.Dataset`s in the order of the file, with the columns of `data.rows` and
            `data.tokens`; None where the run does not train, evaluate or predict. The last two hold the same rows.
        collator: makes the batches.
        step_collator: makes the micro-batches of a step; None where the library does.
        report: what `data.report` says of all this.
        digest: changes with the content of --dataset (None where it was not read).
        template_digest: changes with the chat template (None without conversations).
        prompt_format: how questions were laid out (None where there were none).
        layout: how the rows of a step stand in sequences; see `training.shortcuts.attention.row_layout`.
    """

    train: "Dataset | None"
    eval: "Dataset | None"
    predict: "Dataset | None"
    collator: "DataCollatorForCausalLM"
    step_collator: "AnyStepCollator | None"
    report: dict[str, Any]
    digest: str | None
    template_digest: str | None
    prompt_format: str | None
    layout: str | None

    def batches_by(self, collator: "DataCollatorForCausalLM") -> "DataCollatorForCausalLM | SharedBatchCollator":
        """Return what makes batches of evaluation: sequences where training has them, else padded rows.

        Nothing is dropped in evaluation, so that what rows begin with is shared whatever training does.
        """
        if self.layout is None:
            return collator
        from data.batches.shared import SharedBatchCollator

        return SharedBatchCollator(collator)

    @property
    def largest_micro_batch(self) -> tuple[int, int]:
        """The most tokens of a micro-batch, padding included, and about how many of them are supervised."""
        step, train = self.step_collator, self.report["train"]
        tokens = (step and step.most_tokens) or train["whole"]["max"] * self.report["batching"][BATCH_SIZE]
        return tokens, min(tokens, math.ceil(UNEVEN * train["supervised"]["share"] * tokens))

    @property
    def trial(self) -> list[dict[str, Any]]:
        """The shortest rows as a step, where rows stand behind one another in sequences; else nothing."""
        if self.step_collator is None or self.step_collator.strategy not in ("packed", "unpadded", "shared"):
            return []
        from data.tokens.store import column

        shortest = column(self.train, "length").argsort(kind="stable")[:TRIAL_ROWS]
        return self.step_collator([self.train[int(number)] for number in shortest])


def make_data_module(
    tokenizer: "PreTrainedTokenizerBase",
    data: DataArguments,
    training: TrainingArguments,
    *,
    names: Names | None = None,
    token: bool = False,
    context: int | None = None,
    layout: str | None = None,
) -> DataModule:
    """Load, format, check, split and tokenize what the flags name, and say what is trained on.

    Where there are conversations, the tokenizer gets the chat template that is used (`--chat_template`), so that it is
    saved with the adapter.

    Args:
        tokenizer: of the base model, with EOS and pad token.
        names: what --dataset and --eval_dataset name; None reads it from `data`.
        token: whether a stored token of the hub is required and sent.
        context: how many tokens the model was made for, where that is known.
        layout: how the rows of a step stand in sequences; see `training.shortcuts.attention.row_layout`.

    Raises:
        DataError: the data cannot be used as asked; the message is for the user.
    """
    has_template = bool(data.chat_template or tokenizer.chat_template)
    # Servers ask a model by its chat template, so that is the default where it has one.
    prompt_format = data.prompt_format or ("chat" if has_template else "alpaca")
    request = Request(data, training, names or parse_names(data), token, prompt_format)
    rows = load_rows(request)
    splits = first_rows(rows, data)
    tools = [sample for _, split in splits.items() for sample in sample_tools(split)]
    say_prompt_format(rows, request, has_template, mixed=bool(tools))
    text_marks = _choose_template(tokenizer, data.chat_template, tools)
    tokens = _tokenize(splits, tokenizer, data, training)
    collator = _collator(tokenizer, data, training, text_marks)
    step = _step_collator(collator, data, training, tokens.train, layout)
    return DataModule(
        train=tokens.train,
        eval=tokens.eval if training.do_eval else None,
        predict=tokens.eval if training.do_predict else None,
        collator=collator,
        step_collator=step,
        report=_report(rows, tokens, step, data, training, context),
        digest=rows.digest,
        template_digest=key_of(tokenizer.chat_template) if tools else None,
        prompt_format=request.prompt_format if rows.prompts else None,
        layout=layout,
    )


# ---- Notes on prompts and templates --------------------------------------------------------------------------------


def say_prompt_format(rows: Rows, request: Request, has_template: bool, mixed: bool) -> None:
    """Say how questions are laid out where there is a choice, and how to get another.

    Args:
        mixed: whether there are conversations too.
    """
    count, flag = rows.prompts, request.data.prompt_format
    questions = f"{counted(count, 'question')} {LAYOUTS[request.prompt_format]}"
    if not count:
        if flag and rows.uses:
            say(f"note: --prompt_format {flag} has no effect: no row is a question and its answer")
    elif request.prompt_format == "chat":
        say(f"prompts: {questions}; --prompt_format alpaca: {LAYOUTS['alpaca']}")
    elif has_template or flag:
        say(f"prompts: {questions}; --prompt_format chat: {LAYOUTS['chat']}, as servers ask them")
    elif mixed:
        say(f"note: {questions}, beside conversations; --prompt_format chat: all as turns of one template")


def _choose_template(tokenizer: "PreTrainedTokenizerBase", asked: str | None, samples: list[list | None]) -> list[str]:
    """Give the tokenizer its chat template where there are conversations, and say which and what is unusual about it.

    Args:
        samples: as `sample_tools` gives them.

    Returns:
        what closes answers, where that is ordinary text to the tokenizer.
    """
    if not samples:
        if asked is not None:
            say(f"note: --chat_template {asked} has no effect: no row is a conversation")
        return []
    from data.tokens.templates import ChatRenderer, choose_template

    say(f"conversations: chat template is {choose_template(tokenizer, asked)}")
    renderer = ChatRenderer(tokenizer)
    for note in dict.fromkeys(note for tools in samples for note in renderer.notes(tools)):
        say(f"note: {note}")
    return list(dict.fromkeys(mark for tools in samples for mark in renderer.text_marks(tools)))


# ---- Tokens, batches, report ---------------------------------------------------------------------------------------


def _collator(
    tokenizer: "PreTrainedTokenizerBase", data: DataArguments, training: TrainingArguments, text_marks: list[str]
) -> "DataCollatorForCausalLM":
    from data.batches.collator import DataCollatorForCausalLM  # imports torch

    return DataCollatorForCausalLM(
        tokenizer=tokenizer,
        source_max_len=data.source_max_len,
        target_max_len=data.target_max_len,
        train_on_source=training.train_on_source,
        predict_with_generate=training.predict_with_generate or training.do_predict,
        text_marks=text_marks,
    )


def _tokenize(
    splits: Splits, tokenizer: "PreTrainedTokenizerBase", data: DataArguments, training: TrainingArguments
) -> Tokens:
    """Return the tokenized rows that can be trained on, and which others there were."""
    from data.tokens.encoder import NO_ANSWER, RowEncoder
    from data.tokens.pairs import PairEncoder
    from data.tokens.store import tokenize
    from data.tokens.templates import SUCH_AS

    pairs = PairEncoder(tokenizer, data.source_max_len, data.target_max_len)
    encoder, cache = RowEncoder(pairs, training.train_on_source), cache_directory(training.cache_dir)
    tokens, dropped = {}, []
    for name, rows in splits.items():
        tokens[name], unusable = tokenize(rows, encoder, cache)
        reasons: dict[str, str] = {}  # reason without its example → the same with the example of the first row
        for row in unusable.select_columns(["dropped", "place", "file"]):
            reason = reasons.setdefault(row["dropped"].partition(SUCH_AS)[0], row["dropped"])
            dropped.append((name, row["file"], reason, row["place"]))
        message = f"dropped: {', '.join(reasons.values())}"
        if not len(tokens[name]):
            too_long = NO_ANSWER in reasons
            advice = "larger limits, or shorter rows" if too_long else "--chat_template default, or other rows"
            raise DataError(f"no {name} row is left: {len(unusable):,} {message}\ntry {advice}")
        if reasons:
            say(f"{name}: {len(unusable):,} of {len(rows):,} rows {message}")
    return Tokens(**tokens, dropped=tuple(dropped))


def _step_collator(
    collator: "DataCollatorForCausalLM",
    data: DataArguments,
    training: TrainingArguments,
    train: "Dataset | None",
    layout: str | None,
) -> "AnyStepCollator | None":
    """Return what makes the micro-batches of a step, or None where the library does."""
    if train is None or not training.step_batching:
        return None
    from data.batches.shared import SharedStepCollator
    from data.batches.steps import StepCollator
    from data.tokens.store import column

    lengths = column(train, "length").tolist()
    size, most = training.per_device_train_batch_size, training.max_tokens_per_batch
    if layout is not None:
        # No more than the largest padded micro-batch of so many rows would have.
        step = SharedStepCollator(collator, most or size * max(lengths), share=layout == "shared")
    else:
        packed = (most or data.source_max_len + data.target_max_len) if training.packing else None
        step = StepCollator(collator, batch_size=size, max_tokens=most, pack_length=packed)
    step.check(lengths, lambda row: "{file}, {unit} {place}".format(**train[row]))
    return step


def _report(
    rows: Rows,
    tokens: Tokens,
    step: "StepCollator | None",
    data: DataArguments,
    training: TrainingArguments,
    context: int | None,
) -> dict[str, Any]:
    """Return the data report, printed where rows were asked for."""
    from data.report.numbers import build_report, count_batches, count_duplicates, source_report
    from data.report.text import format_report

    limits = {
        "source_max_len": data.source_max_len,
        "target_max_len": data.target_max_len,
        "train_on_source": training.train_on_source,
        "max_steps": training.max_steps,
        "context": context,
    }
    report = build_report(
        [source_report(use, [row for row in tokens.dropped if use.purpose in (row[0], "both")]) for use in rows.uses],
        {"train": tokens.train, "eval": tokens.eval},
        limits,
        count_batches(tokens.train, step, training),
        count_duplicates(tokens.train, tokens.eval),
    )
    if rows.uses:
        print(format_report(report), flush=True)
    return report
