"""Named data sets and local files → formatted, checked, split and tokenized data sets.

    module = make_data_module(tokenizer, args)  # args holds the flags; prints what is trained on
    Trainer(..., train_dataset=module["train_dataset"], data_collator=module["data_collator"])

Sources (`data.sources`) are formatted row by row (`data.formats`, `data.rows`), mixed and split by seeded permutations
here, and tokenized (`data.tokens`). Whatever is wrong with the data is a `DataError` that says where it is and what to
do.
"""

import json
import math
import os
import random
from dataclasses import asdict, dataclass, field
from typing import Any

from common.errors import DataError
from data.formats.registry import NAMED_DATASETS, find_format
from data.sources.files import Source
from data.sources.mixes import EVAL_SPLITS, Part, open_sources, parse_mix

__all__ = ["DataError", "load_rows", "make_data_module"]


@dataclass
class Rows:
    """Formatted rows before `max_*_samples` and tokenization, and where they come from.

    Attributes:
        train, eval: `datasets.Dataset` with the columns of `data.rows`, or None where they were not asked for.
        sources: the account of each source as a dict, with its `use` ("train", "eval" or "both"), how many rows are
            `used`, and a `digest` of its content.
        prompt_format: how questions and answers are laid out; see `data.formats.layout`.
    """

    train: Any = None
    eval: Any = None
    sources: list[dict] = field(default_factory=list)
    prompt_format: str = "alpaca"


# Splitting and mixing


def count_held_out(size: float, rows: int, source: str) -> int:
    """Return how many of `rows` to hold out: `size` itself from 1 on, that fraction of the rows (rounded up) below 1.

    Raises:
        DataError: `size` is neither a whole number from 1 on nor between 0 and 1, or no row is left to train on.
    """
    if not size > 0 or (size > 1 and size % 1):
        raise DataError(f"--eval_dataset_size {size:g}: it must be a whole number of rows, or a fraction below 1")
    count = int(size) if size >= 1 else math.ceil(size * rows)
    if count >= rows:
        raise DataError(
            f"--eval_dataset_size {size:g} holds {count:,} rows out, but {source} has {rows:,}; none is left to train\n"
            "try --eval_dataset_size 0.1 (a tenth of the rows), or evaluate on all rows of a file: --eval_dataset FILE"
        )
    return count


def split_indices(rows: int, held_out: int, seed: int) -> tuple[list[int], list[int]]:
    """Return (train, held out) row numbers, each in the order of the file, from one seeded permutation."""
    order = list(range(rows))
    random.Random(seed).shuffle(order)
    return sorted(order[held_out:]), sorted(order[:held_out])


def mix_counts(rows: list[int], weights: list[float | None]) -> list[int]:
    """Return how many rows each part of a mix gives: all of them without weights; else as many as make the largest
    mix of these proportions in which no row is taken twice, one at least.
    """
    if None in weights:
        return rows
    total = min(count / weight for count, weight in zip(rows, weights, strict=True))
    return [max(1, min(count, round(total * weight))) for count, weight in zip(rows, weights, strict=True)]


def load_rows(args: Any, prompt_format: str = "alpaca") -> Rows:
    """Read and format what is to be trained and evaluated on; what is not asked for is None.

    Evaluation and prediction take their rows from `eval_dataset`, else from a split that the named data set brings,
    else from a seeded split of `dataset`. That split is the same with and without `do_train`, so that the rows held out
    of training are the ones that a later run predicts on.
    """
    other = getattr(args, "eval_dataset", None)
    wants_eval = args.do_eval or args.do_predict
    rows = Rows(prompt_format=prompt_format)
    if not (args.do_train or wants_eval):
        return rows
    seed = args.seed if getattr(args, "data_seed", None) is None else args.data_seed
    parts = parse_mix(args.dataset, "--dataset") if args.do_train or not other else []
    if wants_eval:
        eval_parts = parse_mix(other, "--eval_dataset") if other else parts
        flag = "--eval_dataset" if other else "--dataset"
        own = _own_eval_split(eval_parts, flag, args)
        if own is not None:
            rows.eval = _format(own, flag, "eval", args, rows)
        elif other:
            rows.eval = _load(eval_parts, flag, "eval", args, rows, seed)
    split = wants_eval and rows.eval is None
    if args.do_train or split:
        rows.train = _load(parts, "--dataset", "both" if split else "train", args, rows, seed)
    if split:
        count = count_held_out(args.eval_dataset_size, len(rows.train), args.dataset)
        train, held_out = split_indices(len(rows.train), count, seed)
        rows.train, rows.eval = rows.train.select(train), rows.train.select(held_out)
        _say(f"{len(train) + count:,} kept = {len(train):,} train + {count:,} held out (seed {seed})")
    return rows


def _own_eval_split(parts: list[Part], flag: str, args: Any):
    """Return the source of the evaluation rows that a named data set brings, where it is the only one; or None."""
    if len(parts) > 1 or parts[0].name not in NAMED_DATASETS:
        return None
    sources = open_sources(parts[0].name, flag, args)
    return next((sources[split] for split in EVAL_SPLITS if split in sources), None)


def _load(parts: list[Part], flag: str, use: str, args: Any, rows: Rows, seed: int):
    """Return the formatted rows of all parts, mixed by their weights and shuffled together by the seed."""
    import datasets

    made = [_format(open_sources(part.name, flag, args)["train"], flag, use, args, rows) for part in parts]
    counts = mix_counts([len(part) for part in made], [part.weight for part in parts])
    for number, (part, count) in enumerate(zip(made, counts, strict=True)):
        if count < len(part):
            made[number] = part.select(split_indices(len(part), count, seed)[1])
    if len(parts) == 1:
        return made[0]
    total = sum(counts)
    for part, count, account in zip(parts, counts, rows.sources[-len(parts) :], strict=True):
        account |= {"weight": part.weight, "used": count}
        _say(f"{part.name}: {count:,} of {account['kept']:,} rows, {count / total:.1%} of the mix")
    # In one seeded order, so that the first N rows are of all parts too.
    order = list(range(total))
    random.Random(seed).shuffle(order)
    return datasets.concatenate_datasets(made).select(order)


def _format(source: Source, flag: str, use: str, args: Any, rows: Rows):
    """Return the formatted rows of a source, by `--dataset_format`, its own or its columns; keep the account."""
    from data.rows import cache_directory, format_source

    name = args.dataset_format or source.format
    # To predict them takes no answers; but rows of --dataset are split the same way whatever the run is for.
    questions = flag == "--eval_dataset" and not (args.do_train or args.do_eval)
    row = find_format(name) if name else None
    made, account = format_source(source, row, cache_directory(args), questions, rows.prompt_format)
    rows.sources.append(asdict(account) | {"use": use, "used": len(made), "digest": source.digest})
    return made


def _first(rows: Any, limit: int | None, flag: str):
    if limit is not None and limit < 1:
        raise DataError(f"{flag} {limit}: at least 1 row is needed; leave the flag out to take all {len(rows):,}")
    return rows if rows is None or limit is None or limit >= len(rows) else rows.select(range(limit))


# The module


def make_data_module(tokenizer: Any, args: Any, rows: Rows | None = None) -> dict[str, Any]:
    """Load, format, check, split and tokenize what the flags in `args` name, and say what is trained on.

    `rows` are those that `load_rows` gave, where it was called before. Where there are conversations, the tokenizer
    gets the chat template that is used (`--chat_template`), so that it is saved with the adapter.

    Returns:
        train_dataset (None without `do_train`), eval_dataset (None without `do_eval`) and predict_dataset (None without
        `do_predict`; the same rows), each a `datasets.Dataset` in the order of the file, with the columns of
        `data.rows` and `data.tokens`; data_collator makes the batches; train_collator makes the micro-batches of a
        step (None where the library does); report is what `data.report.text` says of all this; digest changes with the
        content of --dataset (None where it was not read), template with the chat template (None without conversations);
        prompt_format is how questions were laid out (None where there were none).

    Raises:
        DataError: the data cannot be used as asked; the message is for the user.
    """
    from data.batches.collator import DataCollatorForCausalLM  # brings torch
    from data.rows import cache_directory, key_of
    from data.tokens.encoder import RowEncoder

    collator = DataCollatorForCausalLM(
        tokenizer=tokenizer,
        source_max_len=args.source_max_len,
        target_max_len=args.target_max_len,
        train_on_source=args.train_on_source,
        predict_with_generate=args.predict_with_generate,
    )
    rows = rows or load_rows(args, choose_prompt_format(args, tokenizer))
    train = _first(rows.train, args.max_train_samples, "--max_train_samples") if args.do_train else None
    held_out = _first(rows.eval, args.max_eval_samples, "--max_eval_samples")
    used = [f"{len(train):,} of {len(rows.train):,} train"] if train is not None else []
    used += [f"{len(held_out):,} of {len(rows.eval):,} eval"] if held_out is not None else []
    if used:
        _say(f"used: {', '.join(used)} rows")
    tools = _sample_tools([split for split in (train, held_out) if split is not None])
    conversations = bool(tools)
    _say_prompt_format(rows, tokenizer, args, conversations)
    collator.text_marks = _choose_template(tokenizer, getattr(args, "chat_template", None), tools)
    trained = sorted((a["digest"], a["kept"]) for a in rows.sources if a["use"] != "eval")
    encoder, cache = RowEncoder(collator), cache_directory(args)
    train = None if train is None else _tokenize(train, encoder, cache, "train", rows)
    held_out = None if held_out is None else _tokenize(held_out, encoder, cache, "eval", rows)
    step = _step_collator(collator, args, train)
    return {
        "train_dataset": train,
        "eval_dataset": held_out if args.do_eval else None,
        "predict_dataset": held_out if args.do_predict else None,
        "data_collator": collator,
        "train_collator": step,
        "report": _report(rows, train, held_out, step, args),
        "digest": key_of(trained) if trained else None,
        "template": key_of(tokenizer.chat_template) if conversations else None,
        "prompt_format": rows.prompt_format if _prompts(rows) else None,
    }


def choose_prompt_format(args: Any, tokenizer: Any) -> str:
    """Return how questions and answers are laid out: as asked, or as the model is served where it has a template."""
    asked = getattr(args, "prompt_format", None)
    return asked or ("chat" if getattr(args, "chat_template", None) or tokenizer.chat_template else "alpaca")


def _prompts(rows: Rows) -> int:
    return sum(account["prompts"] for account in rows.sources)


def _say_prompt_format(rows: Rows, tokenizer: Any, args: Any, conversations: bool) -> None:
    """Say how questions are laid out where there is a choice, and how to get another."""
    count, template = _prompts(rows), getattr(args, "chat_template", None) or tokenizer.chat_template
    asked = getattr(args, "prompt_format", None)
    if not count:
        if asked and rows.sources:
            _say(f"note: --prompt_format {asked} has no effect: no row is a question and its answer")
        return
    what = f"{count:,} question{'' if count == 1 else 's'}"
    how = "in the prompt of their format" if rows.prompt_format == "alpaca" else "with nothing around them"
    if rows.prompt_format == "chat":
        _say(f"prompts: {what} as turns of the chat template; --prompt_format alpaca: in the prompt of their format")
    elif template or asked:
        _say(f"prompts: {what} {how}; --prompt_format chat: as turns of the chat template, as servers ask them")
    elif conversations:
        _say(f"note: {what} {how}, beside conversations; --prompt_format chat: all as turns of one template")


def _choose_template(tokenizer: Any, asked: str | None, samples: list[list | None]) -> list[str]:
    """Give the tokenizer its chat template where there are conversations, and say which and what is unusual about it.

    Args:
        samples: as `_sample_tools` gives them.

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


def _sample_tools(splits: list) -> list[list | None]:
    """Return None where a conversation has no tools, and the tools of one that has some: templates may be of two parts.

    The columns are those of the whole file, so that nothing is gathered into memory.
    """
    samples = []
    for split in splits:
        messages, tools = (split.data.column(name) for name in ("messages", "tools"))
        with_tools = len(tools) - tools.null_count
        samples += [None] if len(messages) - messages.null_count > with_tools else []
        samples += [json.loads(tools.drop_null()[0].as_py())] if with_tools else []
    return samples


def _report(rows: Rows, train: Any, held_out: Any, step: Any, args: Any) -> dict[str, Any]:
    """Return the data report, printed where rows were asked for."""
    from data.report.text import build_report, format_report

    report = build_report(
        [_for_report(account) for account in rows.sources],
        {"train": train, "eval": held_out},
        {} if train is None else _batching(train, step, args),
        args,
        _duplicates(train, held_out),
    )
    if rows.sources:
        _say(format_report(report), prefix="")
    return report


def _step_collator(collator: Any, args: Any, train: Any):
    """Return what makes the micro-batches of a step, or None where the library does."""
    if train is None or not getattr(args, "step_batching", False):
        return None
    from data.batches.steps import StepCollator
    from data.tokens.encoder import column

    longest = args.max_tokens_per_batch or args.source_max_len + args.target_max_len
    step = StepCollator(
        collator,
        batch_size=args.per_device_train_batch_size,
        max_tokens=args.max_tokens_per_batch,
        pack_length=longest if args.packing else None,
    )
    step.check(column(train, "length").tolist(), lambda row: "{file}, {unit} {place}".format(**train[row]))
    return step


def _batching(train: Any, step: Any, args: Any) -> dict[str, Any]:
    """Return the padding share of the training batches, for the report: that of one epoch in a seeded order."""
    from data.batches.steps import padding_share
    from data.tokens.encoder import column

    plain = getattr(args, "train_sampling_strategy", None) in (None, "random", "sequential")
    if not hasattr(args, "per_device_train_batch_size") or not plain:
        return {}  # what the library groups it groups in its own way
    strategy = "random" if step is None else "packed" if step.pack_length else "budget" if step.max_tokens else "split"
    shares = padding_share(
        column(train, "length").tolist(),
        args.per_device_train_batch_size,
        args.gradient_accumulation_steps,
        strategy=strategy,
        max_tokens=args.max_tokens_per_batch,
        pack_length=None if step is None else step.pack_length,
    )
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps
    return {"padding_share": shares.pop("padding"), "strategy": strategy, "rows_per_process": rows, **shares}


def _for_report(account: dict) -> dict:
    dropped = {reason: {"rows": len(places), "places": places} for reason, places in account["dropped"].items()}
    names = ("source", "unit", "format", "records", "use", "used", "weight", "digest", "unused")
    return {name: account[name] for name in names if name in account} | {"rows": account["kept"], "dropped": dropped}


def _duplicates(train: Any, held_out: Any) -> dict[str, int]:
    """Count rows that repeat an earlier one of their split, and evaluation rows that are trained on."""
    import numpy

    keys = {name: _keys(rows) for name, rows in (("train", train), ("eval", held_out)) if rows is not None}
    counts = {name: len(values) - len(numpy.unique(values)) for name, values in keys.items()}
    if len(keys) == 2:
        counts["both"] = int(numpy.isin(keys["eval"], keys["train"]).sum())
    return counts


def _keys(rows: Any):
    """Return the hash of each row, of a long text that was split only that of its first piece."""
    import numpy

    from data.tokens.encoder import column

    keys, places, splits = (column(rows, name) for name in ("key", "place", "splits"))
    repeats = (numpy.diff(keys) == 0) & (numpy.diff(places) == 0) & (splits[1:] == 1)
    return keys[numpy.concatenate([[True], ~repeats])]


def _tokenize(rows: Any, encoder: Any, cache: Any, name: str, all_rows: Rows):
    """Return the tokenized rows that can be trained on; the others are named and taken into their source's account."""
    from data.tokens.encoder import NO_ANSWER, tokenize
    from data.tokens.templates import SUCH_AS

    made, dropped = tokenize(rows, encoder, cache)
    first: dict[str, str] = {}  # reason without its example → with that of the first row
    for row in dropped.select_columns(["dropped", "place", "file"]):
        account = next(a for a in all_rows.sources if a["source"] == row["file"] and a["use"] in (name, "both"))
        account["kept"] -= 1
        reason = first.setdefault(row["dropped"].partition(SUCH_AS)[0], row["dropped"])
        account["dropped"].setdefault(reason, []).append(row["place"])
    reasons = ", ".join(first.values())
    if not len(made):
        hint = "larger limits, or shorter rows" if NO_ANSWER in reasons else "--chat_template default, or other rows"
        raise DataError(f"no {name} row is left: {len(dropped):,} dropped: {reasons}\ntry {hint}")
    if len(dropped):
        _say(f"{name}: {len(dropped):,} of {len(rows):,} rows dropped: {reasons}")
    return made


def _say(text: str, prefix: str = "data: ") -> None:
    if int(os.environ.get("RANK", "0")) == 0:  # under a launcher, one process speaks for all
        print("\n".join(f"{prefix}{line}" for line in text.splitlines()), flush=True)
