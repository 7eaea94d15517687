"""Logits behind many prompts that begin alike: what they have in common is run once and its key-value cache kept.

    logits = next_logits(model, prompts, columns)    # (prompts, columns)

The rest of several prompts then goes through the model in one sequence, a tree: those that begin alike share these
tokens too. A mask lets each see the common prefix and its own branch, positions count along the branch, and the output
head is applied to its last token alone. Whether a model keeps the prompts apart is checked on the longest before
anything is scored.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from accelerate.utils import send_to_device
from transformers import DynamicCache, PretrainedConfig, PreTrainedModel

from common.forward import EXACT, on_one_device, relative_difference, rounding_limit, takes
from eval.mmlu.prompts import Prompt, common_length

# Tokens of several prompts in one pass at most. More of them use the weights better, and compute more attention scores
# between prompts, which the mask then hides. Measured by scripts/benchmark_mmlu.py --packed_tokens.
PACKED_TOKENS = 768


class PrefixCache:
    """Keys and values of the tokens that prompts begin with; what one prefix has in common with the next is kept."""

    def __init__(self, model: PreTrainedModel):
        self.model = model
        # Without the config no layer drops what lies behind its window: the cache must go back to the prefix.
        self.cache = DynamicCache()
        self.ids: list[int] = []

    def go_to(self, ids: list[int]) -> None:
        """Hold `ids`, of which only those that are new are run."""
        common = common_length([self.ids, ids])
        self.cut(len(self.ids) - common)
        if ids[common:]:
            run(self.model, ids[common:], [len(ids) - common - 1], past_key_values=self.cache)
        self.ids = ids

    def cut(self, tokens: int) -> None:
        """Forget the last tokens."""
        if tokens:
            self.cache.crop(-tokens)

    def logits_behind(self, rests: list[list[int]]) -> torch.Tensor:
        """Return the logits behind each of `rests`, all of which go on from the prefix; (rests, vocabulary)."""
        tree = pack(rests)
        inputs = packed_inputs(self.model.config.get_text_config(), len(self.ids), tree)
        logits = run(self.model, tree.ids, tree.ends, past_key_values=self.cache, **inputs)
        self.cut(len(tree.ids))
        return logits


def next_logits(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    columns: Sequence[int],
    max_tokens: int = PACKED_TOKENS,
    progress: bool = False,
    together: bool = False,
    say: Callable[[str], None] = print,
) -> torch.Tensor:
    """Return the logits of the tokens `columns` behind each prompt, (prompts, columns), float32 on the CPU.

    Args:
        max_tokens: tokens of several prompts in one forward pass at most. A pass over a prefix, or over one prompt that
            is longer, may have more.
        progress: whether to show a progress bar.
        together: whether other processes compute a part of each pass: then all must go the same way, and a full memory
            ends them. Else prompts whose cache finds no room are run by themselves.
        say: is told why prompts are run by themselves, where they are.
    """
    from tqdm import tqdm

    logits = torch.empty(len(prompts), len(columns))
    with tqdm(total=len(prompts), desc="MMLU", unit="question", leave=False, disable=not progress) as bar:
        for indices, behind in logits_that_fit(model, prompts, max_tokens, together, say):
            logits[indices] = behind[:, columns].float().cpu()
            bar.update(len(indices))
    return logits


def logits_that_fit(
    model: PreTrainedModel, prompts: Sequence[Prompt], max_tokens: int, together: bool, say: Callable[[str], None]
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield as `shared_logits`, and as `each_alone` for the prompts that cannot go over a shared cache."""
    left = set(range(len(prompts)))
    cache = PrefixCache(model)
    try:
        why_not = cannot_share(cache, prompts)
        if why_not is None:
            for indices, logits in shared_logits(cache, prompts, max_tokens):
                left.difference_update(indices)
                yield indices, logits
    except torch.OutOfMemoryError:
        if together:
            raise
        why_not = "there is too little memory for a cache that they share"
    if left:
        del cache  # its memory is needed
        say(f"note: MMLU runs each prompt by itself, which is slower: {why_not}.")
        yield from each_alone(model, prompts, sorted(left))


def each_alone(
    model: PreTrainedModel, prompts: Sequence[Prompt], chosen: Sequence[int] | None = None
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield as `shared_logits`, with one whole pass for each prompt, or for each index that is chosen."""
    for index in range(len(prompts)) if chosen is None else chosen:
        ids = prompts[index].ids
        yield [index], run(model, ids, [len(ids) - 1])


def shared_logits(
    cache: PrefixCache, prompts: Sequence[Prompt], max_tokens: int
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield indices of prompts and the logits behind them, (prompts, vocabulary), group by group."""
    for members in group(prompts, cache.ids):
        members = sorted(members, key=lambda index: prompts[index].ids)  # those that begin alike meet
        rows = [prompts[index].ids for index in members]
        shared = shared_length(rows)
        cache.go_to(rows[0][:shared])
        rests = [row[shared:] for row in rows]
        for chosen in chunks(rests, max_tokens):
            yield [members[index] for index in chosen], cache.logits_behind([rests[index] for index in chosen])


def shared_length(rows: Sequence[list[int]]) -> int:
    """Return how many first ids rows share, when each keeps a last one for itself."""
    return min(common_length(rows), min(map(len, rows)) - 1)


def group(prompts: Sequence[Prompt], cached: Sequence[int] = ()) -> list[list[int]]:
    """Return the indices of prompts by the examples that they begin with.

    First come those that begin most like `cached`, the tokens of a cache; of those that begin alike, the longest.
    """
    groups: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(prompt.examples, []).append(index)
    in_order = [groups[examples] for examples in sorted(groups, reverse=True)]
    return sorted(in_order, key=lambda members: -common_length([list(cached), prompts[members[0]].ids]))


def chunks(rests: Sequence[list[int]], max_tokens: int) -> Iterator[list[int]]:
    """Yield the indices of rests, in order, with at most `max_tokens` when packed; a longer one comes by itself."""
    chunk: list[int] = []
    tokens = 0
    for index, rest in enumerate(rests):
        new = len(rest) - (common_length([rests[chunk[-1]], rest]) if chunk else 0)
        if chunk and tokens + new > max_tokens:
            yield chunk
            chunk, tokens, new = [], 0, len(rest)
        chunk.append(index)
        tokens += new
    yield chunk


class Tree(NamedTuple):
    """Token sequences in one, in which what a sequence has in common with the one before it stands once.

    Attributes:
        ids: the tokens.
        depths: how many tokens of its sequence each stands behind.
        seen: whether a token (row) sees another (column): itself and those before it in its sequence; (ids, ids).
        ends: where the last token of each sequence stands.
    """

    ids: list[int]
    depths: list[int]
    seen: torch.Tensor
    ends: list[int]


def pack(sequences: Sequence[list[int]]) -> Tree:
    """Lay sequences, none of them empty, into a tree."""
    ids: list[int] = []
    depths: list[int] = []
    paths: list[list[int]] = []  # where the tokens of each sequence stand
    for before, sequence in zip([[], *sequences], sequences, strict=False):
        common = common_length([before, sequence])
        own = range(len(ids), len(ids) + len(sequence) - common)
        paths.append([*(paths[-1][:common] if paths else []), *own])
        ids += sequence[common:]
        depths += range(common, len(sequence))
    seen = torch.zeros(len(ids), len(ids), dtype=torch.bool)
    for path in map(torch.tensor, paths):
        seen[path[:, None], path] = torch.ones(len(path), len(path), dtype=torch.bool).tril()
    return Tree(ids, depths, seen, [path[-1] for path in paths])


def packed_inputs(config: PretrainedConfig, shared: int, tree: Tree) -> dict[str, Any]:
    """Return mask and positions of a tree whose sequences all stand behind the same `shared` tokens.

    Returns:
        attention_mask, (1, 1, new, shared + new), or one for each kind of layer where a model has several kinds;
        position_ids, (1, new).
    """
    position = shared + torch.tensor(tree.depths)
    full = torch.cat([torch.ones(len(tree.ids), shared, dtype=torch.bool), tree.seen], dim=1)
    distance = position[:, None] - torch.cat([torch.arange(shared), position])
    window = getattr(config, "sliding_window", None)
    near = full if window is None else full & (distance < window)
    as_taken = additive if config._attn_implementation == "eager" else torch.clone  # sdpa takes booleans
    kinds = getattr(config, "layer_types", None)
    if kinds and "sliding_attention" in kinds:
        mask = {"full_attention": as_taken(full)[None, None], "sliding_attention": as_taken(near)[None, None]}
    else:
        mask = as_taken(full if kinds else near)[None, None]
    return {"attention_mask": mask, "position_ids": position[None]}


def additive(seen: torch.Tensor) -> torch.Tensor:
    """Return a mask to be added to attention scores; a finite number, which no precision turns into one that is not."""
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float16).min)


def run(model: PreTrainedModel, ids: list[int], last: list[int], **inputs: Any) -> torch.Tensor:
    """Run one forward pass over one sequence; gives the logits at the positions `last`, (positions, vocabulary)."""
    device = model.get_input_embeddings().weight.device
    inputs = send_to_device(inputs, device)
    if takes(model, "use_cache"):
        inputs["use_cache"] = "past_key_values" in inputs
    if takes(model, "logits_to_keep") and on_one_device(model):
        inputs["logits_to_keep"] = torch.tensor(last, device=device)
        last = list(range(len(last)))
    logits = model(input_ids=torch.tensor([ids], device=device), **inputs).logits
    return logits[0, last]


def cannot_share(cache: PrefixCache, prompts: Sequence[Prompt]) -> str | None:
    """Return why prompts cannot go over one prefix with the model of this cache, or None where they can.

    Tried on the longest prompts that share a prefix: a window of attention shows in them if in any. The cache holds
    that prefix afterwards.
    """
    model = cache.model
    groups = [members for members in group(prompts) if len(members) > 1]
    if not groups:
        return None
    missing = [name for name in ("past_key_values", "attention_mask", "position_ids") if not takes(model, name)]
    if missing:
        return f"this architecture takes no {missing[0]}"
    attention = getattr(model.config, "_attn_implementation", None)
    if attention not in ("sdpa", "eager", None):
        return f"its attention ({attention}) takes no mask of one's own"
    members = max(groups, key=lambda members: max(len(prompts[index].ids) for index in members))
    neighbour, *rows = sorted((prompts[index].ids for index in members), key=len, reverse=True)
    # A prompt that its neighbour begins with sees the same tokens whether the two are kept apart or not.
    row = next((row for row in rows if row != neighbour[: len(row)]), rows[0])
    try:
        differences = differences_when_shared(cache, shared_length([neighbour, *rows]), neighbour, row)
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, NotImplementedError) as error:
        return f"its cache cannot be shared ({type(error).__name__}: {error})"
    limits = (rounding_limit(model), EXACT)
    for which, difference, limit in zip(("by itself", "beside other tokens"), differences, limits, strict=True):
        if not difference <= limit:  # as when it is not a number
            return (
                f"over a shared cache the logits of a prompt are {difference:.1%} off those {which}; rounding explains "
                f"{limit:.1%}"
            )
    return None


def differences_when_shared(
    cache: PrefixCache, shared: int, neighbour: list[int], row: list[int]
) -> tuple[float, float]:
    """Return how far the logits behind `row`, packed behind `neighbour` over `shared` tokens, are from the right ones.

    Returns:
        The relative difference from its logits by itself; and from its logits beside another neighbour. The latter is
        almost zero at every precision, as all shapes are the same.
    """
    rests = [neighbour[shared:], row[shared:]]
    cache.go_to(row[:shared])
    packed = cache.logits_behind(rests)[-1]
    changed = with_other_tokens(*rests, cache.model.get_input_embeddings().num_embeddings)
    beside_others = cache.logits_behind([changed, rests[-1]])[-1]
    alone = run(cache.model, row, [len(row) - 1])[-1]
    return relative_difference(packed, alone), relative_difference(packed, beside_others)


def with_other_tokens(ids: list[int], beside: list[int], vocabulary: int) -> list[int]:
    """Return `ids` with other tokens but for those that it shares with `beside`: the tree of both keeps its shape."""
    common = common_length([ids, beside])
    would_join = ids[common : common + 1] and beside[common : common + 1] == [(ids[common] + 1) % vocabulary]
    step = 2 if would_join else 1
    return ids[:common] + [(token + step) % vocabulary for token in ids[common:]]
