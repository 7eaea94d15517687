"""The flags of evaluation: MMLU, generated answers, and the base model beside the tuned one."""

import os
from dataclasses import dataclass, field, fields
from typing import Any

from arguments.declare import option, require

MMLU_DATASETS = ("mmlu-fs", "mmlu-zs")
# What --metric_for_best_model may be: of every evaluation, and of generated answers.
LOSSES = ("loss", "perplexity")
MMLU_TOO = ", and with --do_mmlu_eval mmlu_eval_accuracy and others"
ANSWER_METRICS = (
    "exact_match", "token_f1", "bleu", "chrf", "rouge1", "rouge2", "rougeL", "distinct_1", "distinct_2", "stopped",
    "new_tokens",
)  # fmt: skip


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
        self.check_best()
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

    def check_best(self) -> None:
        """Refuse a best checkpoint that no evaluation during training can name."""
        flags = ["--save_strategy best"] if self.save_strategy == "best" else []
        flags += ["--load_best_model_at_end"] if self.load_best_model_at_end else []
        for flag in flags:
            require(
                self.eval_strategy != "no",
                f"{flag} with --eval_strategy no: without evaluations during training no checkpoint is the best. Add "
                "--eval_strategy steps.",
            )
            every, last = self.eval_steps or self.logging_steps, self.max_steps
            counted = self.eval_strategy == "steps" and last > 0 and every >= 1
            require(
                not counted or last // every * every >= max(self.eval_delay, 1),
                f"{flag} with --eval_steps {every:g}, --eval_delay {self.eval_delay:g} and --max_steps {last}: no "
                "evaluation comes in these steps. Evaluate more often.",
            )
        if self.metric_for_best_model is not None:
            self.check_best_metric(self.metric_for_best_model.removeprefix("eval_"))

    def check_best_metric(self, name: str) -> None:
        flag = f"--metric_for_best_model {self.metric_for_best_model}"
        if name.startswith("mmlu_"):  # which of these there are, the questions tell
            return require(self.do_mmlu_eval, f"{flag} without --do_mmlu_eval: it is not measured.")
        require(
            self.predict_with_generate or name not in ANSWER_METRICS,
            f"{flag} without --predict_with_generate: it is not measured.",
        )
        measured = LOSSES + (ANSWER_METRICS if self.predict_with_generate else ())
        require(name in measured, f"{flag}: evaluations measure {', '.join(measured)}{MMLU_TOO}.")
