"""predictions.jsonl: generated ids → one line for each example, in the order of the data set, and its metrics.

    metrics = write_predictions("output/mine/predictions.jsonl", rows, generated, collator, ends={2})

The prompt is cut off by its length in tokens, never by its text.
"""

import bisect
import json
import os
from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.files import write_whole
from common.labels import IGNORE_INDEX
from data.rows import fields_of
from eval.metrics.text import PREFIX, text_metrics

if TYPE_CHECKING:
    import numpy

    from data.batches.collator import DataCollatorForCausalLM

# What a line has behind the fields of its example.
PREDICTION_FIELDS = ("prediction_with_input", "prediction", "prediction_tokens", "prediction_stopped")


def write_predictions(
    path: str | os.PathLike,
    rows: Iterable[dict[str, Any]],
    generated: "numpy.ndarray",
    collator: "DataCollatorForCausalLM",
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


def prediction_lines(
    rows: Iterable[dict[str, Any]],
    generated: "numpy.ndarray",
    collator: "DataCollatorForCausalLM",
    ends: Collection[int],
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
        others = {name: value for name, value in fields.items() if name not in PREDICTION_FIELDS}
        lines.append(others | predict_line(row, ids.tolist(), collator, ends))
    if replaced:
        names = ", ".join(name for name in PREDICTION_FIELDS if name in replaced)
        print(f"note: the rows have {names} already; the new predictions stand in their place.")
    return lines


def predict_line(
    row: dict[str, Any],
    ids: list[int],
    collator: "DataCollatorForCausalLM",
    ends: Collection[int],
) -> dict[str, Any]:
    """Return the fields that a prediction adds to its row, of the ids up to and with what ended it.

    The prompt is cut off by its length in tokens, never by its text. Where a chat template closes answers with a text
    that is no special token (`collator.text_marks`), that text ends the prediction and is left out of it.
    """
    decode = partial(collator.tokenizer.decode, skip_special_tokens=True)
    ids = [token for token in ids if token != IGNORE_INDEX]
    length = next((index + 1 for index, token in enumerate(ids) if token in ends), len(ids))
    stopped = bool(ids) and ids[length - 1] in ends
    [encoded] = collator.encoded([row])
    prompt = collator.prompt(encoded)
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
