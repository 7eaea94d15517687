"""A question and its answer → token ids, and what BOS, EOS and the limits make of them: the one place that knows.

Sources and targets come and go as lists of equal length:

    pairs = PairEncoder(tokenizer, source_max_len=1024, target_max_len=256)
    source, target = pairs.uncut(["1 + 2?"], ["3"])[0]  # lists of ids
    pairs.with_bos(source), pairs.cut_target(pairs.with_eos(target))
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# One of these is put before a text that is encoded as the rest of another; no vocabulary joins it with what follows.
ANCHORS = ("\u2042", "\n", ".")
Ids = list[int]


@dataclass
class PairEncoder:
    """Encodes sources and targets.

    The source is BOS (where the tokenizer has one) and the text, at most `source_max_len` tokens, the first ones kept.
    The target is the text and EOS, at most `target_max_len` tokens, EOS always among them.

    Args:
        tokenizer: a Hugging Face tokenizer with an EOS token.
        source_max_len: tokens of a source, BOS included.
        target_max_len: tokens of a target, EOS included.

    Raises:
        ValueError: the tokenizer has no EOS token, or a limit leaves no room.
    """

    tokenizer: "PreTrainedTokenizerBase"
    source_max_len: int
    target_max_len: int

    def __post_init__(self):
        if self.tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no EOS token: a model tuned with it would never learn to stop")
        if self.source_max_len < 1 or self.target_max_len < 1:
            raise ValueError(
                f"source_max_len {self.source_max_len} and target_max_len {self.target_max_len} must both be at least 1"
            )

    @property
    def limit(self) -> int:
        """Tokens of a whole row."""
        return self.source_max_len + self.target_max_len

    def uncut(self, sources: Sequence[str], targets: Sequence[str]) -> list[tuple[Ids, Ids]]:
        """Return the (source, target) ids of pairs, which together decode to the text of source and target.

        The source is encoded by itself, as for generation. Some tokenizers put a space before every text, as Llama 2's:
        the target is encoded as what follows the source, so that no second space comes in.
        """
        target_ids = self.ids(targets)
        if self.anchor:
            anchor, *anchored = self.ids([self.anchor, *(self.anchor + target for target in targets)])
            following = [ids[len(anchor) :] for ids in anchored]
            target_ids = [following[i] if source else target_ids[i] for i, source in enumerate(sources)]
        return list(zip(self.ids(sources), target_ids, strict=True))

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of texts, without special tokens."""
        # verbose=False: the warning about a text longer than the model's context comes before our own cut.
        options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
        return self.tokenizer(list(texts), **options)["input_ids"]

    @cached_property
    def anchor(self) -> str:
        """What to put before a text that is encoded as the rest of another, so that no space is put before it.

        It is "" for tokenizers that put none: only SentencePiece (`add_dummy_prefix`) and ByteLevel
        (`add_prefix_space`) do, which write it as a character of their own.
        """
        [first, *_] = self.tokenizer.convert_ids_to_tokens(self.ids(["a"])[0]) or [""]
        if not str(first).startswith(("\u2581", "\u0120")):
            return ""
        unknown = self.tokenizer.unk_token_id
        return next((anchor for anchor in ANCHORS if unknown not in self.ids([anchor])[0]), "")

    def with_bos(self, ids: Ids) -> Ids:
        """Return `ids` with BOS in front, once, where the tokenizer has one: templates may write it, several times."""
        bos = self.tokenizer.bos_token_id
        if bos is None:
            return ids
        start = next((i for i, token in enumerate(ids) if token != bos), len(ids))
        return [bos, *ids[start:]]

    def with_eos(self, ids: Ids) -> Ids:
        """Return `ids` with EOS at the end, once."""
        eos = self.tokenizer.eos_token_id
        return ids if ids[-1:] == [eos] else [*ids, eos]

    def cut_target(self, ids: Ids) -> Ids:
        """Return a target that ends with EOS, cut to `target_max_len` and still ending with it."""
        return ids if len(ids) <= self.target_max_len else self.with_eos(ids[: self.target_max_len - 1])
