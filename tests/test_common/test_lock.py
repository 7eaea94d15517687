"""One run at a time in a directory."""

import os
import subprocess
import sys

import pytest

from common.errors import RequestError
from common.lock import locked
from tests.support.paths import REPOSITORY

HOLD = """
import sys, pathlib, common.lock
with common.lock.locked(pathlib.Path(sys.argv[1]), "--output"):
    print("held", flush=True)
    input()
"""


def test_a_second_run_is_refused_until_the_first_has_ended(tmp_path):
    message = rf"--output .*another run \(process {os.getpid()}\)"
    with locked(tmp_path / "new", "--output"), pytest.raises(RequestError, match=message):
        locked(tmp_path / "new", "--output").__enter__()
    with locked(tmp_path / "new", "--output"):
        pass


def test_a_run_that_is_killed_leaves_no_lock(tmp_path):
    run = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    assert run.stdout.readline() == b"held\n"
    with pytest.raises(RequestError, match=str(run.pid)):
        locked(tmp_path, "--output").__enter__()
    run.kill()
    run.communicate()
    with locked(tmp_path, "--output"):
        pass


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="--output .* cannot be written"):
        locked(tmp_path / "file" / "x", "--output").__enter__()
