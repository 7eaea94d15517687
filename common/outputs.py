"""What a run leaves in its output directory, by name, and which of its numbers people want to see.

    (Path(output_dir) / COMPLETED).is_file()

Each name stands here once.
"""

MANIFEST = "manifest.json"  # of a checkpoint: its files and their digests
COMPLETED = "completed"  # the mark of a run that really ended
METRICS = "metrics.json"
DATA_REPORT = "data_report.json"
PREDICTIONS = "predictions.jsonl"
BASE_PREDICTIONS = "predictions_base.jsonl"
COMPARISON = "comparison.json"
MODEL_CARD = "README.md"
CHECKPOINT = "checkpoint-"  # before the number of its step
TRAINER_STATE, ADAPTER_CONFIG, CONFIG = "trainer_state.json", "adapter_config.json", "config.json"  # the libraries' own
LOCK = ".lock"  # held by the run that writes there


def is_detail(name: str) -> bool:
    """Return whether a metric is left out where people read: speed, and MMLU's accuracies beside mean and interval."""
    beside = "_accuracy_" in name and not name.endswith(("_accuracy_low", "_accuracy_high"))
    return beside or name.endswith(("runtime", "per_second", "total_flos"))
