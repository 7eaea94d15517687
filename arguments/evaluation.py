"""The flags of evaluation: MMLU, and the base model beside the tuned one.

    TrainingArguments(do_eval=True, compare_base=True).compare_base

They are part of `arguments.training.TrainingArguments`, as published.
"""

import os
from dataclasses import dataclass

from arguments.declare import AT_LEAST_1, option, require
from arguments.library_flags import LibraryArguments

MMLU_DATASETS = ("mmlu-fs", "mmlu-zs")
# What --metric_for_best_model may be: of every evaluation, and of generated answers.
LOSSES = ("loss", "perplexity")
ANSWER_METRICS = (
    "exact_match", "token_f1", "bleu", "chrf", "rouge1", "rouge2", "rougeL", "distinct_1", "distinct_2", "stopped",
    "new_tokens",
)  # fmt: skip


@dataclass(frozen=True)
class EvaluationArguments(LibraryArguments):
    """What is evaluated beside the loss; part of the training arguments."""

    do_mmlu_eval: bool = option(False, "Score MMLU questions at each evaluation.")
    mmlu_split: str = option("eval", "MMLU split.", affects="best", choices=("eval", "test"))
    mmlu_dataset: str = option(
        "mmlu-fs", "MMLU prompts: mmlu-fs (five-shot), mmlu-zs (zero-shot), or a file like theirs.", affects="best"
    )
    max_mmlu_samples: int | None = option(
        None, "Score at most this many MMLU questions, spread over their subjects.", affects="best", rule=AT_LEAST_1
    )
    mmlu_source_max_len: int = option(
        2048,
        "Longest MMLU prompt, in tokens, BOS included; header and first examples beyond it are left out, a question "
        "never.",
        affects="best",
        rule=AT_LEAST_1,
    )
    compare_base: bool = option(
        False, "Do --do_eval, --do_predict and --do_mmlu_eval with the adapter off too, and say what it changed."
    )

    def unused_mmlu_flags(self) -> list[str]:
        """Return the flags about MMLU that were set away from their default though it is not asked for."""
        names = ("mmlu_split", "mmlu_dataset", "max_mmlu_samples", "mmlu_source_max_len")
        return [] if self.do_mmlu_eval else [flag.partition(" ")[0] for flag in self.flags_set(names)]

    def check_evaluation(self) -> None:
        """Refuse what cannot be evaluated as asked. Raises ArgumentsError."""
        require(
            self.mmlu_dataset in MMLU_DATASETS or os.path.isfile(self.mmlu_dataset),
            f"--mmlu_dataset {self.mmlu_dataset}: no such file; allowed are {', '.join(MMLU_DATASETS)}, or a file of "
            "their shape (see data/mmlu/README.md).",
        )
        require(
            not self.compare_base or self.do_eval or self.do_predict or self.do_mmlu_eval,
            "--compare_base without --do_eval, --do_predict or --do_mmlu_eval: there is nothing to compare.",
        )
        self.check_best()
        if self.metric_for_best_model is not None:
            self.check_best_metric(self.metric_for_best_model.removeprefix("eval_"))

    def check_best(self) -> None:
        """Refuse a best checkpoint that no evaluation during training can name, or that no checkpoint holds."""
        flags = ["--save_strategy best"] if self.save_strategy == "best" else []
        flags += ["--load_best_model_at_end"] if self.load_best_model_at_end else []
        every, last = self.eval_steps or self.logging_steps, self.max_steps
        counted = self.eval_strategy == "steps" and last > 0 and every >= 1
        for flag in flags:
            require(
                self.eval_strategy != "no",
                f"{flag} with --eval_strategy no: without evaluations during training no checkpoint is the best. Add "
                "--eval_strategy steps.",
            )
            require(
                not counted or last // every * every >= max(self.eval_delay, 1),
                f"{flag} with --eval_steps {every:g}, --eval_delay {self.eval_delay:g} and --max_steps {last}: no "
                "evaluation comes in these steps. Evaluate more often.",
            )
        if not self.load_best_model_at_end or self.save_strategy == "best":
            return
        require(
            self.save_strategy == self.eval_strategy,
            f"--load_best_model_at_end with --save_strategy {self.save_strategy} and --eval_strategy "
            f"{self.eval_strategy}: what is evaluated must be saved. Give both the same, or --save_strategy best.",
        )
        mixed = (every < 1) != (self.save_steps < 1)
        times = self.save_steps / every
        require(
            self.eval_strategy != "steps" or (not mixed and abs(times - round(times)) < 1e-6 * times),
            f"--load_best_model_at_end with --save_steps {self.save_steps:g} and --eval_steps {every:g}: what is saved "
            "must have been evaluated. Make the first a multiple of the second.",
        )

    def check_best_metric(self, name: str) -> None:
        """Refuse a metric that no evaluation of this run measures, by its name without `eval_`."""
        flag = f"--metric_for_best_model {self.metric_for_best_model}"
        if name.startswith("mmlu_"):  # which of these there are, the questions tell
            return require(self.do_mmlu_eval, f"{flag} without --do_mmlu_eval: it is not measured.")
        require(
            self.predict_with_generate or name not in ANSWER_METRICS,
            f"{flag} without --predict_with_generate: it is not measured.",
        )
        measured = LOSSES + (ANSWER_METRICS if self.predict_with_generate else ())
        others = ", and with --do_mmlu_eval mmlu_eval_accuracy and others"
        require(name in measured, f"{flag}: evaluations measure {', '.join(measured)}{others}.")
