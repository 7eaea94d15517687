"""Whether this machine can push to the hub as --push_to_hub asks, as far as that can be told without asking the hub."""

from pathlib import Path
from typing import Any

from arguments.declare import ArgumentsError, require

ADVICE = "Log in with `hf auth login` or give --hub_token, or leave --push_to_hub out and upload the directory later."


def repository(args: Any) -> str:
    """The repository that the library pushes to: OWNER/NAME, or a name of one's own."""
    return args.hub_model_id or Path(args.output_dir).absolute().name


def check_push_request(args: Any) -> None:
    """Refuse --push_to_hub where this machine cannot push; asks nobody.

    Raises:
        ArgumentsError: offline, no token, or no name for a repository.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    require(
        args.hub_strategy in ("end", "every_save"),
        f"--hub_strategy {args.hub_strategy}: the library would upload checkpoints before they are whole. Use end or "
        "every_save, and `hf upload NAME DIR` for a checkpoint.",
    )
    require(not constants.HF_HUB_OFFLINE, "--push_to_hub with HF_HUB_OFFLINE=1: unset it, or leave --push_to_hub out.")
    try:
        validate_repo_id(repository(args))
    except HFValidationError as error:
        flag = "--hub_model_id" if args.hub_model_id else "--push_to_hub, by the name of --output_dir,"
        raise ArgumentsError(f"{flag} {repository(args)}: {error} Give --hub_model_id OWNER/NAME.") from error
    require(bool(args.hub_token or get_token()), f"--push_to_hub: there is no token of the hub. {ADVICE}")
