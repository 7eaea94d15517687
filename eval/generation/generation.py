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
import bisect
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from common.commands import exit_status
from common.errors import DataError
from common.files import check_writable, write_whole
from data.formats.fields import SkipRow, text
from data.rows import fields_of
from eval.generation.report import print_next, print_report
from eval.metrics.text import PREFIX, PROGRESS_DELAY, compare_all, corpus_metrics, text_metrics

# What a line of predictions.jsonl has behind the fields of its example.
PREDICTION_FIELDS = ("prediction_with_input", "prediction", "prediction_tokens", "prediction_stopped")
# pandas makes floats of numbers and of truth values where one of their column is null, and CSV makes texts of all.
STOPPED = dict.fromkeys(("true", "1", "1.0"), True) | dict.fromkeys(("false", "0", "0.0"), False)


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
    """Return the fields that a prediction adds to its row, of the ids up to and with what ended it.

    The prompt is cut off by its length in tokens, never by its text. Where a chat template closes answers with a text
    that is no special token (`collator.text_marks`), that text ends the prediction and is left out of it.
    """
    from common.labels import IGNORE_INDEX

    decode = partial(collator.tokenizer.decode, skip_special_tokens=True)
    ids = [token for token in ids if token != IGNORE_INDEX]
    length = next((index + 1 for index, token in enumerate(ids) if token in ends), len(ids))
    stopped = bool(ids) and ids[length - 1] in ends
    [(source, _)] = collator.encode([row])
    prompt = collator.prompt(row, source)
    marks = collator.text_marks if row.get("messages") else ()

    def mark_in(count: int) -> str | None:
        text = decode(ids[:count])
        return min((mark for mark in marks if mark in text), key=text.index, default=None)

    mark = mark_in(length)
    if mark is not None:
        length, stopped = bisect.bisect_left(range(length), True, key=lambda count: mark in decode(ids[:count])), True
    prediction, whole = decode(ids[:length]), decode(prompt + ids[:length])
    if mark is not None:
        prediction, whole = (text.rpartition(mark)[0] for text in (prediction, whole))
    return {
        "prediction_with_input": whole,
        # Templates put white space around an answer.
        "prediction": prediction.strip() if row.get("messages") else prediction,
        "prediction_tokens": length,
        "prediction_stopped": stopped,
    }


def line_metrics(lines: list[dict[str, Any]], prefix: str = PREFIX) -> dict[str, float]:
    """Return the `text_metrics` of lines of predictions.jsonl."""
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
    """One row of a file of answers; what it does not say is None, and so is a reference of white space alone."""

    prediction: str
    reference: str | None
    input: str | None
    tokens: int | None
    stopped: bool | None
    group: str | None


def read_answers(path: str, options: argparse.Namespace) -> list[Answer]:
    """Read the answers of a file, with the fields that the options name.

    Raises:
        DataError: the file cannot be read, or a row has no answer or a field of a wrong kind; says where.
    """
    from data.sources.files import open_file

    source = open_file(path)
    answers, fields = [], set()
    for place, row in source.records():
        try:
            answers.append(_answer(row, options))
        except SkipRow as skip:
            raise DataError(f"{path}, {source.unit} {place}: {skip}") from None
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
    try:
        prediction = text(row, options.prediction)
        right = None if row.get(reference) is None else text(row, reference)
    except SkipRow as skip:
        raise SkipRow(
            f"{skip}\nfields there: {shown_names(row)}; --prediction FIELD names the answer, --reference FIELD what is "
            "right"
        ) from None
    return Answer(
        prediction=prediction,
        reference=right if right and right.strip() else None,
        input=_label(row.get("input")),
        tokens=_optional(row, "prediction_tokens", _count, "a whole number"),
        stopped=_optional(row, "prediction_stopped", STOPPED.get, "true or false"),
        group=_label(row.get(options.by)) if options.by else None,
    )


def _is_missing(value: Any) -> bool:
    return value is None or value != value or value == ""  # null, NaN of pandas, an empty cell of CSV


def _label(value: Any) -> str | None:
    if _is_missing(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a float of pandas
    is_json = isinstance(value, bool | list | dict)
    return json.dumps(value, ensure_ascii=False, default=str) if is_json else str(value)


def _optional(row: dict[str, Any], name: str, read: Callable[[str], Any], allowed: str) -> Any:
    value = row.get(name)
    if _is_missing(value):
        return None
    found = read(str(value).lower())
    if found is None:
        raise SkipRow(f"column {name!r} holds {repr(value)[:40]}; {allowed} is allowed, or nothing")
    return found


def _count(shown: str) -> int | None:
    match = re.fullmatch(r"([0-9]{1,18})(\.0+)?", shown)
    return match and int(match[1])


# Scoring


def score_file(answers: list[Answer], options: argparse.Namespace) -> dict[str, Any]:
    """Return the metrics of all rows of a file (`all`) and, with --by FIELD, of each group (`by`).

    Rows that do not have the field are no group, whose name another could have: theirs stand by themselves (`without`).
    """
    from tqdm import tqdm

    compared = compare_all([answer.prediction for answer in answers], [answer.reference for answer in answers])
    pairs = list(zip(answers, compared, strict=True))
    scores = {"all": score_answers(pairs)}
    if options.by:
        groups: dict[str | None, list] = {}
        for pair in pairs:
            groups.setdefault(pair[0].group, []).append(pair)
        without = groups.pop(None, None)
        with_intervals = options.output is not None  # the only place where those of groups are shown
        bar = tqdm(sorted(groups), desc="scoring groups", delay=PROGRESS_DELAY, leave=False)
        scores["by"] = {name: score_answers(groups[name], with_intervals) for name in bar}
        if without:
            scores["without"] = score_answers(without, with_intervals)
    return scores


def unlike_rows(files: dict[str, list[Answer]]) -> str | None:
    """Return in what the rows of files are not those of the first, as far as they say; None where they are.

    They may stand in another order. References, and the field `input`, are compared where both files have any.
    """
    if len(set(map(len, files.values()))) > 1:
        return ", ".join(f"{path} {len(answers):,}" for path, answers in files.items()) + " answers"
    first, *others = files
    for other in others:
        for name in ("reference", "input"):
            here, there = (Counter(getattr(answer, name) for answer in files[path]) for path in (first, other))
            if here.keys() != {None} != there.keys() and here != there:
                return f"{(here - there).total():,} of {here.total():,} {name}s in {first} not in {other}"
    return None


def score_answers(pairs: list[tuple[Answer, Any]], with_intervals: bool = True) -> dict[str, Any]:
    """Return the metrics of answers and their comparisons, the number of rows, and intervals but of distinct-n."""
    from tqdm import tqdm

    from eval.metrics.bleu.scoring import bleu_score
    from eval.metrics.chrf.scoring import chrf_score
    from eval.statistics import corpus_interval, mean_interval

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
    if not output:
        return
    path = Path(output)
    if path.is_dir():
        raise DataError(f"--output {output} is a directory; give the name of a file, such as {output}/scores.json")
    if not path.parent.is_dir():
        raise DataError(f"--output {output}: there is no directory {path.parent}; make it first")
    try:
        check_writable(path.parent)
    except OSError as error:
        raise DataError(
            f"--output {output}: no file can be made in {path.parent} ({error.strerror}); give another place"
        ) from None
    if path.exists() and not holds_scores(path):
        raise DataError(f"--output {output} holds something else than scores of this command; give another name")


def holds_scores(path: Path) -> bool:
    """Whether a file is what this command writes."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(found, dict) and all(isinstance(scores, dict) and "all" in scores for scores in found.values())


def score_files(options: argparse.Namespace, argv: list[str]) -> None:
    """Score each file, write what came of it where that was asked for, and print it."""
    check_output(options.output)
    files = {path: read_answers(path, options) for path in options.files}
    results = {path: score_file(answers, options) for path, answers in files.items()}
    if options.output:  # first, as whoever reads what is printed may stop reading (`| head`)
        write_whole(Path(options.output), json.dumps(results, ensure_ascii=False, indent=2) + "\n")
    print_report(results, options.by)
    print_next(results, unlike_rows(files), options, argv)


def main(argv: list[str] | None = None) -> int:
    """Score files of answers; gives the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    options = parse(argv)
    return exit_status("eval.generation", lambda: score_files(options, argv))


if __name__ == "__main__":
    sys.exit(main())
