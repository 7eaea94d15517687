"""Which part may import which, without circles and in small files, by the source; and that public names are there."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import pytest

import qlora
from tests.support.paths import PARTS, REPOSITORY, read_sources

# part → parts of the repository that it may import, beside itself; only tests import qlora
ARROWS = {
    "common": set(),
    "arguments": {"common"},
    "training": {"arguments", "common"},
    "data": {"arguments", "common"},
    "eval": {"arguments", "common", "data"},
}
ARROWS["scripts"] = ARROWS["qlora"] = set(ARROWS)
MOST_FILES, MOST_LINES, MOST_LINES_OF_A_FUNCTION = 11, 400, 60  # of a folder, a file, a function


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree, inside functions too, but leave out what only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield child
            yield from statements(child)


def imports(source: str, module: str) -> list[tuple[str, bool]]:
    """Return (dotted name, whether by `import name`) of everything that a module imports."""
    names = []
    for node in statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [(alias.name, True) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names += [(f"{base}.{alias.name}", False) for alias in node.names]
    return names


def wrong_imports(source: str, module: str) -> list[str]:
    part = module.partition(".")[0]
    allowed = ARROWS[part] | {part}
    wrong = []
    for name, plain in imports(source, module):
        top = name.partition(".")[0]
        if top in PARTS and top not in allowed:
            wrong.append(f"{part} imports {name}; it may import: {', '.join(sorted(allowed))}")
        if plain and top == "eval":  # it would bind `eval` and hide Python's own
            wrong.append(f"import {name}: write `from {name} import …`")
    return wrong


def circle(sources: dict[str, str], folders: bool = False) -> list[str]:
    """Return modules, or folders, of which each imports the next one and the last is the first; or none."""

    def node(module: str) -> str:
        return ".".join(module.split(".")[:2]) if folders else module

    graph: dict[str, set[str]] = {node(module): set() for module in sources}
    for module, source in sources.items():
        for name, _ in imports(source, module):
            while name and name not in sources:  # a name in a module, or in a library
                name = name.rpartition(".")[0]
            if name and not (folders and node(name) == node(module)):
                graph[node(module)].add(node(name))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1][::-1]
    return []


SOURCES = read_sources()
OURS = {module: source for module, source in SOURCES.items() if not module.startswith("tests.")}


@pytest.mark.parametrize("module", OURS)
def test_arrows_point_one_way(module):
    assert not wrong_imports(OURS[module], module)


def test_no_circles_between_files_or_folders():
    assert not circle(SOURCES)
    assert not circle(OURS, folders=True)


def test_folders_are_small():
    paths = [path for part in PARTS for path in (REPOSITORY / part).rglob("*.py") if path.name != "__init__.py"]
    files = Counter(str(path.parent.relative_to(REPOSITORY)) for path in paths)
    assert not {folder: count for folder, count in files.items() if count > MOST_FILES}


@pytest.mark.parametrize("module", OURS)
def test_file_and_its_functions_are_short(module):
    nodes = list(ast.walk(ast.parse(OURS[module])))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = [(node.name, node.end_lineno - node.lineno + 1) for node in functions]
    assert not [(name, lines) for name, lines in lengths if lines > MOST_LINES_OF_A_FUNCTION]
    assert len(OURS[module].splitlines()) <= MOST_LINES


def test_every_part_is_walked():
    assert {"qlora", "training.model.build", "data.loading", "data.demo.prepare", "eval.steps", "eval.elo"} <= set(OURS)
    assert {"tests.conftest", __name__} <= set(SOURCES)
    assert not (REPOSITORY / "qlora").exists(), "a qlora/ folder would shadow qlora.py"
    assert not (REPOSITORY / "tests" / "data").exists(), "tests/data/ would shadow data/"


@pytest.mark.parametrize(
    "module, source, said",
    [
        ("training.a", "def f():\n    from data.rows import IGNORE_INDEX", "training imports data.rows.IGNORE_INDEX;"),
        ("data.rows", "import training.model.build", "data imports training.model.build;"),
        ("eval.steps", "from training import plan", "eval imports training.plan;"),
        ("scripts.a", "import qlora", "scripts imports qlora;"),
        ("common.a.b", "from ...tests.support import paths", "common imports tests.support.paths;"),
        ("qlora", "import eval.mmlu.scoring", "import eval.mmlu.scoring: write"),
    ],
)
def test_a_wrong_arrow_is_seen(module, source, said):
    [wrong] = wrong_imports(source, module)
    assert wrong.startswith(said)


@pytest.mark.parametrize(
    "source",
    [
        "from data.batches.collator import IGNORE_INDEX",
        "from . import mmlu",
        "import json",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from training.plan import Plan",
    ],
)
def test_a_right_arrow_is_let_through(source):
    assert not wrong_imports(source, "eval.steps")


def test_a_circle_is_seen():
    """Inside a function, and relative to the folder, it is a circle all the same."""
    sources = {"a.x": "def f():\n    from a.y import g", "a.y": "import a.z as z", "a.z": "from . import x"}
    path = circle(sources)
    assert len(path) == 4 and set(zip(path, path[1:], strict=False)) == {("a.x", "a.y"), ("a.y", "a.z"), ("a.z", "a.x")}
    assert not circle(sources | {"a.z": "import json"})


@pytest.mark.parametrize("name", [*qlora.PUBLIC_NAMES, "train", "main"])
def test_public_name_resolves(name):
    assert getattr(qlora, name) is not None


def test_importing_qlora_loads_nothing_heavy():
    check = "import qlora, sys; print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=REPOSITORY)
    assert run.stdout == "[]\n", run.stdout + run.stderr
