"""Generated answers: predictions.jsonl, and how good its answers are.

    python -m eval.generation output/mine/predictions.jsonl
    python -m eval.generation output/mine/predictions.jsonl output/other/predictions.jsonl --output scores.json
    python -m eval.generation output/demo/predictions.jsonl --by fact
    python -m eval.generation answers.jsonl --prediction response --reference target

It takes any file that holds an answer and, where there is one, its reference in each row: .json, .jsonl, .csv, .tsv,
.parquet. Shares and scores are printed in %, with their 95 % intervals; the file that --output names has those of
groups too.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data.commands import exit_status, write_whole
from data.fields import DataError, SkipRow, kind, text
from data.rows import fields_of

# What a line of predictions.jsonl has behind the fields of its example.
PREDICTION_FIELDS = ("prediction_with_input", "prediction", "prediction_tokens", "prediction_stopped")
PREFIX = "predict"


# Writing


def write_predictions(
    path: str | os.PathLike,
    rows: Iterable[dict[str, Any]],
    generated: Any,
    collator: Any,
    ends: Collection[int],
    prefix: str = PREFIX,
) -> dict[str, float]:
    """Write one JSON line per row, in order, as `prediction_lines` makes it; then score what was written.

    The file appears whole or not at all, and before the scoring, which may take longer than one wants to wait.

    Args:
        path: where to write.

    Returns:
        `text_metrics` of the lines.
    """
    path = Path(path)
    lines = prediction_lines(rows, generated, collator, ends)
    write_whole(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return line_metrics(lines, prefix)


def score_generated(
    rows: Iterable[dict[str, Any]], generated: Any, collator: Any, ends: Collection[int], prefix: str = PREFIX
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """As `write_predictions`, without a file; gives the lines and their metrics."""
    lines = prediction_lines(rows, generated, collator, ends)
    return lines, line_metrics(lines, prefix)


def prediction_lines(
    rows: Iterable[dict[str, Any]], generated: Any, collator: Any, ends: Collection[int]
) -> list[dict[str, Any]]:
    """Return the lines of predictions.jsonl; says so where fields of the rows have to give way.

    Args:
        rows: the examples, each with `input` and `output`.
        generated: (rows, longest) ids of the new tokens alone, filled up with pad tokens or `IGNORE_INDEX`.
        collator: the `DataCollatorForCausalLM` that made the prompts.
        ends: ids that end an answer; models may have several.

    Raises:
        ValueError: there are not as many rows as rows of ids.
    """
    lines, replaced = [], set()
    for row, ids in zip(rows, generated, strict=True):
        fields = fields_of(row)
        replaced |= fields.keys() & set(PREDICTION_FIELDS)
        kept = {name: value for name, value in fields.items() if name not in PREDICTION_FIELDS}
        lines.append(kept | predict_line(row, ids.tolist(), collator, ends))
    if replaced:
        names = ", ".join(name for name in PREDICTION_FIELDS if name in replaced)
        print(f"note: the rows have {names} already; the new predictions stand in their place.")
    return lines


def predict_line(row: dict[str, Any], ids: list[int], collator: Any, ends: Collection[int]) -> dict[str, Any]:
    """Return the fields that a prediction adds to its row, of the ids up to and with the one that ended it.

    The prompt is cut off by its length in tokens, never by its text.
    """
    from data.collator import IGNORE_INDEX

    ids = [token for token in ids if token != IGNORE_INDEX]
    length = next((index + 1 for index, token in enumerate(ids) if token in ends), len(ids))
    ids = ids[:length]
    [(prompt, _)] = collator.encode([row])
    prediction = collator.tokenizer.decode(ids, skip_special_tokens=True)
    return {
        "prediction_with_input": collator.tokenizer.decode(prompt + ids, skip_special_tokens=True),
        # Templates put white space around an answer.
        "prediction": prediction.strip() if row.get("messages") else prediction,
        "prediction_tokens": len(ids),
        "prediction_stopped": bool(ids) and ids[-1] in ends,
    }


def line_metrics(lines: list[dict[str, Any]], prefix: str = PREFIX) -> dict[str, float]:
    """Return the `text_metrics` of lines of predictions.jsonl."""
    from eval.text_metrics import text_metrics

    return text_metrics(
        [line["prediction"] for line in lines],
        [line.get("output") for line in lines],
        tokens=[line["prediction_tokens"] for line in lines],
        stopped=[line["prediction_stopped"] for line in lines],
        prefix=prefix,
    )


# Reading


@dataclass(frozen=True)
class Answer:
    """One row of a file of answers; what it does not say is None."""

    prediction: str
    reference: str | None
    tokens: int | None
    stopped: bool | None
    group: str | None


def read_answers(path: str, options: argparse.Namespace) -> list[Answer]:
    """Read the answers of a file, with the fields that the options name.

    Raises:
        DataError: the file cannot be read, or a row has no answer; says where.
    """
    from data.files import open_file

    source = open_file(path)
    answers, fields = [], set()
    for place, row in source.records():
        try:
            answers.append(_answer(row, options))
        except SkipRow as skip:
            raise DataError(
                f"{path}, {source.unit} {place}: {skip}\nfields there: {shown_names(row)}; --prediction FIELD names "
                "the answer, --reference FIELD what is right"
            ) from None
        fields |= row.keys()
    if not answers:
        raise DataError(f"{path}: no row in it; at least one answer is needed")
    for flag, name in (("--reference", options.reference), ("--by", options.by)):
        if name is not None and name not in fields:
            raise DataError(f"{flag} {name}: no row of {path} has this field; there are: {shown_names(sorted(fields))}")
    return answers


def shown_names(names: Iterable[str], most: int = 12) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _answer(row: dict[str, Any], options: argparse.Namespace) -> Answer:
    reference = options.reference or "output"
    group = row.get(options.by) if options.by else None
    return Answer(
        prediction=text(row, options.prediction),
        reference=None if row.get(reference) is None else text(row, reference),
        tokens=_optional(row, "prediction_tokens", int),
        stopped=_optional(row, "prediction_stopped", bool),
        group=group if isinstance(group, str) else json.dumps(group, ensure_ascii=False),
    )


def _optional(row: dict[str, Any], name: str, needed: type) -> Any:
    value = row.get(name)
    if value is None or type(value) is needed:
        return value
    raise SkipRow(f"column {name!r} holds {kind(value)}, not {kind(needed())}")


# Scoring


def score_file(path: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the metrics of all rows of a file (`all`) and, with --by FIELD, of each group (`by`)."""
    from tqdm import tqdm

    from eval.text_metrics import PROGRESS_DELAY, compare_all

    answers = read_answers(path, options)
    compared = compare_all([answer.prediction for answer in answers], [answer.reference for answer in answers])
    pairs = list(zip(answers, compared, strict=True))
    scores = {"all": score_answers(pairs)}
    if options.by:
        groups: dict[str, list] = {}
        for pair in pairs:
            groups.setdefault(pair[0].group, []).append(pair)
        with_intervals = options.output is not None  # the only place where those of groups are shown
        bar = tqdm(sorted(groups), desc="scoring groups", delay=PROGRESS_DELAY, leave=False)
        scores["by"] = {name: score_answers(groups[name], with_intervals) for name in bar}
    return scores


def score_answers(pairs: list[tuple[Answer, Any]], with_intervals: bool = True) -> dict[str, Any]:
    """Return the metrics of answers and their comparisons, the number of rows, and intervals but of distinct-n."""
    from tqdm import tqdm

    from eval.metrics.bleu.scoring import bleu_score
    from eval.metrics.chrf.scoring import chrf_score
    from eval.statistics import corpus_interval, mean_interval
    from eval.text_metrics import PROGRESS_DELAY, corpus_metrics

    answers, compared = zip(*pairs, strict=True)
    tokens, stopped = [answer.tokens for answer in answers], [answer.stopped for answer in answers]
    known = {
        "tokens": None if None in tokens else tokens,
        "stopped": None if None in stopped else stopped,
    }
    metrics = corpus_metrics([answer.prediction for answer in answers], compared, prefix=PREFIX, **known)
    metrics = {f"{PREFIX}_samples": len(answers), **metrics}
    if not with_intervals:
        return metrics
    rows = [row for row in compared if row is not None]
    columns = {name: [row.means[name] for row in rows] for name in (rows[0].means if rows else ())}
    columns |= {name: known[key] for name, key in (("stopped", "stopped"), ("new_tokens", "tokens")) if known[key]}
    wanted = {name: partial(mean_interval, column) for name, column in columns.items()}
    if rows:
        wanted["bleu"] = partial(corpus_interval, [row.bleu for row in rows], bleu_score)
        wanted["chrf"] = partial(corpus_interval, [row.chrf for row in rows], chrf_score)
    bar = tqdm(wanted.items(), desc="resampling for intervals", delay=PROGRESS_DELAY, leave=False)
    intervals = {f"{PREFIX}_{name}_interval": interval() for name, interval in bar}
    return {**metrics, **intervals}


# Printing

LABELS = {
    "samples": "answers",
    "references": "with a reference",
    "exact_match": "exact match",
    "token_f1": "token F1",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "stopped": "stopped",
    "new_tokens": "new tokens",
}
COUNTS = ("samples", "references")


def print_report(results: dict[str, dict[str, Any]], by: str | None) -> None:
    """Print one column for each file, then the groups of each file."""
    names = list(results)
    if len(names) > 1:
        print("\n".join(f"[{number}] {name}" for number, name in enumerate(names, 1)))
        heads = [f"[{number}]" for number in range(1, len(names) + 1)]
    else:
        heads = names
    rows = [["%, and its 95 % interval", *heads]]
    rows += [
        [label, *(_shown(scores["all"], name, True) for scores in results.values())] for name, label in _used(results)
    ]
    _print_table(rows)
    for name in names if by else ():
        columns = _used({name: results[name]})
        print(f"\nby {by}" + (f", {name}" if len(names) > 1 else ""))
        rows = [[by, *(label for _, label in columns)]]
        groups = {**results[name]["by"], "all": results[name]["all"]}
        rows += [[group, *(_shown(scores, key, False) for key, _ in columns)] for group, scores in groups.items()]
        _print_table(rows)


def _used(results: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the (name, label) of the metrics that any file has."""
    found = {name for scores in results.values() for name in scores["all"]}
    return [(name, label) for name, label in LABELS.items() if f"{PREFIX}_{name}" in found]


def _shown(scores: dict[str, Any], name: str, with_interval: bool) -> str:
    value, interval = (scores.get(f"{PREFIX}_{name}{end}") for end in ("", "_interval"))
    if value is None:
        return "–"
    if name in COUNTS:
        return f"{value:,}"
    scale = 1 if name == "new_tokens" else 100
    shown = f"{scale * value:.1f}"
    if interval is None or not with_interval or interval[0] == interval[1]:  # rows that are all alike have no spread
        return shown
    return f"{shown}  [{scale * interval[0]:.1f}, {scale * interval[1]:.1f}]"


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [cell.ljust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]).rstrip())


def print_next(results: dict[str, dict[str, Any]], options: argparse.Namespace, argv: list[str]) -> None:
    """Say what could not be measured, where the numbers are, and what to try."""
    print()
    counts = {name: scores["all"][f"{PREFIX}_samples"] for name, scores in results.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        print(f"note: these are not the same rows ({shown} answers), so their numbers do not compare.")
    for name, scores in results.items():
        if not scores["all"][f"{PREFIX}_references"]:
            print(
                f"note: {name} has no text in {options.reference or 'output'!r}: --reference FIELD names what is right"
            )
    if options.output:
        print(f"metrics: {options.output}")
    else:
        print(f"next: python -m eval.generation {shlex.join(argv)} --output scores.json")


# Running


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m eval.generation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="predictions.jsonl, or another file with answers")
    parser.add_argument("--prediction", metavar="FIELD", default="prediction", help="of the answer (prediction)")
    parser.add_argument("--reference", metavar="FIELD", help="of what is right (output, where there is one)")
    parser.add_argument("--by", metavar="FIELD", help="also score each group of rows with the same value here")
    parser.add_argument("--output", metavar="FILE", help="write the metrics here too, shares from 0 to 1 (JSON)")
    return parser.parse_args(argv)


def check_output(output: str | None) -> None:
    """Refuse a file that cannot be written, or that holds something else than scores, before anything is scored."""
    if output and Path(output).is_dir():
        raise DataError(f"--output {output} is a directory; give the name of a file, such as {output}/scores.json")
    if output and not Path(output).resolve().parent.is_dir():
        raise DataError(f"--output {output}: there is no directory {Path(output).parent}; make it first")
    if output and Path(output).exists() and not holds_scores(Path(output)):
        raise DataError(f"--output {output} holds something else than scores of this command; give another name")


def holds_scores(path: Path) -> bool:
    """Whether a file is what this command writes."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(found, dict) and all(isinstance(scores, dict) and "all" in scores for scores in found.values())


def score_files(options: argparse.Namespace, argv: list[str]) -> None:
    """Score each file, print what came of it, and write it where that was asked for."""
    check_output(options.output)
    results = {path: score_file(path, options) for path in options.files}
    print_report(results, options.by)
    if options.output:
        write_whole(Path(options.output), json.dumps(results, ensure_ascii=False, indent=2) + "\n")
    print_next(results, options, argv)


def main(argv: list[str] | None = None) -> int:
    """Score files of answers; gives the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    options = parse(argv)
    return exit_status("eval.generation", lambda: score_files(options, argv))


if __name__ == "__main__":
    sys.exit(main())
