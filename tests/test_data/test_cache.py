"""Keys of prepared rows, and the code that they hold a digest of."""

import shutil
import subprocess
import sys

import pytest

from data.cache import PACKAGES, ROOT, code_digest, key_of
from tests.support.paths import PARTS


def test_a_key_follows_every_value():
    assert key_of(1, "a") == key_of(1, "a") != key_of(1, "b") != key_of("1", "b")


@pytest.fixture
def copied(tmp_path):
    """A copy of the code that prepares rows, and the digest that it has of itself."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))

    def digest() -> str:
        code = "from data.cache import code_digest; print(code_digest())"
        command = [sys.executable, "-B", "-c", code]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    return tmp_path, digest


# Of both, tokens depend on `exchange` and `REASONING`, which stand outside of data/tokens.
@pytest.mark.parametrize("file", ["data/rows.py", "data/formats/conversations.py", "common/labels.py", "new"])
def test_no_change_of_a_file_meets_rows_of_the_old_code(copied, file):
    root, digest = copied
    assert digest() == code_digest()
    path = root / file if file != "new" else root / "data" / "sources" / "new.py"
    path.write_bytes((path.read_bytes() if path.exists() else b"") + b"\n")
    assert digest() != code_digest()


def test_what_prepares_rows_imports_nothing_that_the_digest_leaves_out():
    code = "import sys, data.rows, data.tokens.store; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(loaded.split()) & set(PARTS) == set(PACKAGES)
