"""Pushing to the hub: whether it takes what --push_to_hub is to send, asked before the base model loads, and the end.

In between, transformers' trainer pushes after each checkpoint, as --hub_strategy says.
"""

import os
from pathlib import Path
from typing import Any

from training.parsing import ArgumentsError, FailedRunError, RequestError, require

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


def hide_token(args: Any) -> None:
    """Move --hub_token to where huggingface_hub looks for one: the library writes, and pushes, a pickle of `args`."""
    if args.hub_token is not None:
        os.environ["HF_TOKEN"], args.hub_token = args.hub_token, None


def check_push_access(args: Any) -> None:
    """Make the repository, as the library would once the model is there; in the first process alone.

    Raises:
        RequestError: the hub cannot be reached, takes no such repository from this token, or has no such revision.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # of its HTTP client

    api = HfApi()
    try:
        name = api.create_repo(repository(args), private=args.hub_private_repo, exist_ok=True).repo_id
        if args.hub_revision is not None:
            api.repo_info(name, revision=args.hub_revision)
    except (HTTPError, OSError) as error:
        reason = " ".join(str(error).split())
        flags = "--push_to_hub" + (f" --hub_revision {args.hub_revision}" if args.hub_revision else "")
        where = f"{repository(args)} at {api.endpoint}"
        raise RequestError(f"{flags}: {where} cannot be pushed to: {reason.rstrip('.')}. {ADVICE}") from error


def push_output(args: Any, name: str) -> None:
    """Upload the output directory as it is when all is done, its card included, to the repository `name`.

    Left out are checkpoints, as the library does, and the rows in predictions: they are the user's data.

    Raises:
        FailedRunError: the hub did not take it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    options = {"revision": args.hub_revision, "commit_message": "End of training"}
    try:
        HfApi().upload_folder(
            repo_id=name, folder_path=args.output_dir, ignore_patterns=["_*", "checkpoint-*", "*.jsonl"], **options
        )
    except (HTTPError, OSError) as error:
        raise FailedRunError(
            f"{args.output_dir} was not pushed: {error}\nAll of it is there; `hf upload {name} {args.output_dir}` "
            "pushes it."
        ) from error
    print(f"pushed {args.output_dir} to {name} (without checkpoints and predictions)")
