"""Named data sets and local files → formatted, checked, split and tokenized data sets: all that a run needs of them.

    module = make_data_module(tokenizer, data, training)         # prints what is trained on
    Trainer(..., train_dataset=module.train, data_collator=module.collator)

The data are five values, each made once of the one before: sources (`data.sources`), rows (`data.formats`,
`data.rows`), splits (`data.splits`), tokens (`data.tokens`), and the report on all of them (`data.report`). Whatever is
wrong with the data is a `DataError` that says where it is and what to do.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from arguments.data import DataArguments
from arguments.training import TrainingArguments
from common.errors import DataError
from common.text import counted
from data.cache import cache_directory, key_of
from data.formats.detection import find_format
from data.formats.layout import LAYOUTS
from data.named import NAMED_DATASETS
from data.rows import Account, format_source, sample_tools
from data.sources.files import Source
from data.sources.hub import EVAL_SPLITS, open_sources
from data.sources.mixes import Part, parse_mix
from data.splits import count_held_out, mix_counts, shuffled, split_indices


@dataclass(frozen=True)
class Request:
    """Which rows a run needs, and how they are read.

    Attributes:
        token: whether a stored token of the hub is required and sent.
        prompt_format: how questions and answers are laid out; see `data.formats.layout`.
    """

    data: DataArguments
    training: TrainingArguments
    token: bool
    prompt_format: str

    @property
    def wants_eval(self) -> bool:
        """Whether rows are evaluated or predicted."""
        return self.training.do_eval or self.training.do_predict

    @property
    def seed(self) -> int:
        """The seed of splits and mixes."""
        return self.training.seed if self.training.data_seed is None else self.training.data_seed

    def open(self, name: str, flag: str) -> dict[str, Source]:
        """Return the splits of what `flag` names."""
        return open_sources(name, flag, self.training.cache_dir, self.token)


@dataclass(frozen=True)
class Use:
    """A source that was formatted, and what its rows are for.

    Attributes:
        rows: a `datasets.Dataset` with the columns of `data.rows`, as many rows as are used.
        account: what became of its records.
        digest: changes with its content.
        use: "train", "eval" or "both".
        weight: its share of a mix, or None.
    """

    rows: Any
    account: Account
    digest: str
    use: str
    weight: float | None = None


@dataclass(frozen=True)
class Splits:
    """Rows to train on, and rows to evaluate or predict: `datasets.Dataset`s, or None where they are not asked for."""

    train: Any = None
    eval: Any = None

    def items(self) -> list[tuple[str, Any]]:
        """Return the name and the rows of each split that there is."""
        return [(name, rows) for name, rows in (("train", self.train), ("eval", self.eval)) if rows is not None]


@dataclass(frozen=True)
class Rows(Splits):
    """Formatted rows before `max_*_samples` and tokenization, and their sources."""

    uses: tuple[Use, ...] = ()

    @property
    def prompts(self) -> int:
        """How many rows `--prompt_format` lays out."""
        return sum(use.account.prompts for use in self.uses)

    @property
    def digest(self) -> str | None:
        """A key of the content that is trained on, or None where none was read."""
        trained = sorted((use.digest, use.account.rows) for use in self.uses if use.use != "eval")
        return key_of(trained) if trained else None


@dataclass(frozen=True)
class Tokens(Splits):
    """Tokenized rows, and what tokenizing dropped: (split, file, reason, place) of each row."""

    lost: tuple[tuple[str, str, str, int], ...] = ()


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
    """

    train: Any
    eval: Any
    predict: Any
    collator: Any
    step_collator: Any
    report: dict[str, Any]
    digest: str | None
    template_digest: str | None
    prompt_format: str | None


def make_data_module(
    tokenizer: Any,
    data: DataArguments,
    training: TrainingArguments,
    *,
    token: bool = False,
    context: int | None = None,
) -> DataModule:
    """Load, format, check, split and tokenize what the flags name, and say what is trained on.

    Where there are conversations, the tokenizer gets the chat template that is used (`--chat_template`), so that it is
    saved with the adapter.

    Args:
        tokenizer: of the base model, with EOS and pad token.
        token: whether a stored token of the hub is required and sent.
        context: how many tokens the model was made for, where that is known.

    Raises:
        DataError: the data cannot be used as asked; the message is for the user.
    """
    has_template = bool(data.chat_template or tokenizer.chat_template)
    # Servers ask a model by its chat template, so that is the default where it has one.
    request = Request(data, training, token, data.prompt_format or ("chat" if has_template else "alpaca"))
    rows = load_rows(request)
    splits = _used(rows, data)
    tools = [sample for _, split in splits.items() for sample in sample_tools(split)]
    _say_prompt_format(rows, request, has_template, mixed=bool(tools))
    collator = _collator(tokenizer, data, training, _choose_template(tokenizer, data.chat_template, tools))
    tokens = _tokenize(splits, collator, training)
    step = _step_collator(collator, data, training, tokens.train)
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
    )


# ---- Sources → rows → splits ---------------------------------------------------------------------------------------


def load_rows(request: Request) -> Rows:
    """Read and format what is to be trained and evaluated on.

    Evaluation and prediction take their rows from --eval_dataset, else from a split that the named data set brings,
    else from a seeded split of --dataset. That split is the same with and without training, so that the rows held out
    of training are the ones that a later run predicts on.
    """
    data, trains = request.data, request.training.do_train
    parts = parse_mix(data.dataset, "--dataset") if trains or not data.eval_dataset else []
    evaluated = _load_evaluated(parts, request) if request.wants_eval else ()
    is_split = request.wants_eval and not evaluated
    sources = [request.open(part.name, "--dataset")["train"] for part in parts] if trains or is_split else []
    trained = _load(parts, sources, "both" if is_split else "train", request) if sources else ()
    train, held_out = _mixed(trained, request.seed), _mixed(evaluated, request.seed)
    if is_split:
        count = count_held_out(data.eval_dataset_size, len(train), data.dataset)
        train, held_out = map(train.select, split_indices(len(train), count, request.seed))
        _say(f"{len(train) + count:,} kept = {len(train):,} train + {count:,} held out (seed {request.seed})")
    return Rows(train if trains else None, held_out, (*evaluated, *trained))


def _load_evaluated(trained: Sequence[Part], request: Request) -> tuple[Use, ...]:
    """Return the rows of --eval_dataset, or of the split that a named data set brings; () where there are neither.

    Args:
        trained: the parts of --dataset.
    """
    other = request.data.eval_dataset
    flag, parts = ("--eval_dataset", parse_mix(other, "--eval_dataset")) if other else ("--dataset", trained)
    if len(parts) == 1 and parts[0].name in NAMED_DATASETS:
        splits = request.open(parts[0].name, flag)
        own = next((splits[name] for name in EVAL_SPLITS if name in splits), None)
        if own is not None:
            return _load(parts, [own], "eval", request)
    return _load(parts, [request.open(part.name, flag)["train"] for part in parts], "eval", request) if other else ()


def _load(parts: Sequence[Part], sources: Sequence[Source], use: str, request: Request) -> tuple[Use, ...]:
    """Return the formatted rows of the sources of all parts, as many of each as its weight gives."""
    formatted = [_format(source, request) for source in sources]
    counts = mix_counts([len(rows) for rows, _ in formatted], [part.weight for part in parts])
    uses = []
    for part, source, (rows, account), count in zip(parts, sources, formatted, counts, strict=True):
        if len(parts) > 1:
            _say(f"{part.name}: {count:,} of {account.rows:,} rows, {count / sum(counts):.1%} of the mix")
        if count < len(rows):
            rows = rows.select(split_indices(len(rows), count, request.seed)[1])
        uses.append(Use(rows, account, source.digest, use, part.weight))
    return tuple(uses)


def _format(source: Source, request: Request) -> tuple[Any, Account]:
    """Return the formatted rows of a source, by --dataset_format, its own format or its columns; and their account."""
    name, training = request.data.dataset_format or source.format, request.training
    # A question without its answer can be predicted; but rows of --dataset are split alike whatever the run is for.
    questions = bool(request.data.eval_dataset) and not (training.do_train or training.do_eval)
    cache = cache_directory(training.cache_dir)
    return format_source(source, find_format(name) if name else None, cache, questions, request.prompt_format)


def _mixed(uses: Sequence[Use], seed: int) -> Any:
    """Return the rows of all sources in one seeded order, so that the first N rows are of all of them too."""
    import datasets

    if len(uses) < 2:
        return uses[0].rows if uses else None
    rows = datasets.concatenate_datasets([use.rows for use in uses])
    return rows.select(shuffled(len(rows), seed))


def _used(rows: Rows, data: DataArguments) -> Splits:
    """Return the first rows of each split, as many as the flags allow."""
    limits = {"train": data.max_train_samples, "eval": data.max_eval_samples}
    used = {name: split.select(range(min(len(split), limits[name] or len(split)))) for name, split in rows.items()}
    if used:
        counts = (f"{len(used[name]):,} of {len(split):,} {name}" for name, split in rows.items())
        _say(f"used: {', '.join(counts)} rows")
    return Splits(**used)


# ---- What is said of them ------------------------------------------------------------------------------------------


def _say_prompt_format(rows: Rows, request: Request, has_template: bool, mixed: bool) -> None:
    """Say how questions are laid out where there is a choice, and how to get another.

    Args:
        mixed: whether there are conversations too.
    """
    count, asked = rows.prompts, request.data.prompt_format
    questions = f"{counted(count, 'question')} {LAYOUTS[request.prompt_format]}"
    if not count:
        if asked and rows.uses:
            _say(f"note: --prompt_format {asked} has no effect: no row is a question and its answer")
    elif request.prompt_format == "chat":
        _say(f"prompts: {questions}; --prompt_format alpaca: {LAYOUTS['alpaca']}")
    elif has_template or asked:
        _say(f"prompts: {questions}; --prompt_format chat: {LAYOUTS['chat']}, as servers ask them")
    elif mixed:
        _say(f"note: {questions}, beside conversations; --prompt_format chat: all as turns of one template")


def _choose_template(tokenizer: Any, asked: str | None, samples: list[list | None]) -> list[str]:
    """Give the tokenizer its chat template where there are conversations, and say which and what is unusual about it.

    Args:
        samples: as `sample_tools` gives them.

    Returns:
        what closes answers, where that is ordinary text to the tokenizer.
    """
    if not samples:
        if asked is not None:
            _say(f"note: --chat_template {asked} has no effect: no row is a conversation")
        return []
    from data.tokens.templates import ChatRenderer, choose_template

    _say(f"conversations: chat template is {choose_template(tokenizer, asked)}")
    renderer = ChatRenderer(tokenizer)
    for note in dict.fromkeys(note for tools in samples for note in renderer.notes(tools)):
        _say(f"note: {note}")
    return list(dict.fromkeys(mark for tools in samples for mark in renderer.text_marks(tools)))


def _say(text: str, prefix: str = "data: ") -> None:
    if int(os.environ.get("RANK", "0")) == 0:  # under a launcher, one process speaks for all
        print("\n".join(f"{prefix}{line}" for line in text.splitlines()), flush=True)


# ---- Tokens, batches, report ---------------------------------------------------------------------------------------


def _collator(tokenizer: Any, data: DataArguments, training: TrainingArguments, text_marks: list[str]) -> Any:
    from data.batches.collator import DataCollatorForCausalLM  # brings torch

    return DataCollatorForCausalLM(
        tokenizer=tokenizer,
        source_max_len=data.source_max_len,
        target_max_len=data.target_max_len,
        train_on_source=training.train_on_source,
        predict_with_generate=training.predict_with_generate or training.do_predict,
        text_marks=text_marks,
    )


def _tokenize(splits: Splits, collator: Any, training: TrainingArguments) -> Tokens:
    """Return the tokenized rows that can be trained on, and which others there were."""
    from data.tokens.encoder import RowEncoder
    from data.tokens.store import tokenize
    from data.tokens.templates import SUCH_AS

    encoder, cache = RowEncoder(collator.pairs, training.train_on_source), cache_directory(training.cache_dir)
    tokens, lost = {}, []
    for name, rows in splits.items():
        tokens[name], dropped = tokenize(rows, encoder, cache)
        reasons: dict[str, str] = {}  # reason without its example → the same with the example of the first row
        for row in dropped.select_columns(["dropped", "place", "file"]):
            reason = reasons.setdefault(row["dropped"].partition(SUCH_AS)[0], row["dropped"])
            lost.append((name, row["file"], reason, row["place"]))
        shown = ", ".join(reasons.values())
        if not len(tokens[name]):
            is_short = "within --source" in shown
            hint = "larger limits, or shorter rows" if is_short else "--chat_template default, or other rows"
            raise DataError(f"no {name} row is left: {len(dropped):,} dropped: {shown}\ntry {hint}")
        if reasons:
            _say(f"{name}: {len(dropped):,} of {len(rows):,} rows dropped: {shown}")
    return Tokens(**tokens, lost=tuple(lost))


def _step_collator(collator: Any, data: DataArguments, training: TrainingArguments, train: Any) -> Any:
    """Return what makes the micro-batches of a step, or None where the library does."""
    if train is None or not training.step_batching:
        return None
    from data.batches.steps import StepCollator
    from data.tokens.store import column

    longest = training.max_tokens_per_batch or data.source_max_len + data.target_max_len
    step = StepCollator(
        collator,
        batch_size=training.per_device_train_batch_size,
        max_tokens=training.max_tokens_per_batch,
        pack_length=longest if training.packing else None,
    )
    step.check(column(train, "length").tolist(), lambda row: "{file}, {unit} {place}".format(**train[row]))
    return step


def _report(
    rows: Rows, tokens: Tokens, step: Any, data: DataArguments, training: TrainingArguments, context: int | None
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
        [source_report(use, [row for row in tokens.lost if use.use in (row[0], "both")]) for use in rows.uses],
        {"train": tokens.train, "eval": tokens.eval},
        limits,
        count_batches(tokens.train, step, training),
        count_duplicates(tokens.train, tokens.eval),
    )
    if rows.uses:
        _say(format_report(report), prefix="")
    return report
