"""The settings inside a flag: how they are read, and what each may be (--lr_scheduler_kwargs, --optim_args, …).

    optimizer_settings("momentum=0.9")                                            # {"momentum": 0.9}
    check_settings("--optim_args momentum=x", {"momentum": "x"}, OPTIMIZERS["sgd"])  # ArgumentsError

The library hands them to functions of torch and accelerate, which name neither the flag nor what is allowed. A test
holds the tables equal to what those functions take.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from arguments.declare import ArgumentsError, Rule, require

Json = dict[str, Any] | str | None  # a flag that holds a JSON object: as it is written, or read


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def whole(least: int) -> Rule:
    """Return the rule of a whole number that is not below `least`."""
    return f"a whole number, {least} or more", lambda n: isinstance(n, int) and is_number(n) and n >= least


def one_of(*words: str) -> Rule:
    """Return the rule of one of some words."""
    return " or ".join(words), lambda word: word in words


TRUTH: Rule = ("true or false", lambda value: isinstance(value, bool))
NUMBER: Rule = ("a number", is_number)
POSITIVE: Rule = ("a number above 0", lambda x: is_number(x) and x > 0)
NOT_NEGATIVE: Rule = ("a number, 0 or more", lambda x: is_number(x) and x >= 0)
SHARE: Rule = ("a number from 0 to 1", lambda x: is_number(x) and 0 <= x <= 1)
PROPER_SHARE: Rule = ("a number between 0 and 1", lambda x: is_number(x) and 0 < x < 1)
FRACTION: Rule = ("a number from 0 to below 1", lambda x: is_number(x) and 0 <= x < 1)
WORD: Rule = ("a word", lambda value: isinstance(value, str))
ANYTHING: Rule = ("anything", lambda value: True)  # the library checks it before a model loads

# ---- --lr_scheduler_kwargs, for each --lr_scheduler_type -----------------------------------------------------------

COSINE_TO_MINIMUM = {"num_cycles": POSITIVE, "min_lr": NOT_NEGATIVE, "min_lr_rate": SHARE}
PLATEAU = {
    "mode": one_of("min", "max"), "factor": PROPER_SHARE, "patience": whole(0), "threshold": NOT_NEGATIVE,
    "threshold_mode": one_of("rel", "abs"), "cooldown": whole(0), "min_lr": NOT_NEGATIVE, "eps": NOT_NEGATIVE,
}  # fmt: skip
CURVE = one_of("linear", "cosine", "1-sqrt")
SCHEDULES: dict[str, dict[str, Rule]] = {
    "constant": {},
    "constant_with_warmup": {},
    "linear": {},
    "cosine": {"num_cycles": POSITIVE},
    "cosine_with_restarts": {"num_cycles": whole(1)},
    "cosine_with_min_lr": COSINE_TO_MINIMUM,
    "cosine_warmup_with_min_lr": {**COSINE_TO_MINIMUM, "warmup_lr_rate": SHARE},
    "polynomial": {"lr_end": NOT_NEGATIVE, "power": POSITIVE},
    "inverse_sqrt": {"timescale": whole(1)},
    "warmup_stable_decay": {
        "num_decay_steps": whole(0), "num_stable_steps": whole(0), "warmup_type": CURVE, "decay_type": CURVE,
        "min_lr_ratio": SHARE, "num_cycles": POSITIVE,
    },
    "reduce_lr_on_plateau": PLATEAU,
    "greedy": {
        **PLATEAU, "warmup": whole(0), "max_lr": POSITIVE, "verbose": TRUTH, "smooth": TRUTH, "window_size": whole(1),
        "reset_start": whole(1),
    },
}  # fmt: skip
# Settings of which a schedule needs exactly one.
NEEDED_SETTINGS = {
    "cosine_with_min_lr": ("min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("min_lr", "min_lr_rate"),
    "warmup_stable_decay": ("num_decay_steps",),
}
FOLLOWING_SCHEDULES = ("reduce_lr_on_plateau", "greedy")  # they follow what evaluations measure

# ---- --optim_args, and the package, for each --optim ---------------------------------------------------------------

# Those of transformers; a test holds them to it.
OPTIMIZER_NAMES = (
    "adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused", "adafactor",
    "adamw_anyprecision", "adamw_torch_4bit", "adamw_torch_8bit", "ademamix", "sgd", "adagrad", "adamw_bnb_8bit",
    "adamw_8bit", "ademamix_8bit", "lion_8bit", "lion_32bit", "paged_adamw_32bit", "paged_adamw_8bit",
    "paged_ademamix_32bit", "paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit", "rmsprop", "rmsprop_bnb",
    "rmsprop_bnb_8bit", "rmsprop_bnb_32bit", "galore_adamw", "galore_adamw_8bit", "galore_adafactor",
    "galore_adamw_layerwise", "galore_adamw_8bit_layerwise", "galore_adafactor_layerwise", "lomo", "adalomo",
    "grokadamw", "schedule_free_radam", "schedule_free_adamw", "schedule_free_sgd", "apollo_adamw",
    "apollo_adamw_layerwise", "stable_adamw",
)  # fmt: skip
ADEMAMIX = {
    "beta1": FRACTION, "beta2": FRACTION, "beta3": FRACTION, "alpha": NOT_NEGATIVE, "eps": NOT_NEGATIVE,
    "t_alpha": whole(1), "t_beta3": whole(1),
}  # fmt: skip
GALORE = {"rank": whole(1), "update_proj_gap": whole(1), "scale": NUMBER, "proj_type": WORD}
SCHEDULE_FREE = {"weight_lr_power": NUMBER, "r": NUMBER}
GROKADAMW = ("alpha_init", "lamb", "gamma", "grokking_signal_decay_rate", "gradient_clipping")
DTYPES = ("momentum_dtype", "variance_dtype", "compensation_buffer_dtype")
# Left out: weight_decay, which --weight_decay overrules, and what the library hands on as text where an optimizer
# wants numbers or takes "false" for true (rmsprop_bnb's, block_size, kahan_sum, decouple_lr).
OPTIMIZERS: dict[str, dict[str, Rule]] = {
    "sgd": {"momentum": NOT_NEGATIVE, "dampening": NUMBER, "nesterov": TRUTH},
    "adagrad": {"lr_decay": NOT_NEGATIVE, "eps": NOT_NEGATIVE},
    "rmsprop": {"momentum": NOT_NEGATIVE, "alpha": FRACTION, "eps": NOT_NEGATIVE, "centered": TRUTH},
    "adamw_anyprecision": {"use_kahan_summation": TRUTH, **dict.fromkeys(DTYPES, WORD)},
    "adamw_torch_4bit": {"bf16_stochastic_round": TRUTH},
    "adamw_torch_8bit": {"bf16_stochastic_round": TRUTH},
    "ademamix": ADEMAMIX,
    "ademamix_8bit": ADEMAMIX,
    "paged_ademamix_32bit": ADEMAMIX,
    "paged_ademamix_8bit": ADEMAMIX,
    "galore_adamw": GALORE,
    "galore_adamw_8bit": GALORE,
    "galore_adafactor": GALORE,
    "apollo_adamw": {**GALORE, "proj": WORD, "scale_type": WORD},
    "grokadamw": dict.fromkeys(GROKADAMW, NUMBER),
    "schedule_free_radam": SCHEDULE_FREE,
    "schedule_free_adamw": SCHEDULE_FREE,
    "schedule_free_sgd": SCHEDULE_FREE,
    "stable_adamw": {"max_lr": POSITIVE},
}
OPTIMIZER_PACKAGES = {
    "adamw_torch_xla": "torch_xla", "adamw_torch_npu_fused": "torch_npu", "adamw_anyprecision": "torchdistx",
    "adamw_torch_4bit": "torchao", "adamw_torch_8bit": "torchao", "galore_adamw": "galore_torch",
    "galore_adamw_8bit": "galore_torch", "galore_adafactor": "galore_torch", "apollo_adamw": "apollo_torch",
    "grokadamw": "grokadamw", "schedule_free_radam": "schedulefree", "schedule_free_adamw": "schedulefree",
    "schedule_free_sgd": "schedulefree", "stable_adamw": "optimi",
}  # fmt: skip
PROJECTING_OPTIMIZERS = ("galore_adamw", "galore_adamw_8bit", "galore_adafactor", "apollo_adamw")
# They change weights while gradients are still computed.
UPDATING_IN_BACKWARD = (
    "lomo", "adalomo", "galore_adamw_layerwise", "galore_adamw_8bit_layerwise", "galore_adafactor_layerwise",
    "apollo_adamw_layerwise",
)  # fmt: skip

# ---- The flags that hold JSON --------------------------------------------------------------------------------------

ACCUMULATION: dict[str, Rule] = {
    "num_steps": ("left to --gradient_accumulation_steps", lambda value: False),
    **dict.fromkeys(("adjust_scheduler", "sync_with_dataloader", "sync_each_batch"), TRUTH),
}
ACCELERATOR: dict[str, Rule] = {
    **dict.fromkeys(("split_batches", "even_batches", "use_seedable_sampler", "non_blocking"), TRUTH),
    "dispatch_batches": ("true, false or null", lambda value: value is None or isinstance(value, bool)),
    "gradient_accumulation_kwargs": ("an object", lambda value: isinstance(value, dict)),
    "use_configured_state": ("false: nothing is configured before this command", lambda value: value is False),
}
NOT_REENTRANT = ("determinism_check", "debug", "early_stop")  # torch reads them with "use_reentrant": false alone
CHECKPOINTING: dict[str, Rule] = {
    "every_n_layers": whole(1), "offload": TRUTH, "use_reentrant": TRUTH, "preserve_rng_state": TRUTH,
    "determinism_check": one_of("default", "none"), "debug": TRUTH, "early_stop": TRUTH,
}  # fmt: skip
FSDP: dict[str, Rule] = dict.fromkeys(
    (
        "version", "reshard_after_forward", "cpu_offload", "activation_checkpointing", "cpu_ram_efficient_loading",
        "state_dict_type", "auto_wrap_policy", "transformer_layer_cls_to_wrap", "min_num_params", "xla",
        "xla_fsdp_settings", "xla_fsdp_v2", "xla_fsdp_grad_ckpt", "forward_prefetch", "backward_prefetch",
        "use_orig_params", "sync_module_states", "limit_all_gathers",
    ),
    ANYTHING,
)  # fmt: skip

# ---- Reading -------------------------------------------------------------------------------------------------------

TRUE_WORDS, FALSE_WORDS = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")


def words(**meanings: Any) -> Callable[[str, Any], Any]:
    """Return what reads a flag that takes words beside truth values; `true` and `false` are what these stand for."""
    table = {
        word: meanings[truth]
        for truth, spellings in (("true", TRUE_WORDS), ("false", FALSE_WORDS))
        if truth in meanings
        for word in spellings
    }
    return lambda flag, value: table.get(str(value).lower(), value)


def json_object(flag: str, value: Any) -> Any:
    """Read the JSON object that a text is; what is none, or read already, stays as it is. Raises ArgumentsError."""
    return read_object(flag, value) if isinstance(value, str) else value


def json_or_file(flag: str, value: Any) -> Any:
    """Read as `json_object`, also from the file that a text names."""
    return read_object(flag, value, may_be_file=True) if isinstance(value, str) else value


def as_written(value: Any) -> str:
    """Return a value as one would write it behind a flag."""
    if isinstance(value, dict):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(getattr(value, "value", value))


def read_object(flag: str, text: str, may_be_file: bool = False) -> dict[str, Any]:
    """Return the object that a text, or the file that it names, holds; `flag` is what errors begin with."""
    example = """a JSON object, such as '{"key": 1}'""" + (", or a file that holds one" if may_be_file else "")
    if may_be_file and not text.lstrip().startswith("{"):
        try:
            text = Path(os.path.expanduser(text)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ArgumentsError(f"{flag}: cannot be read ({reason}); give {example}.") from error
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise ArgumentsError(f"{flag}: no JSON ({error}); give {example}.") from error
    require(isinstance(settings, dict), f"{flag}: give {example}.")
    return with_values(settings)


def with_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with numbers and truth values that were written as text read as such, as the library does."""
    return {
        name: with_values(value) if isinstance(value, dict) else value_of(value) if isinstance(value, str) else value
        for name, value in settings.items()
    }


def value_of(text: str) -> Any:
    """Return the number or truth value that `text` says, or the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def check_settings(flag: str, settings: Mapping[str, Any], rules: Mapping[str, Rule], whose: str = "") -> None:
    """Refuse a setting that is not in `rules`, or breaks its rule; `whose` are the rules, where not the flag's own."""
    for name, value in settings.items():
        require(name in rules, f"{flag}: {whose or 'it'} has no {name!r}; there is {', '.join(rules) or 'none'}.")
        words, test = rules[name]
        require(test(value), f"{flag}: {name} is {json.dumps(value)}, and must be {words}.")


def optimizer_settings(text: str) -> dict[str, Any]:
    """Return the value of --optim_args, `name=value,name=value`, as a dict."""
    settings = {}
    for part in text.replace(" ", "").split(","):
        name, equals, value = part.partition("=")
        require(
            bool(name and equals and value) and "=" not in value,
            f"--optim_args {text}: {part!r} is no name=value; write name=value,name=value.",
        )
        settings[name] = value_of(value)
    return settings
