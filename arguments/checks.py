"""What transformers would refuse, ignore or fail at once the base model has loaded, refused while the flags are read.

    check_schedule("cosine_with_min_lr", {}, evaluated=False, metric="loss", best="min")   # ArgumentsError

None of it needs torch; what only torch can tell is tried out by `training.trial`. Every check raises `ArgumentsError`,
which names the flags, what was found and what is allowed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arguments.declare import ArgumentsError, require, require_choice, require_package
from arguments.settings import (
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
    as_written,
    check_settings,
    optimizer_settings,
    read_object,
)

# Modules, of which one must be installed, for each tracker of --report_to.
TRACKERS = {
    "none": (), "all": (), "azure_ml": ("azureml",), "clearml": ("clearml",), "codecarbon": ("codecarbon",),
    "comet_ml": ("comet_ml",), "dagshub": ("dagshub",), "dvclive": ("dvclive",), "flyte": ("flytekit",),
    "mlflow": ("mlflow",), "neptune": ("neptune",), "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",), "wandb": ("wandb",),
}  # fmt: skip
LOG_IN = "Log in with `hf auth login` or give --hub_token, or leave --push_to_hub out and upload the directory later."


def check_schedule(kind: str, settings: dict[str, Any], evaluated: bool, metric: str, best: str) -> None:
    """Check --lr_scheduler_type and --lr_scheduler_kwargs.

    Args:
        evaluated: whether there are evaluations during training.
        metric: what a schedule follows that reacts to them, and `best`, "min" or "max", where that is best.
    """
    flag = f"--lr_scheduler_type {kind}"
    follows = kind in FOLLOWING_SCHEDULES
    require(
        not follows or evaluated,
        f"{flag} with --eval_strategy no: it needs evaluations to react to. Add --eval_strategy steps.",
    )
    check_settings(f"--lr_scheduler_kwargs {as_written(settings)}", settings, SCHEDULES[kind], flag)
    mode = settings.get("mode", "min")
    require(
        not follows or mode == best,
        f"{flag} follows {metric} to its {mode}, and the best is its {best}: add "
        f"""--lr_scheduler_kwargs '{{"mode": "{best}"}}'.""",
    )
    needed = NEEDED_SETTINGS.get(kind, ())
    given = [name for name in needed if settings.get(name) is not None]
    require(
        not needed or len(given) == 1,
        f"{flag} needs {' or '.join(needed)}{', and not both' if given else ''}: add --lr_scheduler_kwargs "
        f"""'{{"{next(iter(needed), "")}": …}}'.""",
    )


def check_optimizer(
    name: str, settings: str | None, target_modules: str | None, full_finetune: bool, trains: bool
) -> None:
    """Check --optim, --optim_args and --optim_target_modules."""
    flag = f"--optim {name}"
    require(
        name not in UPDATING_IN_BACKWARD,
        f"{flag}: it changes weights while gradients are computed, so that those of several micro-batches are neither "
        "added up nor clipped, and a checkpoint holds no state to go on from. Use another optimizer.",
    )
    if settings is not None:
        check_settings(f"--optim_args {settings}", optimizer_settings(settings), OPTIMIZERS.get(name, {}), flag)
    if name in PROJECTING_OPTIMIZERS:
        require(
            full_finetune,
            f"{flag} without --full_finetune: it projects the gradients of whole matrices, and those of LoRA are small "
            "already. Add --full_finetune --bits 16, or use another optimizer.",
        )
        require(
            target_modules is not None,
            f"{flag} needs --optim_target_modules: all-linear, or a regular expression of whole layer names.",
        )
    if trains and name in OPTIMIZER_PACKAGES:
        require_package(flag, OPTIMIZER_PACKAGES[name])


def check_checkpointing(name: str, value: Any, other_name: str, other: Any) -> None:
    """Check two names of one flag, such as --gradient_checkpointing and --activation_checkpointing."""
    require(
        value is None or other is None or value == other,
        f"--{name} {as_written(value)} with --{other_name} {as_written(other)}: they are one setting; give one.",
    )


def check_checkpointing_settings(name: str, settings: dict[str, Any]) -> None:
    """Check the settings of flag `name`, one of the two spellings of --activation_checkpointing_kwargs."""
    flag = f"--{name} {as_written(settings)}"
    check_settings(flag, settings, CHECKPOINTING)
    unread = [key for key in NOT_REENTRANT if key in settings]
    require(
        not (unread and settings.get("use_reentrant")),
        f"{flag}: {', '.join(unread)} cannot be set with use_reentrant true; leave one out.",
    )


def check_accelerator(settings: dict[str, Any]) -> None:
    """Check --accelerator_config."""
    flag = f"--accelerator_config {as_written(settings)}"
    check_settings(flag, settings, ACCELERATOR)
    check_settings(flag, settings.get("gradient_accumulation_kwargs", {}), ACCUMULATION, "gradient_accumulation_kwargs")


def check_sharding(fsdp: str | bool | None, fsdp_settings: dict[str, Any], deepspeed: str | None, bits: int) -> None:
    """Refuse what spreads a model over processes where it would not be spread, or cannot be."""
    if fsdp:
        require(not deepspeed, "--fsdp with --deepspeed: choose one.")
        require(
            bits not in (4, 8),
            f"--fsdp with --bits {bits}: quantized weights are not sharded, every process holds all of them. Leave "
            "--fsdp out, or use --bits 16.",
        )
        settings = {name.removeprefix("fsdp_"): value for name, value in fsdp_settings.items()}
        check_settings(f"--fsdp_config {as_written(settings)}", settings, FSDP)
    if deepspeed is not None:
        flag = f"--deepspeed {deepspeed}"
        require_package(flag, "deepspeed")
        stage = (read_object(flag, deepspeed, may_be_file=True).get("zero_optimization") or {}).get("stage")
        require(
            stage != 3 or bits not in (4, 8),
            f"{flag}: ZeRO stage 3 with --bits {bits}: quantized weights cannot be sharded. Use stage 2, or --bits 16.",
        )


def check_trackers(trackers: Sequence[str]) -> None:
    """Check --report_to."""
    for tracker in trackers:
        require_choice("report_to", tracker, tuple(TRACKERS))
        if TRACKERS[tracker]:
            require_package(f"--report_to {tracker}", *TRACKERS[tracker])


def check_debug(words: str) -> None:
    """Check --debug."""
    for word in words.split():
        require_choice("debug", word, ("underflow_overflow", "tpu_metrics_debug"))
    if "tpu_metrics_debug" in words:
        require_package("--debug tpu_metrics_debug", "torch_xla")


def check_kernels(settings: dict[str, Any]) -> None:
    """Check --liger_kernel_config."""
    wrong = [name for name, value in settings.items() if not isinstance(value, bool)]
    require(not wrong, f"--liger_kernel_config {as_written(settings)}: {', '.join(wrong)} must be true or false.")


def repository_of(hub_model_id: str | None, output_dir: str) -> str:
    """Return the repository that the library pushes to: OWNER/NAME, or a name of one's own."""
    return hub_model_id or Path(output_dir).absolute().name


def check_push_request(hub_model_id: str | None, output_dir: str, strategy: str, token: str | None) -> None:
    """Refuse --push_to_hub where this machine cannot push: offline, no token, no name for a repository; asks nobody."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    require(
        strategy in ("end", "every_save"),
        f"--hub_strategy {strategy}: the library would upload checkpoints before they are whole. Use end or "
        "every_save, and `hf upload NAME DIR` for a checkpoint.",
    )
    require(not constants.HF_HUB_OFFLINE, "--push_to_hub with HF_HUB_OFFLINE=1: unset it, or leave --push_to_hub out.")
    name = repository_of(hub_model_id, output_dir)
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        flag = "--hub_model_id" if hub_model_id else "--push_to_hub, by the name of --output_dir,"
        raise ArgumentsError(f"{flag} {name}: {error} Give --hub_model_id OWNER/NAME.") from error
    require(bool(token or get_token()), f"--push_to_hub: there is no token of the hub. {LOG_IN}")
