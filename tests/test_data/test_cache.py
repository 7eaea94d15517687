"""Keys of prepared rows, and where these are kept."""

import pytest

from data.cache import ENCODING, FORMATTING, HERE, code_digest, key_of
from data.formats import registry
from data.tokens import encoder


def test_a_key_follows_every_value():
    assert key_of(1, "a") == key_of(1, "a") != key_of(1, "b") != key_of("1", "b")


@pytest.mark.parametrize("names", [FORMATTING, ENCODING])
def test_no_change_of_a_file_meets_rows_of_the_old_code(tmp_path, names):
    files = [path for path in HERE.rglob("*.py") if path.relative_to(HERE).parts[0] in names]
    for path in files:
        copy = tmp_path / path.relative_to(HERE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    digests = [code_digest(names, tmp_path)]
    assert digests == [code_digest(names)]
    for path in files:
        copy = tmp_path / path.relative_to(HERE)
        copy.write_bytes(copy.read_bytes() + b"\n")
        digests.append(code_digest(names, tmp_path))
    assert len(set(digests)) == len(files) + 1 > len(names)


def test_what_decides_rows_and_tokens_is_in_these_packages():
    assert registry.__file__.startswith(str(HERE / "formats")) and encoder.__file__.startswith(str(HERE / "tokens"))
