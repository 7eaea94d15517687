"""MMLU multiple-choice questions, scored by the logits of A, B, C and D after the prompt.

    rows = load_mmlu("mmlu-fs", "eval")
    metrics = score_mmlu(model, tokenizer, rows, split="eval", max_tokens=2048)

Source: https://arxiv.org/abs/2009.03300
"""

import inspect
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from data.formats import DataError

MMLU_DIRECTORY = Path(__file__).resolve().parent.parent / "data" / "mmlu"
SHOTS = {"mmlu-zs": "zero", "mmlu-fs": "five"}
SPLITS = {"eval": "val", "test": "test"}
LETTERS = ("A", "B", "C", "D")


def load_mmlu(dataset: str, split: str, limit: int | None = None, seed: int = 42) -> list[dict[str, str]]:
    """Read the prompts of a split: one JSON object a line with `subject`, `input` (the prompt) and `output` (a letter).

    `limit` keeps a seeded random sample, in the file's order.

    Raises:
        DataError: the file is not there, or a line is not such an object.
    """
    path = MMLU_DIRECTORY / f"{SHOTS[dataset]}_shot_mmlu_{SPLITS[split]}.json"
    if not path.is_file():
        raise DataError(
            f"--do_mmlu_eval: there is no {path.name} in {path.parent}. Put the MMLU prompt files of the QLoRA "
            "release there (five_shot_mmlu_val.json, …), or leave --do_mmlu_eval out."
        )
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            rows.append({"subject": row["subject"], "input": row["input"], "output": row["output"].strip()})
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}, line {number}: not an object with subject, input and output ({error})") from error
        if rows[-1]["output"] not in LETTERS:
            raise DataError(f"{path}, line {number}: output {rows[-1]['output']!r} is none of {', '.join(LETTERS)}")
    if limit is not None and limit < len(rows):
        rows = [rows[index] for index in sorted(random.Random(seed).sample(range(len(rows)), limit))]
    return rows


def letter_ids(tokenizer: Any) -> list[int]:
    """Ids of the tokens that follow "Answer:" for A, B, C and D, with their space where the tokenizer joins it.

    Raises:
        DataError: they are not four distinct tokens.
    """
    ids = [tokenizer(f"Answer: {letter}", add_special_tokens=False)["input_ids"][-1] for letter in LETTERS]
    if len(set(ids)) != len(LETTERS):
        raise DataError(f"this tokenizer has no token of its own for each of A, B, C and D (ids {ids}): no MMLU scores")
    return ids


def prompt_ids(tokenizer: Any, prompt: str, max_tokens: int) -> list[int]:
    """BOS and the prompt, cut from the left to `max_tokens`, so that the question itself stays whole."""
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return bos + ids[-max(max_tokens - len(bos), 1) :]


def score_mmlu(model: Any, tokenizer: Any, rows: list[dict[str, str]], split: str, max_tokens: int) -> dict[str, float]:
    """Mean loss over the four letters, accuracy by subject, and their macro average.

    The model's training mode is restored.
    """
    from tqdm import tqdm

    letters = torch.tensor(letter_ids(tokenizer))
    right: dict[str, list[bool]] = defaultdict(list)
    losses = []
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    last_only = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(base.forward).parameters else {}
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for row in tqdm(rows, desc="MMLU", leave=False):
            ids = torch.tensor([prompt_ids(tokenizer, row["input"], max_tokens)], device=model.device)
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **last_only).logits
            logits = logits[0, -1].float().cpu()  # (vocabulary,)
            answer = LETTERS.index(row["output"])
            losses.append(torch.nn.functional.cross_entropy(logits[letters], torch.tensor(answer)).item())
            right[row["subject"]].append(logits[letters].argmax().item() == answer)
    model.train(was_training)
    by_subject = {f"mmlu_{split}_accuracy_{name}": sum(hits) / len(hits) for name, hits in sorted(right.items())}
    return {
        "mmlu_loss": sum(losses) / len(losses),
        f"mmlu_{split}_accuracy": sum(by_subject.values()) / len(by_subject),
        **by_subject,
    }


class MMLUEvalCallback(TrainerCallback):
    """Scores MMLU at each evaluation and logs the result through the trainer.

    Args:
        trainer: the trainer whose model is scored, or None until it is known.
        args: every flag of the command line.
    """

    def __init__(self, trainer: Any, args: Any):
        self.trainer = trainer
        self.split = args.mmlu_split
        self.max_tokens = args.mmlu_source_max_len
        self.rows = load_mmlu(args.mmlu_dataset, args.mmlu_split, args.max_mmlu_samples, args.seed)

    def score(self) -> dict[str, float]:
        tokenizer = self.trainer.processing_class
        metrics = score_mmlu(self.trainer.model, tokenizer, self.rows, self.split, self.max_tokens)
        self.trainer.log(dict(metrics))
        return metrics

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any):
        scores = self.score()
        if metrics is not None:  # the dictionary that trainer.evaluate returns
            metrics.update(scores)
