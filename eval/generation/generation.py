"""How good generated answers are, of files of them.

    python -m eval.generation output/mine/predictions.jsonl
    python -m eval.generation output/mine/predictions.jsonl output/other/predictions.jsonl --output scores.json
    python -m eval.generation output/demo/predictions.jsonl --by fact
    python -m eval.generation answers.jsonl --prediction response --reference target

It takes any file that holds an answer and, where there is one, its reference in each row: .json, .jsonl, .csv, .tsv,
.parquet. Shares and scores are printed in %, with their 95 % intervals; the file that --output names has those of
groups too.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common.commands import exit_status
from common.errors import DataError
from common.files import check_writable, read_json, write_json
from eval.generation.answers import Answer, Columns, read_answers, unlike_rows
from eval.generation.report import print_next, print_report
from eval.metrics.text import PREFIX, PROGRESS_DELAY, Comparison, compare_all, corpus_metrics

# ---- Scoring ---------------------------------------------------------------------------------------------------------


def score_file(answers: list[Answer], by_group: bool, with_intervals: bool) -> dict[str, Any]:
    """Return the metrics of all rows of a file (`all`) and, where asked for, of each group (`by`).

    Rows without a group get a place of their own (`without`), as any name for them could be that of a group.

    Args:
        with_intervals: whether groups have intervals too; those of all rows always have.
    """
    from tqdm import tqdm

    compared = compare_all([answer.prediction for answer in answers], [answer.reference for answer in answers])
    pairs = list(zip(answers, compared, strict=True))
    scores = {"all": score_answers(pairs)}
    if by_group:
        groups: dict[str | None, list] = {}
        for pair in pairs:
            groups.setdefault(pair[0].group, []).append(pair)
        without = groups.pop(None, None)
        bar = tqdm(sorted(groups), desc="scoring groups", delay=PROGRESS_DELAY, leave=False)
        scores["by"] = {name: score_answers(groups[name], with_intervals) for name in bar}
        if without:
            scores["without"] = score_answers(without, with_intervals)
    return scores


def score_answers(
    pairs: Sequence[tuple[Answer, Comparison | None]], with_intervals: bool = True
) -> dict[str, int | float | tuple[float, float]]:
    """Return the number of answers, their metrics, and the interval of each metric but distinct-n.

    Args:
        pairs: answers, and how each compares with its reference where it has one.
    """
    from tqdm import tqdm

    from eval.metrics.bleu.scoring import bleu_score
    from eval.metrics.chrf.scoring import chrf_score
    from eval.statistics import interval, mean_interval

    answers, compared = zip(*pairs, strict=True)
    tokens, stopped = ([getattr(answer, name) for answer in answers] for name in ("tokens", "stopped"))
    tokens, stopped = (None if None in column else column for column in (tokens, stopped))
    metrics = corpus_metrics([answer.prediction for answer in answers], compared, tokens, stopped, PREFIX)
    metrics = {f"{PREFIX}_samples": len(answers), **metrics}
    if not with_intervals:
        return metrics
    rows = [row for row in compared if row is not None]
    columns = {name: [row.means[name] for row in rows] for name in (rows[0].means if rows else ())}
    columns |= {name: column for name, column in (("stopped", stopped), ("new_tokens", tokens)) if column}
    intervals = {name: partial(mean_interval, column) for name, column in columns.items()}
    if rows:
        intervals["bleu"] = partial(interval, [row.bleu for row in rows], bleu_score)
        intervals["chrf"] = partial(interval, [row.chrf for row in rows], chrf_score)
    bar = tqdm(intervals.items(), desc="resampling for intervals", delay=PROGRESS_DELAY, leave=False)
    return metrics | {f"{PREFIX}_{name}_interval": resample() for name, resample in bar}


# ---- Running ---------------------------------------------------------------------------------------------------------


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.generation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="predictions.jsonl, or another file with answers")
    parser.add_argument("--prediction", metavar="FIELD", default="prediction", help="of the answer (prediction)")
    parser.add_argument("--reference", metavar="FIELD", help="of what is right (output, where there is one)")
    parser.add_argument("--by", metavar="FIELD", help="also score each group of rows with the same value here")
    parser.add_argument("--output", metavar="FILE", help="write the metrics here too, shares from 0 to 1 (JSON)")
    return parser.parse_args(argv)


def check_output(path: Path) -> None:
    """Refuse a file that cannot be written, or that holds something else than scores, before anything is scored."""
    if path.is_dir():
        raise DataError(f"--output {path} is a directory; give the name of a file, such as {path}/scores.json")
    if not path.parent.is_dir():
        raise DataError(f"--output {path}: there is no directory {path.parent}; make it first")
    try:
        check_writable(path.parent)
    except OSError as error:
        reason = f"no file can be made in {path.parent} ({error.strerror})"
        raise DataError(f"--output {path}: {reason}; give another place") from error
    if path.exists() and not holds_scores(path):
        raise DataError(f"--output {path} holds something else than scores of this command; give another name")


def holds_scores(path: Path) -> bool:
    """Return whether a file is what this command writes."""
    try:
        results = read_json(path)
    except ValueError:
        return False
    return isinstance(results, dict) and all(
        isinstance(scores, dict) and "all" in scores for scores in results.values()
    )


def score_files(paths: Sequence[str], columns: Columns, output: Path | None, command: str) -> None:
    """Score each file, write the scores where that was asked for, and print them.

    Args:
        command: the arguments of the command line, for the one to try next.
    """
    if output:
        check_output(output)
    files = {path: read_answers(path, columns) for path in paths}
    # The file is the only place where intervals of groups are read.
    results = {path: score_file(answers, columns.by is not None, bool(output)) for path, answers in files.items()}
    if output:  # first, as whoever reads what is printed may stop reading (`| head`)
        write_json(output, results)
    print_report(results, columns.by)
    print_next(results, columns.reference or "output", unlike_rows(files), output, command)


def main(argv: list[str] | None = None) -> int:
    """Score files of answers; gives the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    options = parse(argv)
    columns = Columns(options.prediction, options.reference, options.by)
    output = Path(options.output) if options.output else None
    return exit_status("eval.generation", lambda: score_files(options.files, columns, output, shlex.join(argv)))


if __name__ == "__main__":
    sys.exit(main())
