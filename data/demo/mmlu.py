"""Make data/demo/mmlu.json: questions with four choices about the demo's facts, in the shape of the MMLU prompt files.

    python data/demo/mmlu.py                                  # writes data/demo/mmlu.json; a second
    python data/demo/mmlu.py --shots 0 --output /tmp/zero.json

The 40 countries that the demo's instructions leave out are asked about, and the examples before a question are about
others: one subject for each kind of fact, every letter right equally often.
"""

import argparse
import json
import random
import sys
from collections import Counter, defaultdict
from pathlib import Path

if not __package__:  # run by its path, which puts this folder on the import path and not the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common.commands import exit_status
from common.files import write_whole
from data.demo.text import QUESTIONS, Fact, read_facts
from data.mmlu.prompts import LETTERS, Question, format_line

HERE = Path(__file__).resolve().parent
SHOTS = 5
Facts = list[Fact]


def held_out_countries() -> set[str]:
    """Return the countries that the demo's instructions leave out."""
    lines = (HERE / "eval.jsonl").read_text(encoding="utf-8").splitlines()
    return {json.loads(line)["country"] for line in lines}


def wrong_values(row: dict[str, str], kind: str, rows: Facts) -> list[str]:
    """Return values of other countries that are surely wrong for this one.

    A country may have more official languages, or money that is taken there, than the table tells; a language or
    currency that one country on another continent has alone is none of them.
    """
    if kind not in ("currency", "language"):
        return sorted({other[kind] for other in rows} - {row[kind]})
    counts = Counter(other[kind] for other in rows)
    far = {other[kind] for other in rows if other["continent"] != row["continent"]}
    return sorted(value for value in far - {row[kind]} if counts[value] == 1)


def balanced_letters(number: int, rng: random.Random) -> list[str]:
    """Return each letter as often as the others, in random order; what is left over is spread by chance."""
    letters = list(LETTERS) * (number // len(LETTERS)) + rng.sample(LETTERS, number % len(LETTERS))
    return rng.sample(letters, number)


def ask(asked: Facts, kind: str, rows: Facts, rng: random.Random) -> list[Question]:
    """Return a question of this kind about each of `asked`."""
    questions = []
    for row, letter in zip(asked, balanced_letters(len(asked), rng), strict=True):
        choices = rng.sample(wrong_values(row, kind, rows), len(LETTERS) - 1)
        choices.insert(LETTERS.index(letter), row[kind])
        text = QUESTIONS[kind][0].format(country=row["country"])
        questions.append(Question(f"demo_{kind}", text, tuple(choices), letter))
    return questions


def make_lines(shots: int, seed: int) -> list[str]:
    """Return every line of the file: the subjects in the order of their names, the countries in that of the table."""
    rows, held_out, rng = read_facts(), held_out_countries(), random.Random(seed)
    by_half: dict[bool, Facts] = defaultdict(list)
    for row in rows:
        by_half[row["country"] in held_out].append(row)
    lines = []
    for kind in sorted(QUESTIONS):
        examples = ask(rng.sample(by_half[False], SHOTS), kind, rows, rng)[:shots]
        lines += [format_line(question, examples) for question in ask(by_half[True], kind, rows, rng)]
    return lines


def main(argv: list[str] | None = None) -> int:
    """Write the file; gives the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", default=HERE / "mmlu.json", help="(default: beside this)"
    )
    parser.add_argument(
        "--shots", type=int, choices=range(SHOTS + 1), default=SHOTS, help="examples before each question"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choices and their order")
    args = parser.parse_args(argv)
    return exit_status("mmlu.py", lambda: write_lines(args.output, args.shots, args.seed))


def write_lines(path: Path, shots: int, seed: int) -> None:
    """Write the file, and say what is in it."""
    lines = make_lines(shots, seed)
    write_whole(path, "".join(lines))
    print(f"{len(lines)} questions of {len(QUESTIONS)} subjects, {shots} examples before each: {path}")


if __name__ == "__main__":
    sys.exit(main())
