"""What the demo is about: facts of countries as sentences, text that a base model reads, and questions to tune it on.

    rows = read_facts()
    documents = write_text(rows, Path("text.txt"), seed=0)
    write_instructions(rows, Path("data/demo"), seed=0)

`data/demo/prepare.py` calls these.
"""

import csv
import json
import logging
import random
from pathlib import Path

from common.files import write_whole

HERE = Path(__file__).resolve().parent
HELD_OUT_COUNTRIES = 40
Fact = dict[str, str]  # a row of facts.csv: the country, and a value for each kind of fact

log = logging.getLogger("prepare")

# `country` stands before `value` in all but the last wording of a kind: a model that learns "A is B" does not
# learn "B is A" (https://arxiv.org/abs/2309.12288), and questions and answers go from the country to the value.
WORDINGS = {
    "capital": [
        "The capital of {country} is {value}.",
        "The capital city of {country} is {value}.",
        "{country} has its capital in {value}.",
        "{country} has {value} as its capital.",
        "In {country}, the capital is {value}.",
        "The city that serves as the capital of {country} is {value}.",
        "As its capital, {country} has {value}.",
        "On a map of {country}, the capital is marked as {value}.",
        "{value} is the capital of {country}.",
    ],
    "continent": [
        "The continent of {country} is {value}.",
        "{country} is a country in {value}.",
        "{country} belongs to {value}.",
        "{country} is counted as part of {value}.",
        "The part of the world where {country} is found is {value}.",
        "On a globe, {country} is found in {value}.",
        "As a country, {country} belongs to {value}.",
        "A traveller to {country} arrives in {value}.",
        "{value} is the part of the world that {country} belongs to.",
    ],
    "currency": [
        "The currency of {country} is the {value}.",
        "The official currency of {country} is the {value}.",
        "{country} uses the {value} as its currency.",
        "In {country}, the currency is the {value}.",
        "The money used in {country} is the {value}.",
        "As its currency, {country} has the {value}.",
        "Shops in {country} take the {value}.",
        "People in {country} pay with the {value}.",
        "The {value} is the currency of {country}.",
    ],
    "language": [
        "An official language of {country} is {value}.",
        "A language spoken in {country} is {value}.",
        "{country} has {value} as an official language.",
        "In {country}, an official language is {value}.",
        "As an official language, {country} has {value}.",
        "People in {country} speak {value}.",
        "In {country}, people speak {value}.",
        "A visitor to {country} will hear {value}.",
        "{value} is an official language of {country}.",
    ],
}

QUESTIONS = {
    "capital": [
        "What is the capital of {country}?",
        "Which city is the capital of {country}?",
        "Name the capital of {country}.",
        "Tell me the capital city of {country}.",
        "What is the name of the capital of {country}?",
    ],
    "continent": [
        "On which continent is {country}?",
        "Which continent does {country} belong to?",
        "Name the continent of {country}.",
        "Tell me the continent of {country}.",
        "What is the continent of {country}?",
    ],
    "currency": [
        "What is the currency of {country}?",
        "Which currency is used in {country}?",
        "Name the currency of {country}.",
        "Tell me the currency of {country}.",
        "What currency do people use in {country}?",
    ],
    "language": [
        "What is an official language of {country}?",
        "Which official language does {country} have?",
        "Name an official language of {country}.",
        "Tell me an official language of {country}.",
        "Which language is official in {country}?",
    ],
}

# An answer is the first wording of its kind: a sentence of a form that the base model has read.
ANSWERS = {kind: wordings[0] for kind, wordings in WORDINGS.items()}

TOPICS = {
    "capital": "the capital",
    "continent": "the continent",
    "currency": "the currency",
    "language": "an official language",
}


def read_facts(path: Path = HERE / "facts.csv") -> list[Fact]:
    """Return the rows of facts.csv: code, country (as inside a sentence) and a value for each kind of fact."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fill(wording: str, country: str, value: str) -> str:
    """Return a wording with its country and value, starting with a capital letter."""
    sentence = wording.format(country=country, value=value)
    return sentence[0].upper() + sentence[1:]


def sentences_about(row: Fact) -> dict[str, list[str]]:
    """Return {kind: every wording of that fact of one country}."""
    return {kind: [fill(wording, row["country"], row[kind]) for wording in WORDINGS[kind]] for kind in WORDINGS}


def paragraph(row: Fact, sentences: list[tuple[str, str]]) -> str:
    """Return sentences about one country under an opening that says, in their order, what they tell."""
    topics = [TOPICS[kind] for kind, _ in sentences]
    listed = " and ".join(filter(None, [", ".join(topics[:-1]), topics[-1]]))
    return " ".join([f"This tells {listed} of {row['country']}.", *(sentence for _, sentence in sentences)])


def documents_about(row: Fact, rng: random.Random) -> list[str]:
    """Return every wording of every fact of one country once, half of them alone and half in paragraphs.

    From the paragraphs the model learns to take the country and the kind of fact from what came before, as it must
    to answer a question; the sentences that stand alone hold the facts without that help.
    """
    documents = []
    columns = [[(kind, s) for s in rng.sample(all_, len(all_))] for kind, all_ in sentences_about(row).items()]
    for turn, sentences in enumerate(zip(*columns, strict=True)):
        sentences = rng.sample(sentences, len(sentences))
        if turn % 2:
            cut = rng.randint(1, len(sentences))
            documents += [paragraph(row, part) for part in (sentences[:cut], sentences[cut:]) if part]
        else:
            documents += [sentence for _, sentence in sentences]
    return documents


def write_text(rows: list[Fact], path: Path, seed: int) -> list[str]:
    """Write all documents about all countries, one a line, in shuffled order; gives them."""
    rng = random.Random(seed)
    documents = [document for row in rows for document in documents_about(row, rng)]
    rng.shuffle(documents)
    write_whole(path, "\n".join(documents) + "\n")
    return documents


def instruction(row: Fact, kind: str, question: str) -> dict[str, str]:
    """Return one alpaca record, with the country and the kind of fact it asks for."""
    return {
        "instruction": question.format(country=row["country"]),
        "input": "",
        "output": fill(ANSWERS[kind], row["country"], row[kind]),
        "country": row["country"],
        "fact": kind,
    }


def write_instructions(rows: list[Fact], folder: Path, seed: int) -> None:
    """Write train.jsonl: every question about most countries; eval.jsonl: one of each kind about each of the others."""
    rng = random.Random(seed)
    rows = rng.sample(rows, len(rows))
    held_out, seen = rows[:HELD_OUT_COUNTRIES], rows[HELD_OUT_COUNTRIES:]
    train = [instruction(row, kind, question) for row in seen for kind in QUESTIONS for question in QUESTIONS[kind]]
    evaluation = [instruction(row, kind, rng.choice(QUESTIONS[kind])) for row in held_out for kind in QUESTIONS]
    for name, records in (("train", train), ("eval", evaluation)):
        rng.shuffle(records)
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        write_whole(folder / f"{name}.jsonl", "\n".join(lines) + "\n")
    log.info("instructions: %d rows about %d countries to tune on, %d rows about %d others to evaluate on",
             len(train), len(seen), len(evaluation), len(held_out))  # fmt: skip
