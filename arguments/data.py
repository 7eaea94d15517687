"""The flags of the data: which rows are trained and evaluated on, and where they are cut.

    DataArguments(dataset="my.jsonl", source_max_len=512)

Which rows these are is read later; here a path is only a text.
"""

from dataclasses import dataclass

from arguments.declare import AT_LEAST_1, Rule, check_values, option, require

PROMPT_FORMATS = ("alpaca", "chat", "plain")
AT_LEAST_2: Rule = ("2 or more (one token and the end)", lambda n: n >= 2)


@dataclass(frozen=True)
class DataArguments:
    """Which rows are trained and evaluated on, and where they are cut."""

    _argument_group_name = "data"

    dataset: str = option(
        "alpaca",
        "Training data: a file (json, jsonl, csv, tsv, txt, .gz of these, parquet), a name (see data/README.md), or "
        "several with commas, and weights: a.jsonl:0.7,b.csv:0.3.",
        affects="split",
    )
    dataset_format: str | None = option(
        None, "Format of its records (see data/README.md); detected if not given.", affects="split"
    )
    eval_dataset: str | None = option(
        None,
        "Files or name whose rows are evaluated and predicted, instead of rows held out of --dataset.",
        affects="split",
    )
    eval_dataset_size: float = option(
        1024,
        "Rows of --dataset to hold out for --do_eval and --do_predict: a count, or a fraction between 0 and 1.",
        affects="split",
    )
    max_train_samples: int | None = option(None, "Train on at most this many rows.", affects="rows", rule=AT_LEAST_1)
    max_eval_samples: int | None = option(
        None, "Evaluate and predict at most this many rows.", affects="best", rule=AT_LEAST_1
    )
    source_max_len: int = option(
        1024, "Longest source (prompt), in tokens; the rest is cut.", affects="text", rule=AT_LEAST_1
    )
    target_max_len: int = option(
        256,
        "Longest target (answer), in tokens, its end-of-sequence token included.",
        affects="text",
        rule=AT_LEAST_2,
    )
    chat_template: str | None = option(
        None,
        "Template for conversations: a Jinja file, or 'default'; unset: the tokenizer's own, else the default one.",
    )
    prompt_format: str | None = option(
        None,
        "How rows of a question and an answer are laid out: alpaca (the published prompt of their format), chat (turns "
        "of the chat template), plain (nothing added); unset: as the adapter was trained, else chat where the model "
        "has a template and alpaca where it has none.",
        affects="text",
        choices=PROMPT_FORMATS,
    )
    preview: int | None = option(
        None, "Show this many rows as the model will see them, supervised tokens marked, and stop.", rule=AT_LEAST_1
    )

    def __post_init__(self):
        check_values(self)
        size, rule = self.eval_dataset_size, "must be a whole number of rows, or a fraction between 0 and 1"
        require(0 < size < 1 or (size >= 1 and float(size).is_integer()), f"--eval_dataset_size {size:g}: {rule}.")
