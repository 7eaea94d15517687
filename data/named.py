"""The data sets that `--dataset NAME` stands for.

A row says which records to load, and of which format they are:

    row = NAMED_DATASETS["dolly"]
    datasets.load_dataset(**row.source)  # the records are of the format row.format
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NamedDataset:
    """What `--dataset NAME` stands for: its format and where it is (keyword arguments of `datasets.load_dataset`)."""

    format: str
    source: dict[str, Any]


# No hub can be reached where the tests run: repositories and columns are as their cards and users' code have them.
NAMED_DATASETS = {
    "alpaca": NamedDataset("alpaca", {"path": "tatsu-lab/alpaca"}),
    "alpaca-clean": NamedDataset("alpaca", {"path": "yahma/alpaca-cleaned"}),
    "alpaca-gpt4": NamedDataset("alpaca", {"path": "vicgalle/alpaca-gpt4"}),
    "chip2": NamedDataset("chip2", {"path": "laion/OIG", "data_files": "unified_chip2.jsonl"}),
    "dolly": NamedDataset("dolly", {"path": "databricks/databricks-dolly-15k"}),
    # The whole is 14 folders and hundreds of GB. These files are the first part of each zero-shot folder (cot, dialog,
    # flan, niv2, t0): 600 MB by the sizes on its pages.
    "flan-v2": NamedDataset("flan", {"path": "Open-Orca/FLAN", "data_files": {"train": "*_zsopt_data/part.0.parquet"}}),
    # Its main branch is a loading script, which datasets 4 and later refuse to run; the hub keeps a Parquet copy on a
    # branch of its own, one folder for each configuration. https://github.com/huggingface/datasets/issues/8012
    "self-instruct": NamedDataset(
        "self-instruct",
        {
            "path": "yizhongw/self_instruct",
            "revision": "refs/convert/parquet",
            "data_files": {"train": "self_instruct/**/*.parquet"},
        },
    ),
    "hh-rlhf": NamedDataset("hh-rlhf", {"path": "Anthropic/hh-rlhf"}),
    "longform": NamedDataset("input-output", {"path": "akoksal/LongForm"}),
    "oasst1": NamedDataset("oasst1", {"path": "timdettmers/openassistant-guanaco"}),
    "guanaco": NamedDataset("oasst1", {"path": "timdettmers/openassistant-guanaco"}),
    # It has one line for each instance of each task, the definition beside it: millions of rows, and no positive
    # examples. The published prompts are made of the task files of https://github.com/allenai/natural-instructions.
    "supernatural-instructions": NamedDataset("natural-instructions", {"path": "Muennighoff/natural-instructions"}),
    "unnatural-instructions": NamedDataset("unnatural-instructions", {"path": "mrm8488/unnatural-instructions-core"}),
    "unnatural-instructions-core": NamedDataset(
        "unnatural-instructions", {"path": "mrm8488/unnatural-instructions-core"}
    ),
    "unnatural-instructions-full": NamedDataset(
        "unnatural-instructions-full", {"path": "mrm8488/unnatural-instructions-full"}
    ),
}
REFUSED_DATASETS = {"vicuna": "its training data was never released"}
