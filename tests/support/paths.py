"""Where the repository and the files of the tests lie, and the source of every file."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FIXTURES = REPOSITORY / "tests" / "fixtures"
PARTS = ("qlora", "arguments", "common", "training", "data", "eval", "scripts", "tests")


def module_name(path: Path) -> str:
    """data/rows.py → data.rows; eval/elo/__init__.py → eval.elo"""
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def read_sources() -> dict[str, str]:
    """Return module → source of every file of the parts."""
    paths = [REPOSITORY / "qlora.py", *(path for part in PARTS for path in sorted((REPOSITORY / part).rglob("*.py")))]
    return {module_name(path): path.read_text(encoding="utf-8") for path in paths}
