"""Pushing to the hub: whether it takes what --push_to_hub is to send, asked before the base model loads, and the end.

In between, transformers' trainer pushes after each checkpoint, as --hub_strategy says.
"""

import os
from typing import Any

from arguments.pushing import ADVICE, repository
from common.errors import FailedRunError, RequestError


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
