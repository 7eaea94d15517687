"""MMLU multiple-choice questions, scored by the logits of A, B, C and D after the prompt.

    rows = load_mmlu("mmlu-fs", "eval")
    metrics = score_mmlu(model, tokenizer, rows, split="eval", max_tokens=2048)

Source: https://arxiv.org/abs/2009.03300
"""

import functools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from common.forward import evaluating
from data.mmlu.prompts import LETTERS
from eval.mmlu.prefix import group, next_logits
from eval.mmlu.prompts import Prompt, encode_prompts, letter_tokens
from eval.mmlu.subjects import GROUP_OF, GROUPS
from eval.statistics import macro_interval, mean

FLAG = "--mmlu_source_max_len"
POSITION_TABLES = ("wpe", "embed_positions", "position_embeddings")  # what such tables are called in transformers


def score_mmlu(model: Any, tokenizer: Any, rows: list[dict[str, str]], split: str, max_tokens: int) -> dict[str, float]:
    """Loss and accuracies on multiple-choice questions; `mmlu_metrics` says which. The model's state is restored.

    Args:
        rows: `subject`, `input` (the prompt) and `output` (a letter) of each question.
        split: what stands in the name of each metric.
        max_tokens: longest prompt, BOS included; longer ones are cut from the left, the question never.

    Raises:
        DataError: the tokenizer has no token of its own for each letter, or a question does not fit the model.
    """
    letters = letter_tokens(tokenizer)
    prompts = encode_mmlu(model, tokenizer, rows, max_tokens)
    with evaluating(model):
        logits = next_logits(model, prompts, letters.ids)
    return mmlu_metrics(rows, logits, split)


def encode_mmlu(model: Any, tokenizer: Any, rows: list[dict[str, str]], max_tokens: int) -> list[Prompt]:
    """The questions as token ids, short enough for `max_tokens` and for the model; notes what it was not made for."""
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


def has_position_table(model: torch.nn.Module) -> bool:
    """Whether the model looks positions up and so has no more than these; others compute them (rotary, ALiBi)."""
    modules = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Embedding))
    buffers = (name for name, _ in model.named_buffers())
    return any(name.rpartition(".")[2] in POSITION_TABLES for names in (modules, buffers) for name in names)


def right_letters(rows: Sequence[dict[str, str]]) -> torch.Tensor:
    """Which of A, B, C and D is right, 0 to 3; (questions,)."""
    return torch.tensor([LETTERS.index(row["output"]) for row in rows])


def answered_right(rows: Sequence[dict[str, str]], logits: torch.Tensor) -> list[bool]:
    """Whether the right letter has the highest logit; never where one of them is not a number."""
    return ((logits.argmax(dim=1) == right_letters(rows)) & logits.isfinite().all(dim=1)).tolist()


def mmlu_metrics(rows: Sequence[dict[str, str]], logits: torch.Tensor, split: str) -> dict[str, float]:
    """What the logits of the four letters, (questions, 4), are worth.

    Returns:
        Of `mmlu_{split}_`: `loss`, the mean cross-entropy over the four letters; `accuracy`, the mean over subjects,
        and its 95 % interval `accuracy_low`, `accuracy_high`; `accuracy_questions`, over all questions alike;
        `accuracy_SUBJECT`; `accuracy_group_NAME` over the questions of each of the paper's four groups, and
        `accuracy_groups`, the mean of these, with `accuracy_groups_low` and `accuracy_groups_high`; `questions`, their
        number.
    """
    right = answered_right(rows, logits)
    subjects, groups = defaultdict(list), defaultdict(list)
    for row, is_right in zip(rows, right, strict=True):
        subjects[row["subject"]].append(is_right)
        if row["subject"] in GROUP_OF:
            groups[GROUP_OF[row["subject"]]].append(is_right)
    low, high = macro_interval(list(subjects.values()))
    by_group = {f"accuracy_group_{name}": mean(groups[name]) for name in GROUPS if name in groups}
    if by_group:
        names = ("accuracy_groups", "accuracy_groups_low", "accuracy_groups_high")
        of_groups = (mean(list(by_group.values())), *macro_interval(list(groups.values())))
        by_group |= zip(names, of_groups, strict=True)
    metrics = {
        "loss": torch.nn.functional.cross_entropy(logits, right_letters(rows)).item(),
        "accuracy": mean([mean(hits) for hits in subjects.values()]),
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_questions": mean(right),
        **by_group,
        **{f"accuracy_{name}": mean(hits) for name, hits in sorted(subjects.items())},
        "questions": len(rows),
    }
    return {f"mmlu_{split}_{name}": value for name, value in metrics.items()}


class MMLUEvalCallback(TrainerCallback):
    """Scores MMLU at each evaluation and logs the result through the trainer.

    Args:
        trainer: the trainer whose model is scored; where it is None, `trainer` must be set before training begins.
        rows: the questions, as `load_mmlu` gives them.
        split: what stands in the name of each metric.
        max_tokens: longest prompt, BOS included; see `score_mmlu`.

    Attributes:
        logits: (questions, 4), those of the four letters when they were last scored.
        prefix: what the names of the metrics start with, before `mmlu_`.

    Raises:
        DataError: the questions do not go with the tokenizer or the model.
    """

    def __init__(self, trainer: Any, rows: list[dict[str, str]], split: str = "eval", max_tokens: int = 2048):
        self.trainer, self.rows, self.split, self.max_tokens = trainer, rows, split, max_tokens
        self.prompts: list[Prompt] | None = None
        self.logits: torch.Tensor | None = None
        self.prefix = ""
        self.say = functools.cache(print)  # once, not at each evaluation
        if trainer is not None:
            self.prepare()

    def prepare(self) -> None:
        """Encode the questions, so that what is wrong with them is said before anything is trained."""
        if self.prompts is None:
            trainer = self.trainer
            self.prompts = encode_mmlu(trainer.model, trainer.processing_class, self.rows, self.max_tokens)

    def score(self) -> dict[str, float]:
        """Score the questions, each process a share of them, and log the metrics."""
        self.prepare()
        trainer = self.trainer
        columns = letter_tokens(trainer.processing_class).ids
        progress = trainer.is_world_process_zero() and not trainer.args.disable_tqdm
        share = self.share()
        with evaluating(trainer.model), trainer.accelerator.autocast():
            prompts = [self.prompts[index] for index in share]
            found = next_logits(
                trainer.model, prompts, columns, progress=progress, together=self.together, say=self.say
            )
        self.logits = self.gather(share, found)
        by_name = mmlu_metrics(self.rows, self.logits, self.split)
        metrics = {f"{self.prefix}{name}": value for name, value in by_name.items()}
        trainer.log(dict(metrics))
        return metrics

    def answers(self) -> tuple[list[str], list[bool]]:
        """The subject of each question, and whether it was answered right when it was last scored."""
        return [row["subject"] for row in self.rows], answered_right(self.rows, self.logits)

    @property
    def together(self) -> bool:
        """Whether processes hold parts of one model and so compute each pass together."""
        return self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled

    def share(self) -> list[int]:
        """Indices of the prompts of this process: whole groups, the largest first to who has least to do.

        Where processes compute together, each has all prompts.
        """
        args = self.trainer.args
        if self.together:
            return list(range(len(self.prompts)))
        shares: list[list[int]] = [[] for _ in range(args.world_size)]
        tokens = [0] * args.world_size
        groups = [(sum(len(self.prompts[index].ids) for index in members), members) for members in group(self.prompts)]
        for size, members in sorted(groups, reverse=True):
            least = tokens.index(min(tokens))
            tokens[least] += size
            shares[least] += members
        return shares[args.process_index]

    def gather(self, share: list[int], found: torch.Tensor) -> torch.Tensor:
        """The logits of all prompts, from those of every process."""
        from accelerate.utils import gather_object

        logits = torch.empty(len(self.prompts), len(LETTERS))
        for indices, values in gather_object([(share, found)]):
            logits[indices] = values
        return logits

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any):
        self.prepare()

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any):
        scores = self.score()
        if self.trainer.is_in_train:
            # The library looks up --metric_for_best_model with eval_ before every name.
            scores |= {f"eval_{name}": value for name, value in scores.items()}
        if metrics is not None:  # the dictionary that trainer.evaluate returns
            metrics.update(scores)
