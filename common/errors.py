"""The errors that are told to the user in one message, each with its exit status.

    raise RequestError("--bits 5: allowed are 4, 8, 16, 32.")   # exit status 2
    raise FailedRunError("the GPU has too little memory: …")    # exit status 1

`common.commands.exit_status` prints them. Any other exception is a bug of ours and ends in a traceback.
"""

import contextlib
from collections.abc import Iterator


class RequestError(ValueError):
    """What was asked for cannot be done as it was asked."""


class DataError(RequestError):
    """Data that the user has to correct: what was found and where, what is allowed, what to try next."""


class ModelError(RequestError):
    """A base model that cannot be loaded or tuned as asked."""


class CheckpointError(RequestError):
    """A checkpoint that cannot be gone on from as asked."""


class FailedRunError(RuntimeError):
    """The run could not be finished."""


class SavingError(FailedRunError):
    """What was saved, or was about to be, cannot be trusted."""


@contextlib.contextmanager
def failing_as(kind: type[Exception], message: str, *errors: type[Exception]) -> Iterator[None]:
    """Raise `kind` in the place of any of `errors`, with `message` and the error's own text behind it."""
    try:
        yield
    except errors as error:
        raise kind(f"{message}: {error}") from error
