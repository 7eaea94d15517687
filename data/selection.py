"""Which rows a run trains and evaluates on: sources → formatted rows → splits.

    rows = load_rows(Request(data, training, parse_names(data), token=False, prompt_format="alpaca"))
    rows.train, rows.eval

A source is read in the same way whatever the run is for, so that the rows held out of training are those that a later
run evaluates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import indent
from typing import TYPE_CHECKING

from arguments.data import DataArguments
from arguments.training import TrainingArguments
from data.cache import cache_directory, key_of
from data.formats.detection import find_format
from data.named import NAMED_DATASETS
from data.rows import Account, format_source
from data.sources.files import Source
from data.sources.hub import EVAL_SPLITS, open_sources
from data.sources.mixes import Names, Part
from data.splits import count_held_out, mix_counts, shuffled, split_indices

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Request:
    """Which rows a run needs, and how they are read.

    Attributes:
        names: what --dataset and --eval_dataset name.
        token: whether a stored token of the hub is required and sent.
        prompt_format: how questions and answers are laid out; see `data.formats.layout`.
    """

    data: DataArguments
    training: TrainingArguments
    names: Names
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
        purpose: "train", "eval" or "both".
        weight: its share of a mix, or None.
    """

    rows: "Dataset"
    account: Account
    digest: str
    purpose: str
    weight: float | None = None


@dataclass(frozen=True)
class Splits:
    """Rows to train on, and rows to evaluate or predict: `datasets.Dataset`s, or None where they are not asked for."""

    train: "Dataset | None" = None
    eval: "Dataset | None" = None

    def items(self) -> list[tuple[str, "Dataset | None"]]:
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
        trained = sorted((use.digest, use.account.rows) for use in self.uses if use.purpose != "eval")
        return key_of(trained) if trained else None


def load_rows(request: Request) -> Rows:
    """Read and format what is to be trained and evaluated on.

    Evaluation and prediction take their rows from --eval_dataset, else from a split that the named data set brings,
    else from a seeded split of --dataset. That split is the same with and without training, so that the rows held out
    of training are the ones that a later run predicts on.
    """
    data, trains = request.data, request.training.do_train
    parts = request.names.train
    evaluated = load_evaluated(parts, request) if request.wants_eval else ()
    is_split = request.wants_eval and not evaluated
    sources = [request.open(part.name, "--dataset")["train"] for part in parts] if trains or is_split else []
    trained = load_parts(parts, sources, "both" if is_split else "train", request) if sources else ()
    train, held_out = mixed(trained, request.seed), mixed(evaluated, request.seed)
    if is_split:
        count = count_held_out(data.eval_dataset_size, len(train), data.dataset)
        train, held_out = map(train.select, split_indices(len(train), count, request.seed))
        say(f"{len(train) + count:,} kept = {len(train):,} train + {count:,} held out (seed {request.seed})")
    return Rows(train if trains else None, held_out, (*evaluated, *trained))


def load_evaluated(trained: Sequence[Part], request: Request) -> tuple[Use, ...]:
    """Return the rows of --eval_dataset, or of the split that a named data set brings; () where there are neither.

    Args:
        trained: the parts of --dataset.
    """
    named = request.names.eval
    flag, parts = ("--eval_dataset", named) if named else ("--dataset", trained)
    if len(parts) == 1 and parts[0].name in NAMED_DATASETS:
        splits = request.open(parts[0].name, flag)
        eval_split = next((splits[name] for name in EVAL_SPLITS if name in splits), None)
        if eval_split is not None:
            return load_parts(parts, [eval_split], "eval", request)
    if not named:
        return ()
    return load_parts(parts, [request.open(part.name, flag)["train"] for part in parts], "eval", request)


def load_parts(parts: Sequence[Part], sources: Sequence[Source], purpose: str, request: Request) -> tuple[Use, ...]:
    """Return the formatted rows of the sources of all parts, as many of each as its weight gives."""
    formatted = [format_rows(source, request) for source in sources]
    counts = mix_counts([len(rows) for rows, _ in formatted], [part.weight for part in parts])
    uses = []
    for part, source, (rows, account), count in zip(parts, sources, formatted, counts, strict=True):
        if len(parts) > 1:
            say(f"{part.name}: {count:,} of {account.rows:,} rows, {count / sum(counts):.1%} of the mix")
        if count < len(rows):
            rows = rows.select(split_indices(len(rows), count, request.seed)[1])
        uses.append(Use(rows, account, source.digest, purpose, part.weight))
    return tuple(uses)


def format_rows(source: Source, request: Request) -> tuple["Dataset", Account]:
    """Return the formatted rows of a source, by --dataset_format, its own format or its columns; and their account."""
    name, training = request.data.dataset_format or source.format, request.training
    # A question without its answer can be predicted; but rows of --dataset are split alike whatever the run is for.
    questions = bool(request.data.eval_dataset) and not (training.do_train or training.do_eval)
    cache = cache_directory(training.cache_dir)
    return format_source(source, find_format(name) if name else None, cache, questions, request.prompt_format)


def mixed(uses: Sequence[Use], seed: int) -> "Dataset | None":
    """Return the rows of all sources in one seeded order, so that the first N are of all of them; None of no source."""
    import datasets

    if len(uses) < 2:
        return uses[0].rows if uses else None
    rows = datasets.concatenate_datasets([use.rows for use in uses])
    return rows.select(shuffled(len(rows), seed))


def first_rows(rows: Rows, data: DataArguments) -> Splits:
    """Return the first rows of each split, as many as the flags allow."""
    limits = {"train": data.max_train_samples, "eval": data.max_eval_samples}
    first = {name: split.select(range(min(len(split), limits[name] or len(split)))) for name, split in rows.items()}
    if first:
        counts = (f"{len(first[name]):,} of {len(split):,} {name}" for name, split in rows.items())
        say(f"used: {', '.join(counts)} rows")
    return Splits(**first)


def say(text: str) -> None:
    """Print lines about the data, at once, as what follows may take long."""
    print(indent(text, "data: "), flush=True)
