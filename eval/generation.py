"""Generated answers on disk: predictions.jsonl and how many of them are right.

metrics = write_predictions(path, rows, generated, collator)
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data.collator import IGNORE_INDEX, DataCollatorForCausalLM


def write_predictions(
    path: str | os.PathLike, rows: Iterable[dict[str, Any]], generated: Any, collator: DataCollatorForCausalLM
) -> dict[str, float]:
    """Write one JSON line per row, in order: its fields, `prediction_with_input` and `prediction`.

    The file appears whole or not at all.

    Args:
        path: where to write.
        rows: the examples, each with `input` and `output`.
        generated: (rows, longest) ids of the new tokens alone, filled up with pad tokens or `IGNORE_INDEX`.
        collator: the one that made the prompts.

    Returns:
        `predict_exact_match`, the share of predictions that equal the row's output but for outer white space;
        `predict_stopped`, the share that ended with EOS; `predict_new_tokens`, their mean length.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    right, stopped, lengths = [], [], []
    with partial.open("w", encoding="utf-8") as file:
        for row, ids in zip(rows, generated, strict=True):
            line, new = predict_line(row, ids.tolist(), collator)
            right.append(line["prediction"].strip() == row["output"].strip())
            stopped.append(collator.tokenizer.eos_token_id in new)
            lengths.append(len(new))
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    os.replace(partial, path)
    count = max(len(right), 1)
    return {
        "predict_exact_match": sum(right) / count,
        "predict_stopped": sum(stopped) / count,
        "predict_new_tokens": sum(lengths) / count,
    }


def predict_line(
    row: dict[str, Any], ids: list[int], collator: DataCollatorForCausalLM
) -> tuple[dict[str, Any], list[int]]:
    """A line of predictions.jsonl and the ids of its new tokens, up to and with EOS."""
    tokenizer = collator.tokenizer
    ids = [token for token in ids if token != IGNORE_INDEX]
    if tokenizer.eos_token_id in ids:
        ids = ids[: ids.index(tokenizer.eos_token_id) + 1]
    [(prompt, _)] = collator.encode([row])
    fields = {name: value for name, value in row.items() if name != "length"}
    fields["prediction_with_input"] = tokenizer.decode(prompt + ids, skip_special_tokens=True)
    fields["prediction"] = tokenizer.decode(ids, skip_special_tokens=True)
    return fields, ids
