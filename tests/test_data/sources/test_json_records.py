"""JSON lists and lines give what Python's parser makes of them, and mistakes where it finds them."""

import io
import itertools
import json
import random

import pytest

from common.errors import DataError
from data.sources.json_records import read_json

ROW = {"instruction": "Say one.", "output": "one"}


def random_value(rng: random.Random, depth: int = 0):
    kind = rng.randrange(9 if depth < 3 else 7)
    if kind == 7:
        return [random_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 8:
        return random_object(rng, depth + 1)
    text = "".join(rng.choices('ab "\\/\n\té🙂\u2028[]{},:0', k=rng.randrange(12)))
    number = rng.choice([0, -1, 10**30, rng.random(), -1.5e300, 2e-9, float("inf")])
    return [text, text, text, number, number, None, rng.random() < 0.5][kind]


def random_object(rng: random.Random, depth: int = 0) -> dict:
    return {f"{n}{random_value(rng, 3)}": random_value(rng, depth + 1) for n in range(rng.randrange(5))}


def random_document(rng: random.Random) -> tuple[str, list[tuple[int, dict]]]:
    """Return the text of a list of objects, spaced and broken at will, and what it holds with the lines."""
    text, expected = rng.choice(["[", "\n [", "\r\n\n["]), []
    for number in range(rng.randrange(6)):
        space = [rng.choice(["", " ", "\n", "\n\n  ", "\r\n", "\t"]) for _ in range(3)]
        text += (space[0] + "," + space[1]) * (number > 0) + space[2]
        record = random_object(rng)
        expected.append((text.count("\n") + 1, record))
        text += json.dumps(record, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, None, 0, 2]))
    return text + rng.choice(["]", "\n]\n", " \n\n ] \n"]), expected


def read(text: str) -> list:
    return list(read_json("a.json", io.StringIO(text), by_line=False))


def test_lists_give_their_objects_with_their_lines():
    for seed in range(300):
        rng = random.Random(seed)
        text, expected = random_document(rng)
        assert json.loads(text) == [record for _, record in expected]
        assert read(text) == expected, seed


def break_document(rng: random.Random) -> tuple[str, json.JSONDecodeError]:
    """Return a document with a mistake after its first bracket, and what Python's parser says of it."""
    while True:
        text, _ = random_document(rng)
        at = rng.randrange(text.index("[") + 1, len(text))
        put = rng.choice(["", "", "'", '"', ",", "]", "}", "\\", "\n", "1.", "tru"])
        broken = text[:at] + put + text[at + 1 :] if rng.random() < 0.7 else text[:at]
        try:
            json.loads(broken)
        except json.JSONDecodeError as error:
            return broken, error


def test_mistakes_are_found_at_the_line_and_column_where_pythons_parser_finds_them():
    located = 0
    for seed in range(300):
        rng = random.Random(seed)
        broken, error = break_document(rng)
        with pytest.raises(DataError) as refused:
            read(broken)
        # A value that is no object may stand before the mistake.
        if "is not an object" not in str(refused.value):
            located += 1
            where = f"a.json, line {error.lineno}, column {error.colno}: not valid JSON: "
            assert str(refused.value).startswith(where), seed
    assert located > 250


class Counted(io.StringIO):
    """Text that knows how far it was read."""

    furthest = 0

    def readline(self, size=-1):
        return self._seen(super().readline(size))

    def __next__(self):
        return self._seen(super().__next__())

    def _seen(self, text):
        self.furthest = max(self.furthest, self.tell())
        return text


def test_lines_are_read_no_further_than_their_records_are_taken():
    text = Counted("\n".join(json.dumps({**ROW, "id": n}) for n in range(10_000)))
    records = read_json("a.jsonl", text, by_line=True)
    assert [record["id"] for _, record in itertools.islice(records, 20)] == list(range(20))
    assert text.furthest < 5_000
    assert sum(1 for _ in records) == 9_980
