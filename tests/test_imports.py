"""Which part may import which, by the source; and that every public name is where `qlora` says."""

import ast
import subprocess
import sys

import pytest

import qlora
from tests.paths import REPOSITORY

PARTS = {"qlora", "arguments", "common", "training", "data", "eval", "scripts", "tests"}
# part → parts of the repository that it may import, beside itself
ARROWS = {
    "qlora": {"arguments", "common", "training", "data", "eval"},
    "common": set(),
    "arguments": {"common"},
    "training": {"arguments", "common"},
    "data": {"arguments", "common"},
    "eval": {"arguments", "common", "data"},
    "scripts": {"arguments", "common", "training", "data", "eval"},
}
SOURCES = {
    str(path.relative_to(REPOSITORY)): part
    for part in ARROWS
    for path in ([REPOSITORY / "qlora.py"] if part == "qlora" else sorted((REPOSITORY / part).rglob("*.py")))
}


def imports(tree: ast.AST, package: str) -> list[tuple[str, bool]]:
    """(dotted name, whether by `import name`) of everything that is imported, inside functions too."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, True) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((package if node.level else node.module, False))
    return found


def wrong_imports(source: str, part: str) -> list[str]:
    allowed = ARROWS[part] | {part}
    wrong = []
    for name, plain in imports(ast.parse(source), part):
        top = name.partition(".")[0]
        if top in PARTS - allowed:
            wrong.append(f"{part} imports {name}; it may import: {', '.join(sorted(allowed))}")
        if plain and top == "eval":  # it would bind `eval` and hide Python's own
            wrong.append(f"import {name}: write `from {name} import …`")
    return wrong


@pytest.mark.parametrize("path", SOURCES)
def test_arrows_point_one_way(path):
    source = (REPOSITORY / path).read_text(encoding="utf-8")
    assert not wrong_imports(source, SOURCES[path])


def test_every_part_is_walked():
    assert {"qlora.py", "training/model/build.py", "data/loading.py", "data/demo/prepare.py", "eval/steps.py"} <= set(
        SOURCES
    )
    assert not (REPOSITORY / "qlora").exists(), "a qlora/ folder would shadow qlora.py"
    assert not (REPOSITORY / "tests" / "data").exists(), "tests/data/ would shadow data/"


@pytest.mark.parametrize(
    "part, source, said",
    [
        (
            "training",
            "def f():\n    from data.batches.collator import IGNORE_INDEX",
            "training imports data.batches.collator",
        ),
        ("data", "import training.model.build", "data imports training.model.build"),
        ("eval", "from training import arguments", "eval imports training;"),
        ("scripts", "import qlora", "scripts imports qlora;"),
        ("qlora", "import eval.mmlu.scoring", "import eval.mmlu.scoring: write"),
    ],
)
def test_a_wrong_arrow_is_seen(part, source, said):
    wrong = wrong_imports(source, part)
    assert len(wrong) == 1 and wrong[0].startswith(said)


@pytest.mark.parametrize(
    "source", ["from data.batches.collator import IGNORE_INDEX", "from . import mmlu", "import json"]
)
def test_a_right_arrow_is_let_through(source):
    assert not wrong_imports(source, "eval")


@pytest.mark.parametrize("name", [*qlora.PUBLIC_NAMES, "train", "main"])
def test_public_name_resolves(name):
    assert getattr(qlora, name) is not None


def test_importing_qlora_loads_nothing_heavy():
    check = "import qlora, sys; print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=REPOSITORY)
    assert run.stdout == "[]\n", run.stdout + run.stderr
