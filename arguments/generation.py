"""The flags of generation.

    GenerationArguments(do_sample=True, top_p=0.9).options()   # for transformers.GenerationConfig

Flags that have no effect beside others are not handed on.
"""

from dataclasses import dataclass, fields
from typing import Any

from arguments.declare import ABOVE_0, AT_LEAST_1, FINITE, NOT_BELOW_0, Rule, check_values, option, require

# Decoding methods that the pinned transformers dropped: the flag stays at its default, anything else is refused.
REMOVED = {
    "num_beam_groups": "diverse beam search",
    "diversity_penalty": "diverse beam search",
    "penalty_alpha": "contrastive search",
}
SAMPLING_OPTIONS = ("temperature", "top_k", "top_p", "typical_p")
PROBABILITY: Rule = ("more than 0 and at most 1", lambda x: 0 < x <= 1)


@dataclass(frozen=True)
class GenerationArguments:
    """How `--do_predict` writes text."""

    _argument_group_name = "generation"

    max_new_tokens: int = option(256, "Longest generated answer, in tokens.", rule=AT_LEAST_1)
    min_new_tokens: int | None = option(None, "Shortest generated answer, in tokens.", rule=NOT_BELOW_0)
    do_sample: bool = option(False, "Sample instead of taking the likeliest token.")
    num_beams: int = option(1, "Beams; 1 = no beam search.", rule=AT_LEAST_1)
    num_beam_groups: int = option(1, "Only 1: the pinned transformers has no diverse beam search.")
    penalty_alpha: float | None = option(None, "Only unset: the pinned transformers has no contrastive search.")
    use_cache: bool = option(True, "Keep keys and values of past tokens while generating.")
    temperature: float = option(1.0, "Sampling temperature.", rule=ABOVE_0)
    top_k: int = option(50, "Sample among this many likeliest tokens; 0 = all.", rule=NOT_BELOW_0)
    top_p: float = option(1.0, "Sample among the likeliest tokens that make up this probability.", rule=PROBABILITY)
    typical_p: float = option(1.0, "Sample among tokens of typical probability, up to this mass.", rule=PROBABILITY)
    diversity_penalty: float = option(0.0, "Only 0: the pinned transformers has no diverse beam search.")
    repetition_penalty: float = option(1.0, "Penalty on tokens already written; 1 = none.", rule=ABOVE_0)
    length_penalty: float = option(1.0, "Beam score exponent for length; above 0 favours longer answers.", rule=FINITE)
    no_repeat_ngram_size: int = option(
        0, "Never write the same n-gram of this size twice; 0 = allowed.", rule=NOT_BELOW_0
    )

    def __post_init__(self):
        for flag in fields(self):
            value = getattr(self, flag.name)
            require(
                flag.name not in REMOVED or value == flag.default,
                f"--{flag.name} {value}: {REMOVED.get(flag.name)} was removed from transformers; only the default "
                f"({flag.default}) is left. Try --num_beams or --do_sample with --top_p.",
            )
        check_values(self)
        require(
            self.min_new_tokens is None or self.min_new_tokens <= self.max_new_tokens,
            f"--min_new_tokens {self.min_new_tokens} with --max_new_tokens {self.max_new_tokens}: "
            "the shortest answer is longer than the longest.",
        )

    def options(self) -> dict[str, Any]:
        """Return the settings that apply, as keyword arguments of `transformers.GenerationConfig`.

        Its strict validation refuses a sampling setting while sampling is off and a beam setting without beams, so
        those that have no effect are left out; `unused` names the ones that were set.
        """
        without_effect = {*REMOVED, *(() if self.do_sample else SAMPLING_OPTIONS)}
        without_effect |= set() if self.num_beams > 1 else {"length_penalty"}
        return {flag.name: getattr(self, flag.name) for flag in fields(self) if flag.name not in without_effect}

    def unused(self) -> list[str]:
        """Return the flags that were set away from their default but have no effect on this run."""
        used = self.options()
        others = [flag for flag in fields(self) if flag.name not in used]
        return [f"--{flag.name}" for flag in others if getattr(self, flag.name) != flag.default]
