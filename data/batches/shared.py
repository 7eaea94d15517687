"""Rows of a step in sequences without padding, what several rows begin with in each sequence once.

    step = SharedStepCollator(collator, max_tokens=1024)
    micro_batches = step(rows)

Rows of an instruction data set begin alike: with the header of a prompt, with a system prompt. The hidden states of
these tokens are the same in every row, and gradients add up, so that a sequence may hold them once: as a tree, whose
pieces are beginnings and, as leaves, the rests of rows. Every layer then computes each token once; only attention looks
at rows, by the `layout` that comes with a sequence: see `training.shortcuts.attention`.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from common.labels import IGNORE_INDEX, LAYOUT, PROMPT, ROWS
from data.batches.collator import DataCollatorForCausalLM
from data.batches.steps import check_lengths

# Tokens that a beginning must save, or it is repeated: attention runs once more for every piece that is shared.
WORTH_SHARING = 32
# Attention is computed together for rows that are at least this share of the longest: less of it is padding.
SIMILAR = 0.5


class Piece(NamedTuple):
    """A part of a row in a tree: of row number `row` its tokens `start` to `end`, behind those of `parent`.

    `row` is any of the rows that share the piece; a leaf is the rest of one row.
    """

    row: int
    start: int
    end: int
    parent: int | None
    leaf: bool


def common_length(one: Sequence[int], other: Sequence[int], most: int) -> int:
    """Return how many first tokens two rows have in common, and count no further than `most`."""
    most = min(most, len(one), len(other))
    return next((at for at in range(most) if one[at] != other[at]), most)


def grow(rows: Sequence[Sequence[int]], may_share: Sequence[int], worth: int = WORTH_SHARING) -> list[Piece]:
    """Return the tree of rows: a piece comes behind its parent, leaves that share a parent longest first.

    Args:
        rows: ids of each.
        may_share: how many first tokens of each row may be shared.
        worth: tokens that a shared piece must save.
    """
    pieces: list[Piece] = []
    groups = [(sorted(range(len(rows)), key=lambda row: -len(rows[row])), 0, None)]  # still to be planted
    while groups:
        members, depth, parent = groups.pop()
        first, alike = rows[members[0]], min(may_share[row] for row in members)
        if len(members) == 1:
            pieces.append(Piece(members[0], depth, len(first), parent, leaf=True))
            continue
        for row in members[1:]:
            alike = common_length(first, rows[row], alike)
        if (alike - depth) * (len(members) - 1) >= worth:
            pieces.append(Piece(members[0], depth, alike, parent, leaf=False))
            depth, parent = alike, len(pieces) - 1
        branches: dict[Any, list[int]] = {}  # by the token that comes next, where that may be shared
        for row in members:
            branches.setdefault(rows[row][alike] if alike < may_share[row] else ("alone", row), []).append(row)
        # The last one is planted next: the branch of most rows, of equal ones that of the longest row.
        groups += [(branch, depth, parent) for branch in sorted(reversed(branches.values()), key=len)]
    return pieces


def shareable(labels: Sequence[int]) -> int:
    """Return how many first tokens of a row may be shared: none that is learned, or that predicts one that is.

    A token that several rows share predicts one next token, and is learned once.
    """
    first = next((at for at, label in enumerate(labels) if label != IGNORE_INDEX), len(labels))
    return max(first - 1, 0)


def lay_out(rows: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], pieces: Sequence[Piece]) -> dict[str, Any]:
    """Return the pieces of rows behind one another, as a model and `training.shortcuts.attention` take them.

    Returns:
        input_ids, labels, position_ids: (1, tokens); a position is a token's place in its row. No first token of a row
            is learned: what stands before it is of another row.
        layout: see `plan_attention`.
        rows: (rows, longest), where the tokens of each row stand; −1 fills up.
    """
    ids: list[int] = []
    targets: list[int] = []
    paths: list[list[int]] = []  # of each piece, where the tokens stand that it sees: its ancestors' and its own
    for row, start, end, parent, leaf in pieces:
        before = paths[parent] if parent is not None else []
        paths.append([*before, *range(len(ids), len(ids) + end - start)])
        ids += rows[row][start:end]
        targets += labels[row][start:end] if leaf else [IGNORE_INDEX] * (end - start)
    positions = torch.cat([torch.arange(piece.start, piece.end) for piece in pieces])
    return {
        "input_ids": torch.tensor(ids)[None],
        "labels": torch.tensor(targets).masked_fill(positions == 0, IGNORE_INDEX)[None],
        "position_ids": positions[None],
        LAYOUT: plan_attention(pieces, paths),
        ROWS: _filled([path for piece, path in zip(pieces, paths, strict=True) if piece.leaf], -1),
    }


def plan_attention(pieces: Sequence[Piece], paths: Sequence[list[int]]) -> dict[str, Any]:
    """Return how attention goes over a sequence: which pieces are computed together, and what each of them sees.

    Args:
        paths: of each piece the places of the tokens that it sees, its own last.

    Returns:
        groups: of pieces, padded to the longest: `queries` (pieces, longest piece) and `keys` (pieces, longest path)
            are places of tokens, `positions` (pieces, longest piece) those of the queries in their rows; a query sees
            the keys up to its position.
        order: (tokens,), where in the outputs of all groups behind one another that of each token stands.
    """
    groups, outputs = [], 0
    order = torch.empty(sum(piece.end - piece.start for piece in pieces), dtype=torch.long)
    for members in similar(pieces):
        own = [paths[number][pieces[number].start :] for number in members]
        queries = _filled(own)
        starts, ends = (torch.tensor([[getattr(pieces[n], of)] for n in members]) for of in ("start", "end"))
        # What only fills up stands where the last token does, so that it sees something within any window.
        positions = torch.minimum(starts + torch.arange(queries.shape[1]), ends - 1)
        groups.append({"queries": queries, "keys": _filled([paths[n] for n in members]), "positions": positions})
        for row, places in enumerate(own):
            order[places] = outputs + row * queries.shape[1] + torch.arange(len(places))
        outputs += queries.numel()
    return {"groups": groups, "order": order}


def similar(pieces: Sequence[Piece]) -> list[list[int]]:
    """Return the numbers of pieces in groups of a similar length; each that is shared stays by itself."""
    groups: list[list[int]] = [[number] for number, piece in enumerate(pieces) if not piece.leaf]
    longest = 0
    for number in sorted((n for n, piece in enumerate(pieces) if piece.leaf), key=lambda n: -pieces[n].end):
        if pieces[number].end < SIMILAR * longest or not longest:
            longest = pieces[number].end
            groups.append([])
        groups[-1].append(number)
    return groups


def _filled(places: Sequence[Sequence[int]], value: int = 0) -> torch.Tensor:
    """Return lists of places as one tensor (lists, longest), filled up with a value."""
    return pad_sequence([torch.tensor(row) for row in places], batch_first=True, padding_value=value)


def choose(pieces: Sequence[Piece], max_tokens: int) -> list[list[Piece]]:
    """Return the pieces of each sequence, of those of a whole tree: few of about equally many tokens.

    Rows stand in the order of the tree, so that those that begin alike come together. The largest sequence comes first.

    Args:
        max_tokens: of a sequence, which every row fits into.
    """

    def with_ancestors(number: int | None) -> list[int]:
        return [*with_ancestors(pieces[number].parent), number] if number is not None else []

    paths = [with_ancestors(number) for number, piece in enumerate(pieces) if piece.leaf]
    few = len(fill(pieces, paths, max_tokens))
    limits = range(max((pieces[path[-1]].end for path in paths), default=0), max_tokens)
    # The smallest limit that leads to no more sequences makes them equal.
    at = bisect_left(limits, True, key=lambda limit: len(fill(pieces, paths, limit)) <= few)
    sequences = fill(pieces, paths, limits[at] if at < len(limits) else max_tokens)
    return sorted((restrict(pieces, sequence) for sequence in sequences), key=lambda chosen: -size_of(chosen))


def fill(pieces: Sequence[Piece], paths: Sequence[list[int]], limit: int) -> list[list[int]]:
    """Return the numbers of the pieces of each sequence, where rows are put into one up to `limit` tokens.

    Args:
        paths: of each row the numbers of its pieces.
    """
    sequences: list[dict[int, None]] = []
    tokens = 0
    for path in paths:
        more = size_of(pieces[number] for number in path if sequences and number not in sequences[-1])
        if not sequences or tokens + more > limit:
            sequences.append({})
            tokens, more = 0, size_of(pieces[number] for number in path)
        sequences[-1].update(dict.fromkeys(path))
        tokens += more
    return [list(numbers) for numbers in sequences]


def restrict(pieces: Sequence[Piece], numbers: Sequence[int]) -> list[Piece]:
    """Return some pieces of a tree as a tree: a piece that only one other still goes on from becomes one with it."""
    children = Counter(pieces[number].parent for number in numbers)
    tree: list[Piece] = []
    new_numbers: dict[int | None, int | None] = {None: None}
    starts: dict[int, int] = {}  # of a piece that became one with its child
    for number in numbers:
        row, start, end, parent, leaf = pieces[number]
        start = starts.get(parent, start)
        if not leaf and children[number] == 1:
            starts[number], new_numbers[number] = start, new_numbers[parent]
            continue
        tree.append(Piece(row, start, end, new_numbers[parent], leaf))
        new_numbers[number] = len(tree) - 1
    return tree


def size_of(pieces: Iterable[Piece]) -> int:
    """Return how many tokens pieces have."""
    return sum(piece.end - piece.start for piece in pieces)


@dataclass
class SharedStepCollator:
    """Collate the rows of an optimizer step (one process's share of it) into sequences without padding.

    Args:
        collator: encodes rows where they are not.
        max_tokens: of a sequence.
        share: hold what rows begin with alike once; else only padding is left out.
    """

    collator: DataCollatorForCausalLM
    max_tokens: int
    share: bool

    @property
    def strategy(self) -> str:
        """How rows are put together."""
        return "shared" if self.share else "unpadded"

    @property
    def most_tokens(self) -> int:
        """The most tokens of a sequence."""
        return self.max_tokens

    def check(self, lengths: Sequence[int], name: Callable[[int], str] = "row {} of a step".format) -> None:
        """Refuse rows that fit into no sequence; see `data.batches.steps.check_lengths`."""
        check_lengths(lengths, self.max_tokens, name)

    def plant(self, rows: Sequence[Mapping]) -> list[list[Piece]]:
        """Return the tree of each sequence that rows are put into. Raises DataError as `check` does."""
        ids, labels = ids_and_labels(rows)
        self.check([len(row) for row in ids])
        may_share = [shareable(row) if self.share else 0 for row in labels]
        return choose(grow(ids, may_share), self.max_tokens)

    def __call__(self, rows: Sequence[Mapping]) -> list[dict[str, Any]]:
        """Return the sequences of the rows of a step, each as `lay_out` gives it."""
        rows = self.collator.encoded(rows)
        ids, labels = ids_and_labels(rows)
        return [lay_out(ids, labels, pieces) for pieces in self.plant(rows)]


def ids_and_labels(rows: Sequence[Mapping]) -> tuple[list[list[int]], list[list[int]]]:
    """Return the ids and the labels of encoded rows."""
    return [list(row["input_ids"]) for row in rows], [list(row["labels"]) for row in rows]


@dataclass
class SharedBatchCollator:
    """Collate the rows of a batch of evaluation into one sequence, what they begin with alike once.

    Args:
        collator: encodes rows where they are not, and pads prompts where it makes some.
    """

    collator: DataCollatorForCausalLM

    def __call__(self, instances: Sequence[Mapping]) -> dict[str, Any]:
        """Return the sequence as `lay_out` gives it, its `rows` in the order of the batch and before all else.

        The library counts rows by the first tensor.
        """
        ids, labels = ids_and_labels(self.collator.encoded(instances))
        pieces = grow(ids, [shareable(row) for row in labels])
        sequence = lay_out(ids, labels, pieces)
        order = torch.tensor([piece.row for piece in pieces if piece.leaf]).argsort()
        prompts = self.collator(instances) if self.collator.predict_with_generate else {}
        prompts = {name: value for name, value in prompts.items() if name.startswith(PROMPT)}
        return {ROWS: sequence.pop(ROWS)[order]} | sequence | prompts
