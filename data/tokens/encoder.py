"""A batch of formatted rows → token ids and labels, cut to the limits.

Batches are columns, as `datasets.Dataset.map` gives and takes them:

    encode = RowEncoder(PairEncoder(tokenizer, source_max_len=1024, target_max_len=256), train_on_source=False)
    columns = encode({"input": ["1 + 2?"], "output": ["3"], "messages": [None], …})
    columns["input_ids"], columns["labels"]
"""

import bisect
import itertools
import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy

from common.errors import DataError
from common.labels import IGNORE_INDEX
from data.cache import code_digest, key_of
from data.formats.fields import SkipRow
from data.rows import exchange
from data.tokens.pairs import Ids, PairEncoder
from data.tokens.templates import ChatRenderer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXT_COUNTS = ("source_tokens", "target_tokens", "source_cut", "target_cut")
CONVERSATION_COUNTS = ("unclosed", "hidden_thoughts", "hidden_turns", "hidden_tools")
Spans = list[tuple[int, int]]  # (first, past the last) of each, in characters or in tokens
NO_ANSWER = "no token of an answer is left within --source_max_len + --target_max_len"


class RowEncoder:
    """Encodes batches of rows; a plain object, so that `datasets.Dataset.map` can call it.

    A pair of `input` and `output` is cut as `DataCollatorForCausalLM` says. A conversation is rendered by the chat
    template and cut after source_max_len + target_max_len tokens; every answer is supervised and nothing else.

    Args:
        pairs: holds the tokenizer and the limits, and knows of BOS, EOS and cuts.
        train_on_source: supervise sources too.
    """

    def __init__(self, pairs: PairEncoder, train_on_source: bool):
        self.pairs, self.tokenizer, self.train_on_source = pairs, pairs.tokenizer, train_on_source
        self.renderer = ChatRenderer(self.tokenizer)

    @cached_property
    def key(self) -> str:
        """Return a key of the tokenizer, its template and its libraries, of the limits, and of this code."""
        import tokenizers
        import transformers

        limits = (self.pairs.source_max_len, self.pairs.target_max_len, self.train_on_source)
        libraries = (tokenizers.__version__, transformers.__version__)
        return key_of(_tokenizer_state(self.tokenizer), libraries, limits, code_digest())

    def __call__(self, batch: Mapping[str, list]) -> dict[str, list]:
        """Return a batch of columns with the token columns beside them.

        A text that is split becomes several rows. Where the last answer of a conversation is cut off, `input` and
        `output` become those of the last one that is left.

        Returns:
            input_ids, labels: `length` ids (int32), of which `supervised` are labels other than IGNORE_INDEX.
            prompt_length, prompt_ids: generation starts from so many of the first ids; or from these ids, where a chat
                template's prompt is not what stands before the answer.
            source_tokens, target_tokens: counted before the cuts, which took `source_cut` and `target_cut` of them.
            unclosed: how many supervised answers before the last one end without a mark.
            hidden_thoughts, hidden_turns, hidden_tools: how many of each the template leaves out.
            dropped: why a row cannot be trained on, or None.
        """
        messages, splits, tools = batch["messages"], batch["splits"], batch["tools"]
        pairs = [i for i, conversation in enumerate(messages) if conversation is None]
        inputs, outputs = ([batch[name][i] for i in pairs] for name in ("input", "output"))
        encoded: list[list[dict]] = [[] for _ in messages]
        ids = self.pairs.uncut(inputs, outputs) if pairs else []
        for i, (source, target) in zip(pairs, ids, strict=True):
            encoded[i] = self._pieces(target) if splits[i] else [self._pair(source, target)]
        for i, conversation in enumerate(messages):
            if conversation is not None:
                encoded[i] = [self._conversation(json.loads(conversation), json.loads(tools[i] or "null"))]
        formatted = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        rows = [formatted[i] | row for i, pieces in enumerate(encoded) for row in pieces]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def pair(self, source: Ids, target: Ids) -> dict:
        """Return the token columns of a source and its target, with BOS and EOS and cut to the limits."""
        source, target = self.pairs.with_bos(source), self.pairs.with_eos(target)
        cut_source, cut_target = source[: self.pairs.source_max_len], self.pairs.cut_target(target)
        ids, cuts = cut_source + cut_target, (len(source) - len(cut_source), len(target) - len(cut_target))
        return self._row(ids, [(len(cut_source), len(ids))], (len(source), len(target), *cuts))

    def _pair(self, source: Ids, target: Ids) -> dict:
        """Return the row of a pair, a dropped one where only EOS is left of its answer: that teaches to stop at once.

        A row without an answer is there to be predicted.
        """
        row = self.pair(source, target)
        if not target or row["target_tokens"] - row["target_cut"] > 1:
            return row
        return self._row([], [], (row["source_tokens"], row["target_tokens"]) * 2, NO_ANSWER)

    def _pieces(self, text: Ids) -> list[dict]:
        """Return a text as rows of at most source_max_len + target_max_len tokens; EOS closes the last one alone."""
        start, text = self.pairs.with_bos([]), self.pairs.with_eos(text)
        size = max(1, self.pairs.limit - len(start))
        cuts = [*range(0, len(text), size), len(text)]
        if len(text) % size == 1 and len(text) > 2 and size > 1:
            cuts[-2] -= 1  # no row is EOS alone
        rows = [start + text[at:end] for at, end in itertools.pairwise(cuts)]
        return [self._row(ids, [(len(start), len(ids))], (len(start), len(ids) - len(start), 0, 0)) for ids in rows]

    def _conversation(self, messages: list[dict], tools: list | None) -> dict:
        """Return the row of a conversation, with what its chat template hides of it."""
        try:
            if messages[-1]["supervised"] and not messages[-1]["content"].strip():
                return self._question(self.renderer.prompt(messages[:-1], tools))
            text, answers = self.renderer.render(messages, tools)
        except SkipRow as skip:
            return self._row([], [], dropped=str(skip))
        ids, spans = self._encoded(text, [(answer.start, answer.end) for answer in answers])
        counts = {
            "unclosed": sum(not answer.closed for answer in answers[:-1]),  # EOS closes the last one
            "hidden_thoughts": sum(answer.hidden_thought for answer in answers),
            **self.renderer.count_hidden(text, messages, tools),
        }
        row = self._cut(ids, spans, turns_follow=not messages[-1]["supervised"]) | counts
        if not row["length"]:
            return row
        last = [start for start, _ in spans].index(row["prompt_length"])  # the last answer that is left
        if answers[last].prompt is not None:
            row["prompt_ids"] = self.pairs.with_bos(self._encode(answers[last].prompt)[0])
        return row if last == len(answers) - 1 else row | exchange(messages, last)

    def _cut(self, ids: Ids, spans: Spans, turns_follow: bool) -> dict:
        """Return the row of a conversation: up to its last answer and EOS, within the limits.

        Args:
            turns_follow: whether turns stand behind the last answer, which are counted as cut; white space and marks
                there are not, as they teach nothing.
        """
        limit = self.pairs.limit
        behind = len(ids) - spans[-1][1] if turns_follow else 0
        if behind and self.train_on_source and len(ids) <= limit:  # then all turns are learned
            return self._row(ids, spans, (len(ids) - _size(spans), _size(spans), 0, 0))
        whole, spans = self._ended(ids, spans, len(ids) + 1)
        target = _size(spans)
        source = len(whole) - target + behind
        ids, spans = (whole, spans) if len(whole) <= limit else self._ended(whole, spans, limit)
        cuts = (source - (len(ids) - _size(spans)), target - _size(spans))
        return self._row(ids, spans, (source, target, *cuts), None if ids else NO_ANSWER)

    def _question(self, text: str) -> dict:
        """Return the prompt of a conversation that waits for its answer, and EOS in place of one."""
        ids = self.pairs.with_bos(self._encode(text)[0])
        prompt = ids[: self.pairs.limit - 1]
        counts = (len(ids), 1, len(ids) - len(prompt), 0)
        return self._row([*prompt, self.tokenizer.eos_token_id], [(len(prompt), len(prompt) + 1)], counts)

    def _encoded(self, text: str, spans: Spans) -> tuple[Ids, Spans]:
        """Return the ids of a rendered text, with BOS in front, and its spans in tokens.

        The ids before the last answer are those that generation would get. So the text is encoded in parts where a
        token would reach over a border of that answer, as when the last line break of the prompt and the first of the
        answer are one token, and where the prompt alone is encoded otherwise.
        """
        start = spans[-1][0]
        ids, offsets = self._encode(text)
        borders = {border for border in spans[-1] if _is_torn(offsets, border)}
        # GPT-2's pattern, \s+(?!\S), ends white space one character early where a word follows.
        looks_ahead = start > 1 and text[start - 2 : start].isspace()
        if looks_ahead and self._encode(text[:start])[0] != ids[: _token_spans(offsets, spans)[-1][0]]:
            borders.add(start)
        if borders:
            ids, offsets = [], []
            for begin, end in itertools.pairwise(sorted({0, *borders, len(text)})):
                part, places = self._encode(text[begin:end], follows=begin > 0)
                ids += part
                offsets += [(begin + first, begin + last) for first, last in places]
        with_bos = self.pairs.with_bos(ids)
        shift = len(with_bos) - len(ids)
        return with_bos, [(first + shift, last + shift) for first, last in _token_spans(offsets, spans)]

    def _encode(self, text: str, follows: bool = False) -> tuple[Ids, Spans]:
        """Return the ids of a text and the (start, end) of each in it, in characters.

        Args:
            follows: whether the text stands behind another, so that no space may be put before it.
        """
        if not self.tokenizer.is_fast:
            raise DataError(
                f"{type(self.tokenizer).__name__} cannot tell where in a conversation its tokens stand\n"
                "give a model with a tokenizer.json, or turn the conversations into pairs of input and output"
            )
        anchor = self.pairs.anchor if follows else ""
        encoding = self.tokenizer(anchor + text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        anchor_tokens = len(self.pairs.ids([anchor])[0])
        offsets, furthest = [], 0
        for start, end in encoding["offset_mapping"][anchor_tokens:]:
            # GPT-2's tokenizer leaves the space at the start of a token out of its place.
            offsets.append((min(start - len(anchor), furthest), end - len(anchor)))
            furthest = max(furthest, end - len(anchor))
        return encoding["input_ids"][anchor_tokens:], offsets

    def _ended(self, ids: Ids, spans: Spans, limit: int) -> tuple[Ids, Spans]:
        """Return a conversation up to the last answer that has room for a token and EOS; what follows teaches nothing.

        EOS follows the mark of that answer, or takes the place of the last token within the limit.
        """
        eos = self.tokenizer.eos_token_id
        spans = [(start, min(end, limit)) for start, end in spans if start < min(end, limit - 1)]
        if not spans:
            return [], []
        start, end = spans[-1]
        if ids[end - 1] != eos:
            end = min(end + 1, limit)
        return [*ids[: end - 1], eos], [*spans[:-1], (start, end)]

    def _row(self, ids: Ids, spans: Spans, counts: tuple[int, ...] = (0, 0, 0, 0), dropped: str | None = None) -> dict:
        """Return the token columns of a row; `spans` are its answers, `counts` the values of TEXT_COUNTS."""
        labels = numpy.full(len(ids), IGNORE_INDEX, dtype="int32")
        ids = numpy.array(ids, dtype="int32")
        for start, end in [(0, len(ids))] if self.train_on_source else spans:
            labels[start:end] = ids[start:end]
        row = {
            "input_ids": ids,
            "labels": labels,
            "length": len(ids),
            "supervised": len(ids) if self.train_on_source else _size(spans),
            "prompt_length": spans[-1][0] if spans else 0,
            "prompt_ids": [],
            **dict.fromkeys(CONVERSATION_COUNTS, 0),
        }
        return row | dict(zip(TEXT_COUNTS, counts, strict=True)) | {"dropped": dropped}


def _size(spans: Spans) -> int:
    return sum(end - start for start, end in spans)


def _is_torn(offsets: Spans, border: int) -> bool:
    """Return whether a token stands on both sides of a border between characters."""
    token = bisect.bisect_left(offsets, border, key=lambda place: place[1])
    return token < len(offsets) and offsets[token][0] < border < offsets[token][1]


def _token_spans(offsets: Spans, spans: Spans) -> Spans:
    """Return (first, past the last) token of each span of characters; a token that reaches into one belongs to it."""
    token_spans, token = [], 0
    for start, end in spans:
        while token < len(offsets) and offsets[token][1] <= start:
            token += 1
        first = token
        while token < len(offsets) and offsets[token][0] < end:
            token += 1
        token_spans.append((first, token))
    return token_spans


def _tokenizer_state(tokenizer: "PreTrainedTokenizerBase") -> tuple:
    """Return what decides how text becomes ids; truncation and padding are settings of a call, not of the tokenizer."""
    if tokenizer.is_fast:
        state = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    else:
        state = sorted(tokenizer.get_vocab().items())
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    return type(tokenizer).__name__, key_of(state), special, tokenizer.chat_template
