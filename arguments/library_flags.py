"""Checks of the flags that come from transformers, and need no torch: the settings inside them, and what they go with.

The library looks at many of them only when it uses them, long after the base model has loaded. What only torch can
tell is tried out by `training.trial`.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from arguments.declare import ArgumentsError, require, require_choice, require_package
from arguments.pushing import check_push_request
from arguments.replaced import GROUPING_STRATEGIES, TRACKERS
from arguments.setting_rules import (
    ACCELERATOR,
    ACCUMULATION,
    CHECKPOINTING,
    FOLLOWING_SCHEDULES,
    FSDP,
    NEEDED_SETTINGS,
    NOT_REENTRANT,
    OPTIMIZER_PACKAGES,
    OPTIMIZERS,
    PROJECTING_OPTIMIZERS,
    SCHEDULES,
    UPDATING_IN_BACKWARD,
    Rule,
)

JSON_FLAGS = ("lr_scheduler_kwargs", "activation_checkpointing_kwargs", "gradient_checkpointing_kwargs")
JSON_OR_FILE_FLAGS = ("accelerator_config", "fsdp_config", "liger_kernel_config")
TRUE_WORDS, FALSE_WORDS = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")
# Words that stand for another value, of flags that take words beside truth values.
WORDS: dict[str, dict[str, Any]] = {
    "include_num_input_tokens_seen": dict.fromkeys(TRUE_WORDS, "all") | dict.fromkeys(FALSE_WORDS, "no"),
    "trackio_static_space_id": dict.fromkeys(FALSE_WORDS, False),
    "fsdp": dict.fromkeys(TRUE_WORDS, True) | dict.fromkeys(FALSE_WORDS, None),
}


def launched(args: Any = None) -> bool:
    """Whether a launcher such as torchrun started this process."""
    return "LOCAL_RANK" in os.environ


def trackers_of(args: Any) -> list[str]:
    """The trackers of --report_to, which the library makes a list of."""
    return [args.report_to] if isinstance(args.report_to, str) else args.report_to


def reports_to_trackio(args: Any) -> bool:
    return not {"trackio", "all"}.isdisjoint(trackers_of(args))


def is_evaluated(args: Any) -> bool:
    return args.eval_strategy != "no"


# Flags that ask for something which does not happen without another: what they need, and whether it is there.
NEEDS: tuple[tuple[tuple[str, ...], str, Callable[[Any], bool]], ...] = (
    (
        ("hub_model_id", "hub_token", "hub_strategy", "hub_always_push", "hub_revision"),
        "--push_to_hub",
        lambda args: args.push_to_hub,
    ),
    (
        ("hub_private_repo",),
        "--push_to_hub or --report_to trackio",
        lambda args: args.push_to_hub or reports_to_trackio(args),
    ),
    (
        ("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
        "--report_to trackio",
        reports_to_trackio,
    ),
    (
        (
            "dataloader_prefetch_factor", "dataloader_persistent_workers", "dataloader_multiprocessing_context",
            "dataloader_in_order",
        ),
        "--dataloader_num_workers 1 or more",
        lambda args: args.dataloader_num_workers > 0,
    ),
    (("metric_for_best_model",), "--eval_strategy steps or epoch", is_evaluated),
    (
        ("greater_is_better",),
        "--metric_for_best_model or --load_best_model_at_end",
        lambda args: args.metric_for_best_model is not None or args.load_best_model_at_end,
    ),
    (
        ("eval_on_start",),
        "--do_eval or --eval_strategy",
        lambda args: args.do_eval or is_evaluated(args) or not args.eval_on_start,
    ),
    (
        ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"),
        "--gradient_checkpointing",
        lambda args: False not in (args.activation_checkpointing, args.gradient_checkpointing),
    ),
    (("liger_kernel_config",), "--use_liger_kernel", lambda args: args.use_liger_kernel),
    (("fsdp_config",), "--fsdp", lambda args: args.fsdp),
    (("fsdp", "ddp_backend"), "a launcher, such as torchrun", launched),
    (
        ("optim_target_modules",),
        f"--optim {' or '.join(PROJECTING_OPTIMIZERS)}",
        lambda args: args.optim in PROJECTING_OPTIMIZERS,
    ),
)  # fmt: skip
# Flags that change how something is done which is not done here; the same command may well do it elsewhere.
UNUSED: tuple[tuple[tuple[str, ...], str, Callable[[Any], bool]], ...] = (
    (("eval_steps",), "--eval_strategy steps", lambda args: args.eval_strategy == "steps"),
    (("eval_delay",), "--eval_strategy", is_evaluated),
    (("save_steps",), "--save_strategy steps", lambda args: args.save_strategy == "steps"),
    (
        ("logging_steps",),
        "--logging_strategy steps",
        lambda args: "steps" in (args.logging_strategy, args.eval_strategy),
    ),
    (("run_name",), "a tracker (--report_to)", lambda args: bool(args.report_to)),
    (
        ("length_column_name",),
        f"--train_sampling_strategy {' or '.join(GROUPING_STRATEGIES)}",
        lambda args: args.train_sampling_strategy in GROUPING_STRATEGIES,
    ),
    (("torch_empty_cache_steps",), "a GPU", lambda args: not args.use_cpu),
    (
        (
            "average_tokens_across_devices", "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers",
            "ddp_static_graph", "ddp_timeout", "log_on_each_node", "log_level_replica", "save_on_each_node",
        ),
        "a launcher, such as torchrun",
        launched,
    ),
)  # fmt: skip


def more_is_better(args: Any) -> bool:
    """Whether more of --metric_for_best_model is better, as said or by its name."""
    if args.greater_is_better is not None:
        return args.greater_is_better
    return not (args.metric_for_best_model or "loss").endswith(("loss", "perplexity"))


def flags_set(args: Any, names: tuple[str, ...]) -> list[str]:
    """`--flag value` for each of `names` that is away from its default."""
    defaults = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(args)}
    values = {name: getattr(args, name) for name in names}
    changed = {name: shown(value) for name, value in values.items() if value != defaults[name]}
    return [f"--{name} {'…' if name.endswith('_token') else value}" for name, value in changed.items()]


def shown(value: Any) -> str:
    """A value as one would write it behind a flag."""
    if isinstance(value, dict):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(getattr(value, "value", value))


def unused_library_flags(args: Any) -> list[str]:
    """A note on each group of flags that have no effect on this run."""
    notes = [(flags_set(args, names), needed) for names, needed, is_there in UNUSED if not is_there(args)]
    return [f"{', '.join(flags)}: no effect without {needed}" for flags, needed in notes if flags]


# ---- Settings inside a flag ----------------------------------------------------------------------------------------


def read_settings(args: Any) -> None:
    """Turn each flag that holds JSON into a dict, and words that stand for another value into that.

    Raises:
        ArgumentsError: no JSON object, or a file that cannot be read or holds none.
    """
    for name, meanings in WORDS.items():
        value = getattr(args, name)
        setattr(args, name, meanings.get(str(value).lower(), value))
    for name in JSON_FLAGS + JSON_OR_FILE_FLAGS:
        value = getattr(args, name)
        if isinstance(value, str):
            setattr(args, name, read_object(f"--{name} {value}", value, name in JSON_OR_FILE_FLAGS))


def read_object(flag: str, text: str, may_be_file: bool) -> dict[str, Any]:
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
    """The settings with numbers and truth values that were written as text read as such, as the library does."""
    return {
        name: with_values(value) if isinstance(value, dict) else value_of(value) if isinstance(value, str) else value
        for name, value in settings.items()
    }


def value_of(text: str) -> Any:
    """The number or truth value that `text` says, or the text."""
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


def optimizer_settings(args: Any) -> dict[str, Any]:
    """--optim_args, `name=value,name=value`, as a dict."""
    settings = {}
    for part in args.optim_args.replace(" ", "").split(","):
        name, equals, value = part.partition("=")
        require(
            bool(name and equals and value) and "=" not in value,
            f"--optim_args {args.optim_args}: {part!r} is no name=value; write name=value,name=value.",
        )
        settings[name] = value_of(value)
    return settings


# ---- Checks --------------------------------------------------------------------------------------------------------


def check_library_flags(args: Any) -> None:
    """Refuse what the library would refuse, ignore or fail at once the base model has loaded.

    Raises:
        ArgumentsError: naming the flags, what was found and what is allowed.
    """
    check_precision(args)
    check_needs(args)
    check_schedule(args)
    check_optimizer_flags(args)
    check_checkpointing(args)
    check_accelerator(args)
    check_sharding(args)
    check_trackers(args)
    if args.push_to_hub and args.do_train:
        check_push_request(args)


def check_precision(args: Any) -> None:
    for kind in ("", "_full_eval"):
        fp16, bf16 = getattr(args, f"fp16{kind}"), getattr(args, f"bf16{kind}")
        require(not (fp16 and bf16), f"--fp16{kind} with --bf16{kind}: choose one (bf16 where the GPU has it).")


def check_needs(args: Any) -> None:
    for names, needed, is_there in NEEDS:
        flags = flags_set(args, names)
        require(not flags or is_there(args), f"{', '.join(flags)}: no effect without {needed}.")
    here = int(os.environ.get("LOCAL_RANK", "-1"))
    require(
        args.local_rank in (-1, here),
        f"--local_rank {args.local_rank}: the launcher says it in LOCAL_RANK ({here if here >= 0 else 'unset'}); "
        "start with torchrun, and leave the flag out.",
    )
    debug = [str(getattr(option, "value", option)) for option in args.debug or ()]
    if "tpu_metrics_debug" in debug:
        require_package("--debug tpu_metrics_debug", "torch_xla")


def check_schedule(args: Any) -> None:
    kind, settings = args.lr_scheduler_type, args.lr_scheduler_kwargs or {}
    flag = f"--lr_scheduler_type {kind}"
    require(
        kind not in FOLLOWING_SCHEDULES or is_evaluated(args),
        f"{flag} with --eval_strategy no: it needs evaluations to react to. Add --eval_strategy steps.",
    )
    check_settings(f"--lr_scheduler_kwargs {shown(settings)}", settings, SCHEDULES[kind], flag)
    if kind in FOLLOWING_SCHEDULES:
        metric, better = args.metric_for_best_model or "loss", "max" if more_is_better(args) else "min"
        require(
            settings.get("mode", "min") == better,
            f"{flag} follows {metric} to its {settings.get('mode', 'min')}, and the best is its {better}: add "
            f"""--lr_scheduler_kwargs '{{"mode": "{better}"}}'.""",
        )
    needed = NEEDED_SETTINGS.get(kind)
    if needed is not None:
        given = [name for name in needed if settings.get(name) is not None]
        require(
            len(given) == 1,
            f"{flag} needs {' or '.join(needed)}{', and not both' if given else ''}: add --lr_scheduler_kwargs "
            f"""'{{"{needed[0]}": …}}'.""",
        )


def check_optimizer_flags(args: Any) -> None:
    flag = f"--optim {args.optim}"
    require(
        args.optim not in UPDATING_IN_BACKWARD,
        f"{flag}: it changes weights while gradients are computed, so that those of several micro-batches are neither "
        "added up nor clipped, and a checkpoint holds no state to go on from. Use another optimizer.",
    )
    if args.optim_args is not None:
        rules = OPTIMIZERS.get(args.optim, {})
        check_settings(f"--optim_args {args.optim_args}", optimizer_settings(args), rules, flag)
    if args.optim in PROJECTING_OPTIMIZERS:
        require(
            args.full_finetune,
            f"{flag} without --full_finetune: it projects the gradients of whole matrices, and those of LoRA are small "
            "already. Add --full_finetune --bits 16, or use another optimizer.",
        )
        require(
            args.optim_target_modules is not None,
            f"{flag} needs --optim_target_modules: all-linear, or a regular expression of whole layer names.",
        )
    if args.do_train and args.optim in OPTIMIZER_PACKAGES:
        require_package(flag, OPTIMIZER_PACKAGES[args.optim])


def check_checkpointing(args: Any) -> None:
    for name in ("checkpointing", "checkpointing_kwargs"):
        first, second = getattr(args, f"gradient_{name}"), getattr(args, f"activation_{name}")
        require(
            first is None or second is None or first == second,
            f"--gradient_{name} {shown(first)} with --activation_{name} {shown(second)}: they are one setting; give "
            "one of them.",
        )
    for name in ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"):
        settings = getattr(args, name) or {}
        flag = f"--{name} {shown(settings)}"
        check_settings(flag, settings, CHECKPOINTING)
        unread = [key for key in NOT_REENTRANT if key in settings]
        require(
            not (unread and settings.get("use_reentrant")),
            f"{flag}: {', '.join(unread)} cannot be set with use_reentrant true; leave one out.",
        )


def check_accelerator(args: Any) -> None:
    settings = args.accelerator_config or {}
    flag = f"--accelerator_config {shown(settings)}"
    check_settings(flag, settings, ACCELERATOR)
    check_settings(flag, settings.get("gradient_accumulation_kwargs", {}), ACCUMULATION, "gradient_accumulation_kwargs")


def check_sharding(args: Any) -> None:
    """Refuse what spreads a model over processes where it would not be spread, or cannot be."""
    if args.fsdp:
        require(not args.deepspeed, "--fsdp with --deepspeed: choose one.")
        require(
            args.bits not in (4, 8),
            f"--fsdp with --bits {args.bits}: quantized weights are not sharded, every process holds all of them. "
            "Leave --fsdp out, or use --bits 16.",
        )
        settings = {name.removeprefix("fsdp_"): value for name, value in (args.fsdp_config or {}).items()}
        check_settings(f"--fsdp_config {shown(settings)}", settings, FSDP)
    if args.deepspeed is not None:
        flag = f"--deepspeed {args.deepspeed}"
        require_package(flag, "deepspeed")
        stage = (read_object(flag, args.deepspeed, may_be_file=True).get("zero_optimization") or {}).get("stage")
        require(
            stage != 3 or args.bits not in (4, 8),
            f"{flag}: ZeRO stage 3 with --bits {args.bits}: quantized weights cannot be sharded. Use stage 2, or "
            "--bits 16.",
        )


def check_trackers(args: Any) -> None:
    for tracker in trackers_of(args):
        require_choice("report_to", tracker, tuple(TRACKERS))
        if TRACKERS[tracker]:
            require_package(f"--report_to {tracker}", *TRACKERS[tracker])
    if args.use_liger_kernel:
        require_package("--use_liger_kernel", "liger_kernel")
    settings = args.liger_kernel_config or {}
    wrong = [name for name, value in settings.items() if not isinstance(value, bool)]
    require(not wrong, f"--liger_kernel_config {shown(settings)}: {', '.join(wrong)} must be true or false.")
    if not args.skip_memory_metrics:
        require_package("--skip_memory_metrics False", "psutil")
