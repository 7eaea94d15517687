"""Reports on rows of given lengths."""

from data.report.numbers import CONVERSATIONS, build_report

FLAGS = {
    "source_max_len": 1024,
    "target_max_len": 256,
    "train_on_source": False,
    "max_steps": 50,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "max_tokens_per_batch": None,
    "packing": False,
    "train_sampling_strategy": "random",
}
LIMITS = ("source_max_len", "target_max_len", "train_on_source", "max_steps")
NO_CUT = {"rows": 0, "rows_share": 0.0, "tokens": 0, "tokens_share": 0.0, "p99": 0, "max": 0}


def build(sources=(), splits=None, padding=None, duplicates=None, **flags):
    """The report of splits with these flags."""
    values = FLAGS | flags
    limits = {name: values[name] for name in LIMITS}
    batching = {name: value for name, value in values.items() if name not in LIMITS} | {"rows_per_step": 16}
    splits = {"train": None, "eval": None} | (splits or {})
    if values["train_sampling_strategy"] != "group_by_length":  # of which nothing is counted
        batching |= padding or {}
    return build_report(sources, splits, limits, batching, duplicates or {})


def split_of(pairs, source_max_len=1024, target_max_len=256, supervised=None):
    """A tokenized split from (source tokens, target tokens) before the cuts."""
    import datasets

    rows = []
    for number, (source, target) in enumerate(pairs, 1):
        kept = min(source, source_max_len), min(target, target_max_len)
        rows.append(
            {
                "length": sum(kept),
                "source_tokens": source,
                "target_tokens": target,
                "source_cut": source - kept[0],
                "target_cut": target - kept[1],
                "supervised": kept[1] if supervised is None else supervised,
                **dict.fromkeys(CONVERSATIONS, 0),
                "place": number,
            }
        )
    return datasets.Dataset.from_list(rows)


def report_of(pairs, padding=None, **flags):
    limits = FLAGS | flags
    split = split_of(pairs, limits["source_max_len"], limits["target_max_len"])
    return build(splits={"train": split}, padding=padding, **flags)


def micro_batches(**found):
    counts = {"rows_per_process": 16, "steps": 10, "micro_batches": 16.0, "largest": 370}
    return {"padding_share": 0.0, "strategy": "split"} | counts | found
