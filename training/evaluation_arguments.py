"""The flags of evaluation: MMLU, generated answers, and the base model beside the tuned one."""

import os
from dataclasses import dataclass, field, fields
from typing import Any

from training.parsing import option, require

MMLU_DATASETS = ("mmlu-fs", "mmlu-zs")


def unused_mmlu_flags(args: Any) -> list[str]:
    """Flags about MMLU that were set away from their default though it is not asked for."""
    names = ("mmlu_split", "mmlu_dataset", "max_mmlu_samples", "mmlu_source_max_len")
    defaults = {flag.name: flag.default for flag in fields(EvaluationArguments)}
    return [f"--{name}" for name in names if not args.do_mmlu_eval and getattr(args, name) != defaults[name]]


@dataclass
class EvaluationArguments:
    """What is evaluated beside the loss; part of the training arguments."""

    do_mmlu_eval: bool = option(False, "Score MMLU questions at each evaluation.")
    mmlu_split: str = option("eval", "MMLU split: eval or test.")
    mmlu_dataset: str = option(
        "mmlu-fs", "MMLU prompts: mmlu-fs (five-shot), mmlu-zs (zero-shot), or a file like theirs."
    )
    max_mmlu_samples: int | None = option(None, "Score at most this many MMLU questions, spread over their subjects.")
    mmlu_source_max_len: int = option(
        2048,
        "Longest MMLU prompt, in tokens, BOS included; header and first examples beyond it are left out, a question "
        "never.",
    )
    predict_with_generate: bool = option(
        False, "Generate answers at each evaluation too, and measure them as --do_predict does."
    )
    compare_base: bool = option(
        False, "Do --do_eval, --do_predict and --do_mmlu_eval with the adapter off too, and say what it changed."
    )

    # What --predict_with_generate asked for; the library's field of this name is set for --do_predict too.
    evaluation_generates: bool = field(default=False, init=False)

    def check_evaluation(self) -> None:
        """Refuse what cannot be evaluated as asked."""
        require(
            self.mmlu_dataset in MMLU_DATASETS or os.path.isfile(self.mmlu_dataset),
            f"--mmlu_dataset {self.mmlu_dataset}: no such file; allowed are {', '.join(MMLU_DATASETS)}, or a file of "
            "their shape (see data/mmlu/README.md).",
        )
        best = self.metric_for_best_model or ""
        require(
            self.do_mmlu_eval or not best.removeprefix("eval_").startswith("mmlu_"),
            f"--metric_for_best_model {best} without --do_mmlu_eval: it is not measured.",
        )
        if self.compare_base:
            require(
                not self.full_finetune,
                "--compare_base with --full_finetune: every weight is tuned, so there is no adapter to switch off. Run "
                "the base by itself: the same command with --do_train False and another --output_dir.",
            )
            require(
                self.do_eval or self.do_predict or self.do_mmlu_eval,
                "--compare_base without --do_eval, --do_predict or --do_mmlu_eval: there is nothing to compare.",
            )
