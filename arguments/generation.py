"""The flags of generation."""

from dataclasses import dataclass, fields
from typing import Any

from arguments.declare import option, require, require_range
from arguments.replaced import GONE_DECODING, SAMPLING_OPTIONS


@dataclass
class GenerationArguments:
    """How `--do_predict` writes text."""

    _argument_group_name = "generation"

    max_new_tokens: int = option(256, "Longest generated answer, in tokens.")
    min_new_tokens: int | None = option(None, "Shortest generated answer, in tokens.")
    do_sample: bool = option(False, "Sample instead of taking the likeliest token.")
    num_beams: int = option(1, "Beams; 1 = no beam search.")
    num_beam_groups: int = option(1, "Only 1: the pinned transformers has no diverse beam search.")
    penalty_alpha: float | None = option(None, "Only unset: the pinned transformers has no contrastive search.")
    use_cache: bool = option(True, "Keep keys and values of past tokens while generating.")
    temperature: float = option(1.0, "Sampling temperature.")
    top_k: int = option(50, "Sample among this many likeliest tokens; 0 = all.")
    top_p: float = option(1.0, "Sample among the likeliest tokens that make up this probability.")
    typical_p: float = option(1.0, "Sample among tokens of typical probability, up to this mass.")
    diversity_penalty: float = option(0.0, "Only 0: the pinned transformers has no diverse beam search.")
    repetition_penalty: float = option(1.0, "Penalty on tokens already written; 1 = none.")
    length_penalty: float = option(1.0, "Beam score exponent for length; above 0 favours longer answers.")
    no_repeat_ngram_size: int = option(0, "Never write the same n-gram of this size twice; 0 = allowed.")

    def __post_init__(self):
        for name, method in GONE_DECODING.items():
            default = next(f.default for f in fields(self) if f.name == name)
            require(
                getattr(self, name) == default,
                f"--{name} {getattr(self, name)}: {method} was removed from transformers; only the default "
                f"({default}) is left. Try --num_beams or --do_sample with --top_p.",
            )
        require_range(self, "1 or more", lambda n: n >= 1, "max_new_tokens", "num_beams")
        require_range(self, "0 or more", lambda n: n >= 0, "min_new_tokens", "top_k", "no_repeat_ngram_size")
        require_range(self, "more than 0", lambda x: x > 0, "temperature", "repetition_penalty")
        require_range(self, "more than 0 and at most 1", lambda x: 0 < x <= 1, "top_p", "typical_p")
        require_range(self, "any", lambda x: True, "length_penalty")
        require(
            self.min_new_tokens is None or self.min_new_tokens <= self.max_new_tokens,
            f"--min_new_tokens {self.min_new_tokens} with --max_new_tokens {self.max_new_tokens}: "
            "the shortest answer is longer than the longest.",
        )

    def options(self) -> dict[str, Any]:
        """The settings that apply, as keyword arguments of `transformers.GenerationConfig`.

        Strict validation refuses a sampling setting while sampling is off and a beam setting without beams,
        so those that have no effect are left out; `unused` names the ones the user set.
        """
        dropped = set(GONE_DECODING) | (set() if self.do_sample else set(SAMPLING_OPTIONS))
        dropped |= set() if self.num_beams > 1 else {"length_penalty"}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in dropped}

    def unused(self) -> list[str]:
        """Flags that were set away from their default but have no effect on this run."""
        kept = self.options()
        return [f"--{f.name}" for f in fields(self) if f.name not in kept and getattr(self, f.name) != f.default]
