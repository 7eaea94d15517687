"""Batches of {"input", "output"} texts as padded tensors, with the loss on the output alone unless asked otherwise.

    collator = DataCollatorForCausalLM(tokenizer, source_max_len=1024, target_max_len=256, …)
    batch = collator([{"input": "1 + 2?", "output": "3"}])  # input_ids, attention_mask, labels

The class shows a whole batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence

from common.labels import IGNORE_INDEX, PROMPT
from data.tokens.encoder import RowEncoder
from data.tokens.pairs import PairEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class DataCollatorForCausalLM:
    """Pad rows that `data.tokens` has encoded (`input_ids`, `labels`, `prompt_length`, `prompt_ids`) to a batch.

    A list of {"input": str, "output": str} is encoded on the way, as those rows are; other fields are ignored. The
    source is BOS (where the tokenizer has one) and the input, at most `source_max_len` tokens, the first ones kept.
    The target is the output and EOS, at most `target_max_len` tokens, EOS always among them and always supervised.
    Rows are padded on the right. Masks come from lengths, never from comparing ids, so a pad token that is EOS or that
    stands in a text changes nothing. With one, two, three as ids 3, 4, 5 and <pad>, <s>, </s> as 0, 1, 2:

    >>> collator = DataCollatorForCausalLM(
    ...     tokenizer, source_max_len=3, target_max_len=2, train_on_source=False, predict_with_generate=True
    ... )
    >>> batch = collator([{"input": "one", "output": "two three"}, {"input": "one two three", "output": "one"}])
    >>> for name, rows in batch.items():
    ...     print(name, rows.tolist())
    input_ids [[1, 3, 4, 2, 0], [1, 3, 4, 3, 2]]
    attention_mask [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    labels [[-100, -100, 4, 2, -100], [-100, -100, -100, 3, 2]]
    prompt_input_ids [[0, 1, 3], [1, 3, 4]]
    prompt_attention_mask [[0, 1, 1], [1, 1, 1]]

    Args:
        tokenizer: a Hugging Face tokenizer with an EOS token.
        source_max_len: tokens of a source, BOS included.
        target_max_len: tokens of a target, EOS included.
        train_on_source: supervise the source too.
        predict_with_generate: also give the prompt alone, padded on the left, so that generation of every row starts
            right after its prompt.
        text_marks: what closes the answers of conversations where that is ordinary text to the tokenizer, at which
            generation has to stop; see `data.tokens.templates`.

    Raises:
        ValueError: the tokenizer has no EOS token, or a limit leaves no room.
    """

    tokenizer: "PreTrainedTokenizerBase"
    source_max_len: int
    target_max_len: int
    train_on_source: bool
    predict_with_generate: bool
    text_marks: Sequence[str] = ()

    def __post_init__(self):
        pairs = PairEncoder(self.tokenizer, self.source_max_len, self.target_max_len)
        self.encoder = RowEncoder(pairs, self.train_on_source)

    def encoded(self, instances: Sequence[Mapping]) -> Sequence[Mapping]:
        """Return instances with the columns of `data.tokens`, as they are where they have them."""
        if instances and "input_ids" in instances[0]:
            return instances
        texts = ([instance[name] for instance in instances] for name in ("input", "output"))
        return [self.encoder.pair(source, target) for source, target in self.encoder.pairs.uncut(*texts)]

    def prompt(self, row: Mapping) -> list[int]:
        """Return the ids that generation of an encoded row starts from: its `prompt_ids`, else its source."""
        # Generation needs a token to start from: where there is no BOS, EOS stands for the end of the text before.
        source = row["input_ids"][: row["prompt_length"]]
        return list(row["prompt_ids"]) or list(source) or [self.tokenizer.eos_token_id]

    def __call__(self, instances: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """Return int64 tensors `input_ids`, `attention_mask` and `labels`, each (batch, longest row).

        With `predict_with_generate` also `prompt_input_ids` and `prompt_attention_mask`, each (batch, longest source).
        """
        rows = self.encoded(instances)
        # Any id may pad, as masks come from lengths.
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        batch = {
            "input_ids": _pad([row["input_ids"] for row in rows], pad),
            "attention_mask": _pad([[1] * len(row["input_ids"]) for row in rows], 0),
            "labels": _pad([row["labels"] for row in rows], IGNORE_INDEX),
        }
        if self.predict_with_generate:
            prompts = [self.prompt(row) for row in rows]
            batch[f"{PROMPT}input_ids"] = _pad(prompts, pad, side="left")
            batch[f"{PROMPT}attention_mask"] = _pad([[1] * len(prompt) for prompt in prompts], 0, side="left")
        return batch


def _pad(rows: Sequence[Sequence[int]], value: int, side: str = "right") -> torch.Tensor:
    """Return `rows` as one int64 tensor (rows, longest row), filled with `value` on a side."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=value, padding_side=side)
