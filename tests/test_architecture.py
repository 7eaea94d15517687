"""ARCHITECTURE.md is true: its picture is what the imports are held to, and what it names is there."""

import ast
import re

import pytest

from tests.support.paths import REPOSITORY
from tests.test_imports import ARROWS, MOST_FILES, MOST_LINES, MOST_LINES_OF_A_FUNCTION

PAGE = (REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`([\w./]+\.(?:py|sh|md))(?::(\w+))?`", PAGE)))


def below(room: str, arrows: list[tuple[str, str]]) -> set[str]:
    """Return what can be reached from a room."""
    near = {end for start, end in arrows if start == room}
    return near.union(*(below(end, arrows) for end in near))


def test_picture_has_the_arrows():
    picture = re.search(r"```mermaid\n(.*?)```", PAGE, re.S)[1]
    arrows = re.findall(r'^ *(\w+)(?:\[".*"\])? --> (\w+)$', picture, re.M)
    assert {room: below(room, arrows) for room in ARROWS} == ARROWS


@pytest.mark.parametrize("path, name", NAMED)
def test_named_is_there(path, name):
    files = list(REPOSITORY.glob(path.replace("NAME", "*")))
    assert files
    if name:
        body = ast.parse(files[0].read_text(encoding="utf-8")).body
        targets = [node.targets[0] for node in body if isinstance(node, ast.Assign)]
        defined = {getattr(node, "name", None) for node in body} | {getattr(target, "id", None) for target in targets}
        assert name in defined


def test_limits_are_named():
    folder, file, function = MOST_FILES, MOST_LINES, MOST_LINES_OF_A_FUNCTION
    assert f"A folder has at most {folder} files, a file {file} lines, a function {function}." in PAGE
