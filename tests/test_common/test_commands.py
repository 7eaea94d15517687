"""How commands end: the exit status, and one message on stderr."""

import pytest

from common.commands import exit_status
from common.errors import DataError, FailedRunError, RequestError, failing_as


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (RequestError("--bits 5"), 2, "tool: error: --bits 5"),
        (DataError("a.jsonl, line 3"), 2, "tool: error: a.jsonl, line 3"),
        (FailedRunError("no memory"), 1, "tool: failed: no memory"),
        (OSError(28, "No space left"), 1, "tool: failed: [Errno 28] No space left"),
        (KeyboardInterrupt(), 130, "tool: interrupted; the same command goes on"),
    ],
)
def test_an_error_is_one_message_and_a_status(capsys, error, status, message):
    assert exit_status("tool", raising(error), interrupted="the same command goes on") == status
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [message] and printed.out == ""


def test_what_work_gives_is_the_status():
    assert exit_status("tool", lambda: None) == 0
    assert exit_status("tool", lambda: 143) == 143


def test_a_bug_of_ours_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        exit_status("tool", lambda: 1 // 0)


def test_an_error_in_the_place_of_another_keeps_its_text():
    with pytest.raises(DataError, match="the file: .*too long") as raised, failing_as(DataError, "the file", OSError):
        raise OSError("too long")
    assert isinstance(raised.value.__cause__, OSError)
    with pytest.raises(KeyError), failing_as(DataError, "the file", OSError):
        raise KeyError("another kind")
