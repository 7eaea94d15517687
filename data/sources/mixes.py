"""What `--dataset` and `--eval_dataset` name: files, data sets of the hub, and mixes of these with their weights.

Nothing is read but the names, so that a typo is refused at once:

    parse_names(DataArguments(dataset="a.jsonl:0.7,b.csv:0.3")).train  # (Part("a.jsonl", 0.7), Part("b.csv", 0.3))
"""

import os
from dataclasses import dataclass
from pathlib import Path

from arguments.data import DataArguments
from common.errors import DataError
from data.formats.detection import did_you_mean, find_format
from data.named import NAMED_DATASETS, REFUSED_DATASETS
from data.sources.files import FILE_TYPES, check_file
from data.sources.tables import repeated


@dataclass(frozen=True)
class Part:
    """One of the data sets of a mix, and its share of the rows (None: all of its rows)."""

    name: str
    weight: float | None = None


@dataclass(frozen=True)
class Names:
    """What --dataset and --eval_dataset name; `eval` is empty where the latter is not given."""

    train: tuple[Part, ...]
    eval: tuple[Part, ...] = ()

    @property
    def on_hub(self) -> list[str]:
        """The names on the hub of the data sets that are trained on; files have none."""
        return sorted({NAMED_DATASETS[part.name].source["path"] for part in self.train if part.name in NAMED_DATASETS})


def parse_mix(spec: str, flag: str) -> list[Part]:
    """Return the parts of "a.jsonl:0.7,b.csv:0.3" (weights), "a.jsonl,b.csv" (all rows) or a single name.

    Raises:
        DataError: a part is neither a readable file nor a known name, or stands twice, or some have weights and some
            have not.
    """
    parts = [_parse_part(part, flag) for part in _split(spec)]
    if not parts:
        raise DataError(f"{flag} is empty; give a file or a name\nnamed data sets: {', '.join(NAMED_DATASETS)}")
    if len(parts) == 1 and parts[0].weight is not None:
        raise DataError(
            f"{flag} {spec}: a weight needs a second data set to be weighed against, like "
            f"{parts[0].name}:0.7,other.jsonl:0.3; for fewer rows of one there is --max_train_samples"
        )
    names = [part.name for part in parts]
    twice = repeated(names)
    if twice is not None:
        raise DataError(f"{flag} {spec}: {twice} stands in it twice; name it once, with a larger weight: {twice}:2")
    unweighted = [part.name for part in parts if part.weight is None]
    if unweighted and len(unweighted) < len(parts):
        raise DataError(f"{flag} {spec}: {unweighted[0]} has no weight while others do; give every part one, or none")
    return parts


def _split(spec: str) -> list[str]:
    """Split at commas, except those in the name of a file."""
    pieces, parts = spec.split(","), []
    while pieces:
        ends = (end for end in range(len(pieces), 1, -1) if _is_part(",".join(pieces[:end]).strip()))
        end = next(ends, 1)
        parts.append(",".join(pieces[:end]).strip())
        pieces = pieces[end:]
    return [part for part in parts if part]


def _is_part(text: str) -> bool:
    name, _, weight = text.rpartition(":")
    return _exists(text) or (_exists(name) and "," not in weight)


def _parse_part(part: str, flag: str) -> Part:
    name, colon, weight = map(str.strip, part.rpartition(":"))
    if _exists(part) or not colon:
        check_source(part, flag)
        return Part(part)
    try:
        share = float(weight)
    except ValueError:
        if not _exists(name):
            check_source(part, flag)  # raises: what stands before the colon is no data set either
        raise DataError(f"{flag} {part}: the weight {weight!r} is not a number; like {name}:0.5") from None
    check_source(name, flag)
    if not 0 < share < float("inf"):
        raise DataError(f"{flag} {part}: the weight {weight} must be more than 0 and finite, like {name}:0.5")
    return Part(name, share)


def _exists(name: str) -> bool:
    """Return whether there is a data set or a file of this name."""
    return name in NAMED_DATASETS or os.path.exists(os.path.expanduser(name))


def parse_names(data: DataArguments) -> Names:
    """Return what the flags name, and refuse data, format and template names that are none; nothing is loaded.

    Raises:
        DataError: naming the flag.
    """
    train = parse_mix(data.dataset, "--dataset")
    held_out = parse_mix(data.eval_dataset, "--eval_dataset") if data.eval_dataset is not None else ()
    if data.dataset_format is not None:
        find_format(data.dataset_format)
    if data.chat_template not in (None, "default") and not Path(data.chat_template).expanduser().is_file():
        raise DataError(f"--chat_template {data.chat_template}: no such file; give a Jinja file, or default")
    return Names(tuple(train), tuple(held_out))


def check_source(name: str, flag: str) -> None:
    """Refuse what is neither a named data set nor a file of a known type; gives the nearest name."""
    if name in REFUSED_DATASETS:
        raise DataError(f"{flag} {name}: {REFUSED_DATASETS[name]}; named data sets: {', '.join(NAMED_DATASETS)}")
    if not _exists(name):
        raise DataError(
            f"{flag} {name}: there is no such file and no data set of that name{_nearest(name)}\n"
            f"named data sets: {', '.join(NAMED_DATASETS)}\nfile types: {FILE_TYPES}"
        )
    if name not in NAMED_DATASETS:
        check_file(name)


def _nearest(name: str) -> str:
    """Return a question that names the data set, or the file in the same folder, that may be meant."""
    repositories = {row.source["path"]: data_set for data_set, row in NAMED_DATASETS.items()}
    if question := did_you_mean(name, {data_set: data_set for data_set in NAMED_DATASETS} | repositories):
        return question
    folder, file = os.path.split(name)
    try:
        neighbours = os.listdir(os.path.expanduser(folder) or ".")
    except OSError:
        return f"; there is no folder {folder}"
    return did_you_mean(file, {neighbour: os.path.join(folder, neighbour) for neighbour in neighbours})
