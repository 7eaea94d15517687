"""Generated answers on disk: predictions.jsonl and how many of them are right.

metrics = write_predictions(path, rows, generated, collator)
"""

import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from data.collator import IGNORE_INDEX, DataCollatorForCausalLM
from data.rows import fields_of


def write_predictions(
    path: str | os.PathLike,
    rows: Iterable[dict[str, Any]],
    generated: Any,
    collator: DataCollatorForCausalLM,
    ends: Collection[int],
) -> dict[str, float]:
    """Write one JSON line per row, in order: its fields, `prediction_with_input` and `prediction`.

    The file appears whole or not at all.

    Args:
        path: where to write.
        rows: the examples, each with `input` and `output`.
        generated: (rows, longest) ids of the new tokens alone, filled up with pad tokens or `IGNORE_INDEX`.
        collator: the one that made the prompts.
        ends: ids that end an answer; models may have several.

    Returns:
        `predict_stopped`, the share of predictions that ended by themselves; `predict_new_tokens`, their mean length;
        and, where there are rows with an output, `predict_exact_match`, the share of these that is predicted but for
        outer white space.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    right, stopped, lengths = [], [], []
    # Half a character in a field (\ud83d alone) has no UTF-8; its escape is what JSON says too.
    with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for row, ids in zip(rows, generated, strict=True):
            line, new = predict_line(row, ids.tolist(), collator, ends)
            if row["output"]:
                right.append(line["prediction"].strip() == row["output"].strip())
            stopped.append(bool(new) and new[-1] in ends)
            lengths.append(len(new))
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    os.replace(partial, path)
    count = max(len(lengths), 1)
    metrics = {"predict_stopped": sum(stopped) / count, "predict_new_tokens": sum(lengths) / count}
    return metrics | ({"predict_exact_match": sum(right) / len(right)} if right else {})


def predict_line(
    row: dict[str, Any], ids: list[int], collator: DataCollatorForCausalLM, ends: Collection[int]
) -> tuple[dict[str, Any], list[int]]:
    """A line of predictions.jsonl and the ids of its new tokens, up to and with the one that ended it."""
    tokenizer = collator.tokenizer
    ids = [token for token in ids if token != IGNORE_INDEX]
    length = next((index + 1 for index, token in enumerate(ids) if token in ends), len(ids))
    ids = ids[:length]
    [(prompt, _)] = collator.encode([row])
    fields = fields_of(row)
    fields["prediction_with_input"] = tokenizer.decode(prompt + ids, skip_special_tokens=True)
    fields["prediction"] = tokenizer.decode(ids, skip_special_tokens=True)
    if row.get("messages"):  # templates put white space around an answer
        fields["prediction"] = fields["prediction"].strip()
    return fields, ids
