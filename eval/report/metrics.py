"""The numbers of a run: what the last training, evaluation and prediction measured, and metrics.json, which holds them.

    save_results("output/mine", "eval", {"eval_loss": 0.5})      # eval_results.json, and metrics.json anew
    read_metrics("output/mine")["eval_loss"]

metrics.json is the union of the three files of results, and holds nothing else.
"""

import json
from pathlib import Path
from typing import Any

from common.files import read_json, write_json
from common.outputs import BASE_PREDICTIONS, COMPARISON, COMPLETED, METRICS

SPLITS = ("train", "eval", "predict")


def results_file(output_dir: str, split: str) -> Path:
    """Return where the numbers of the last training, evaluation or prediction are written."""
    return Path(output_dir) / f"{split}_results.json"


def save_results(output_dir: str, split: str, metrics: dict[str, Any]) -> None:
    """Write `{split}_results.json`, and metrics.json of what is in all three of these files then."""
    write_json(results_file(output_dir, split), metrics)
    write_json(Path(output_dir) / METRICS, read_metrics(output_dir))


def read_metrics(output_dir: str) -> dict[str, Any]:
    """Return what the last training, evaluation and prediction measured; a file that cannot be read is named."""
    metrics: dict[str, Any] = {}
    for path in (results_file(output_dir, split) for split in SPLITS):
        try:
            metrics |= read_json(path) if path.is_file() else {}
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
            print(f"note: {path} cannot be read ({error}); its numbers are left out.")
    return metrics


def forget_results(output_dir: str) -> None:
    """Remove what says that an earlier command was done, and how good it was, before training begins."""
    (Path(output_dir) / COMPLETED).unlink(missing_ok=True)
    for path in (results_file(output_dir, split) for split in SPLITS):
        path.unlink(missing_ok=True)
    for name in (METRICS, COMPARISON, BASE_PREDICTIONS):
        (Path(output_dir) / name).unlink(missing_ok=True)


def forget_comparison(output_dir: str, predicts: bool) -> None:
    """Remove an earlier comparison with the base, as one of its numbers is measured anew without the base.

    Args:
        predicts: whether answers are generated anew too.
    """
    comparison = Path(output_dir) / COMPARISON
    if comparison.exists():
        print(f"note: {COMPARISON} is removed: what it compares is measured anew, without --compare_base.")
        comparison.unlink()
    if predicts:
        (Path(output_dir) / BASE_PREDICTIONS).unlink(missing_ok=True)
