"""What a run leaves in its output directory, by name."""


def is_detail(name: str) -> bool:
    """Whether a metric is left out where people read: speed, and MMLU's accuracies beside the mean and its interval."""
    beside = "_accuracy_" in name and not name.endswith(("_accuracy_low", "_accuracy_high"))
    return beside or name.endswith(("runtime", "per_second", "total_flos"))
