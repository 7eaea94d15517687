"""MMLU multiple-choice questions, scored by the logits of A, B, C and D after the prompt.

    rows = load_mmlu("mmlu-fs", "eval")
    metrics = score_mmlu(model, tokenizer, rows, split="eval", max_tokens=2048)

Source: https://arxiv.org/abs/2009.03300
"""

import functools
from typing import Any

import torch
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Seq2SeqTrainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from common.forward import evaluating, has_position_table
from data.mmlu.prompts import LETTERS
from eval.mmlu.metrics import answered_right, mmlu_metrics
from eval.mmlu.prefix import group, next_logits
from eval.mmlu.prompts import Prompt, encode_prompts, letter_tokens

FLAG = "--mmlu_source_max_len"


def score_mmlu(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict[str, str]],
    split: str,
    max_tokens: int,
) -> dict[str, float]:
    """Return loss and accuracies on multiple-choice questions; the model's state is restored.

    Args:
        rows: `subject`, `input` (the prompt) and `output` (a letter) of each question.
        split: what stands in the name of each metric.
        max_tokens: longest prompt, BOS included; longer ones are cut from the left, the question never.

    Returns:
        as `eval.mmlu.metrics.mmlu_metrics`.

    Raises:
        DataError: the tokenizer has no token of its own for each letter, or a question does not fit the model.
    """
    letters = letter_tokens(tokenizer)
    prompts = encode_mmlu(model, tokenizer, rows, max_tokens)
    with evaluating(model):
        logits = next_logits(model, prompts, letters.ids)
    return mmlu_metrics(rows, logits.numpy(), split)


def encode_mmlu(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict[str, str]],
    max_tokens: int,
) -> list[Prompt]:
    """Return the questions as token ids, short enough for `max_tokens` and the model; note what it was not made for."""
    texts = [row["input"] for row in rows]
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    table = positions if has_position_table(model) else None
    letters = letter_tokens(tokenizer)
    if not letters.alike:
        print(
            "note: this tokenizer joins the space with some of A, B, C and D and not with others: each letter's own "
            "token is scored, as if it stood right behind the prompt."
        )
    prompts = encode_prompts(tokenizer, texts, letters, max_tokens, table)
    note_lengths(prompts, f"the model's {table:,}" if table and table <= max_tokens else f"{FLAG} {max_tokens}")
    longest = max(len(prompt.ids) for prompt in prompts)
    if positions is not None and longest > positions:
        shorter = any("\nAnswer: " in prompt.examples for prompt in prompts)
        advice = f"{FLAG} {positions} cuts their examples" if shorter else "read its scores with care"
        print(f"note: MMLU prompts have up to {longest:,} tokens, but this model was made for {positions:,}; {advice}.")
    return prompts


def note_lengths(prompts: list[Prompt], limit: str) -> None:
    """Say how many prompts were cut, and how many questions could not be."""
    cut, longer = (sum(getattr(prompt, name) for prompt in prompts) for name in ("cut", "longer"))
    whole = f"; {longer:,} questions are longer by themselves and stay whole" if longer else ""
    if cut:
        print(f"note: {cut:,} of {len(prompts):,} MMLU prompts are over {limit} tokens and lose first lines{whole}.")
    elif longer:
        print(
            f"note: {longer:,} of {len(prompts):,} MMLU questions are over {limit} tokens by themselves and stay whole."
        )


class MMLUEvalCallback(TrainerCallback):
    """Scores MMLU at each evaluation and logs the result through the trainer.

    Args:
        trainer: the trainer whose model is scored.
        rows: the questions, as `load_mmlu` gives them.
        split: what stands in the name of each metric.
        max_tokens: longest prompt, BOS included; see `score_mmlu`.

    Attributes:
        logits: (questions, 4), those of the four letters when they were last scored.
        prefix: what the names of the metrics start with, before `mmlu_`.

    Raises:
        DataError: the questions do not go with the tokenizer or the model.
    """

    def __init__(
        self, trainer: Seq2SeqTrainer, rows: list[dict[str, str]], split: str = "eval", max_tokens: int = 2048
    ):
        self.trainer, self.rows, self.split = trainer, rows, split
        # Encoded now, so that what is wrong with the questions is said before anything is trained.
        self.prompts = encode_mmlu(trainer.model, trainer.processing_class, rows, max_tokens)
        self.logits: torch.Tensor | None = None
        self.prefix = ""
        self.say = functools.cache(print)  # once, not at each evaluation

    def score(self) -> dict[str, float]:
        """Score the questions, each process a share of them, and log the metrics."""
        trainer = self.trainer
        columns = letter_tokens(trainer.processing_class).ids
        progress = trainer.is_world_process_zero() and not trainer.args.disable_tqdm
        share = self.share()
        prompts = [self.prompts[index] for index in share]
        with evaluating(trainer.model), trainer.accelerator.autocast():
            logits = next_logits(
                trainer.model, prompts, columns, progress=progress, together=self.together, say=self.say
            )
        self.logits = self.gather(share, logits)
        by_name = mmlu_metrics(self.rows, self.logits.numpy(), self.split)
        metrics = {f"{self.prefix}{name}": value for name, value in by_name.items()}
        trainer.log(dict(metrics))
        return metrics

    def answers(self) -> tuple[list[str], list[bool]]:
        """Return the subject of each question, and whether it was answered right when it was last scored."""
        return [row["subject"] for row in self.rows], answered_right(self.rows, self.logits.numpy())

    @property
    def together(self) -> bool:
        """Whether processes hold parts of one model and so compute each pass together."""
        return self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled

    def share(self) -> list[int]:
        """Return the indices of the prompts of this process: whole groups, of which each gets large and small ones.

        Where processes compute together, each has all prompts.
        """
        if self.together:
            return list(range(len(self.prompts)))
        groups = group(self.prompts)
        groups.sort(key=lambda members: -sum(len(self.prompts[index].ids) for index in members))
        args = self.trainer.args
        return [index for members in groups[args.process_index :: args.world_size] for index in members]

    def gather(self, share: list[int], logits: torch.Tensor) -> torch.Tensor:
        """Return the logits of all prompts, from those of every process."""
        from accelerate.utils import gather_object

        gathered = torch.empty(len(self.prompts), len(LETTERS))
        for indices, values in gather_object([(share, logits)]):
            gathered[indices] = values
        return gathered

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ):
        """Score, and put the scores among the metrics of the evaluation."""
        scores = self.score()
        if self.trainer.is_in_train:
            # The library looks up --metric_for_best_model with eval_ before every name.
            scores |= {f"eval_{name}": value for name, value in scores.items()}
        if metrics is not None:  # the dictionary that trainer.evaluate returns
            metrics.update(scores)
