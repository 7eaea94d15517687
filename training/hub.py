"""Pushing to the hub: whether it takes what --push_to_hub is to send, asked before the base model loads, and the end.

    check_push_access(training)            # makes the repository
    push_output("output/mine", "me/mine", revision=None)

In between, transformers' trainer pushes after each checkpoint, as --hub_strategy says.
"""

import os

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError  # of its HTTP client

from arguments.checks import LOG_IN, repository_of
from arguments.training import TrainingArguments
from common.errors import FailedRunError, RequestError
from common.outputs import CHECKPOINT


def hide_token(token: str | None) -> None:
    """Put --hub_token where huggingface_hub looks for one: the trainer saves its arguments, and pushes them."""
    if token is not None:
        os.environ["HF_TOKEN"] = token


def check_push_access(training: TrainingArguments) -> None:
    """Make the repository, as the library would once the model is there; in the first process alone.

    Raises:
        RequestError: the hub cannot be reached, takes no such repository from this token, or has no such revision.
    """
    api, revision = HfApi(), training.hub_revision
    repository = repository_of(training.hub_model_id, training.output_dir)
    try:
        name = api.create_repo(repository, private=training.hub_private_repo, exist_ok=True).repo_id
        if revision is not None:
            api.repo_info(name, revision=revision)
    except (HTTPError, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        flags = "--push_to_hub" + (f" --hub_revision {revision}" if revision else "")
        raise RequestError(
            f"{flags}: {repository} at {api.endpoint} cannot be pushed to: {reason}. {LOG_IN}"
        ) from error


def push_output(output_dir: str, repository: str, revision: str | None) -> None:
    """Upload the output directory as it is when all is done, its card included.

    Left out are checkpoints, as the library does, and the rows in predictions: they are the user's data.

    Raises:
        FailedRunError: the hub did not take it.
    """
    try:
        HfApi().upload_folder(
            repo_id=repository,
            folder_path=output_dir,
            ignore_patterns=["_*", f"{CHECKPOINT}*", "*.jsonl"],
            revision=revision,
            commit_message="End of training",
        )
    except (HTTPError, OSError) as error:
        raise FailedRunError(
            f"{output_dir} was not pushed: {error}\nAll of it is there; `hf upload {repository} {output_dir}` "
            "pushes it."
        ) from error
    print(f"pushed {output_dir} to {repository} (without checkpoints and predictions)")
