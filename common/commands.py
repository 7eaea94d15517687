"""How every command ends: one message for what went wrong, and an exit status.

    sys.exit(exit_status("eval.elo", lambda: rate_files(options)))

Every entry point ends in this one call.
"""

import sys
from collections.abc import Callable

from common.errors import FailedRunError, RequestError


def exit_status(program: str, work: Callable[[], int | None], interrupted: str = "no file is half written") -> int:
    """Do the work of a command and return its exit status, after one message on stderr where it went wrong.

    Args:
        program: what the message begins with.
        work: gives a status, or None for 0.
        interrupted: what to say of the files after Ctrl-C.

    Returns:
        What `work` gave, or 0; 2 where the request was wrong, 1 where the work failed, 130 where it was interrupted.
    """
    try:
        return work() or 0
    except RequestError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    except (FailedRunError, OSError) as error:
        print(f"{program}: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: interrupted; {interrupted}", file=sys.stderr)
        return 130
