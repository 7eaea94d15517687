"""Make the MMLU prompt files that --do_mmlu_eval reads, byte for byte in the form that QLoRA's authors published.

    python data/mmlu/prepare.py --csv DIR                         # the official CSV files: DIR/dev, DIR/val, DIR/test
    python data/mmlu/prepare.py --csv DIR --tokenizer LLAMA_DIR   # without a network
    python data/mmlu/prepare.py --hub                             # the same questions from the Hugging Face hub
    python data/mmlu/prepare.py --csv DIR --shots zero            # needs no tokenizer

A five-shot prompt shows the first questions of its subject's dev split with their answers: five, or as many as keep it
within --max_tokens tokens of a LLaMA tokenizer, BOS included, as QLoRA's authors cut theirs.
"""

import argparse
import hashlib
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:  # run by its path, which puts this folder on the import path and not the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common.commands import exit_status
from common.errors import DataError
from common.files import write_whole
from data.mmlu.prompts import Question, format_line, format_prompt
from data.mmlu.sources import EXAMPLES, Split, first_line, read_folder, read_hub

HERE = Path(__file__).resolve().parent
# What `git hash-object FILE` prints for the files of the official questions and LLaMA's tokenizer.
PUBLISHED = {  # blobs of data/mmlu in the repository of QLoRA's authors, https://github.com/artidoro/qlora
    "five_shot_mmlu_test.json": "b9d2aa54399b4cc92e291cf186c4d705b73f5881",
}
OWN = {  # output of this tool: no published sum of these files is known
    "zero_shot_mmlu_val.json": "4386b591b6845c56da262a5cb764f44a4f2cb764",
    "zero_shot_mmlu_test.json": "e5bef34d931b3f21acd9603403a66ba044843329",
    "five_shot_mmlu_val.json": "076f58d24e7b416f6aa6756e815cbbab8aa29b05",
}
SUBJECTS = 57  # of the official data
SPLITS = ("val", "test")
SHOTS = ("zero", "five")
LLAMA = "huggyllama/llama-7b"
BATCH = 64  # prompts
BOS = 1  # token, which the authors' collator puts before every prompt


class Made(NamedTuple):
    """One file's content, and for five-shot the (examples, tokens) of each of its prompts."""

    name: str
    content: bytes
    questions: int
    fits: list[tuple[int, int]]


def load_tokenizer(name: str) -> Any:
    """Load tokenizer.json from a folder, or from the hub, as a `tokenizers.Tokenizer`.

    Raises:
        DataError: there is none.
    """
    from tokenizers import Tokenizer

    path = _tokenizer_file(name)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no other class for a file that it cannot read
        raise DataError(f"--tokenizer {name}: {path} is no tokenizer ({error}); copy or download it again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _tokenizer_file(name: str) -> Path:
    advice = (
        "five-shot prompts are measured in LLaMA tokens: give --tokenizer DIR, a folder with the tokenizer.json of "
        "LLaMA or Llama 2, or make the others alone with --shots zero"
    )
    if Path(name).exists():
        path = Path(name) / "tokenizer.json"
        if not path.is_file():
            raise DataError(f"--tokenizer {name}: no tokenizer.json there; {advice}")
        return path
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "tokenizer.json"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"--tokenizer {name}: neither a folder here nor to be had from the hub ({first_line(error)}); {advice}"
        ) from error


def fit_examples(
    questions: list[Question], examples: list[Question], tokenizer: Any, max_tokens: int
) -> list[tuple[int, int]]:
    """For each question of a subject, the most examples that fit, and the tokens of BOS and its prompt with them.

    Whole prompts are counted, since tokens of the parts need not add up. One that is too long alone is left so.
    """
    fits: dict[int, tuple[int, int]] = {}
    for shots in range(len(examples), -1, -1):
        waiting = [index for index in range(len(questions)) if index not in fits]
        prompts = [format_prompt(questions[index], examples[:shots]) for index in waiting]
        # Without special tokens, as some copies of LLaMA's tokenizer.json put BOS in front and some do not.
        encoded = tokenizer.encode_batch_fast(prompts, add_special_tokens=False)
        lengths = [BOS + len(tokens) for tokens in encoded]
        fits |= {
            index: (shots, length)
            for index, length in zip(waiting, lengths, strict=True)
            if length <= max_tokens or shots == 0
        }
    return [fits[index] for index in range(len(questions))]


def make_zero_shot(split: str, subjects: Split) -> Made:
    """Every question alone."""
    questions = [question for listed in subjects.values() for question in listed]
    content = "".join(format_line(question, []) for question in questions)
    return Made(f"zero_shot_mmlu_{split}.json", content.encode("ascii"), len(questions), [])


def make_five_shot(split: str, subjects: Split, dev: Split, tokenizer: Any, max_tokens: int) -> Made:
    """Every question after the first five dev questions of its subject, or as many as fit."""
    from tqdm import tqdm

    name = f"five_shot_mmlu_{split}.json"
    examples = {subject: listed[:EXAMPLES] for subject, listed in dev.items()}
    chunks = [
        (examples[subject], listed[first : first + BATCH])
        for subject, listed in subjects.items()
        for first in range(0, len(listed), BATCH)
    ]
    # In characters, since a question of law takes ten times as long as one of anatomy.
    sizes = [sum(len(format_prompt(question, shown)) for question in chunk) for shown, chunk in chunks]
    lines, fits = [], []
    with tqdm(total=sum(sizes), desc=name, unit=" characters", unit_scale=True) as progress:
        for (shown, chunk), size in zip(chunks, sizes, strict=True):
            fitting = fit_examples(chunk, shown, tokenizer, max_tokens)
            lines += [format_line(question, shown[:shots]) for question, (shots, _) in zip(chunk, fitting, strict=True)]
            fits += fitting
            progress.update(size)
    return Made(name, "".join(lines).encode("ascii"), len(fits), fits)


def make_all(splits: dict[str, Split], tokenizer: Any, shots: list[str], max_tokens: int) -> list[Made]:
    made = []
    if "zero" in shots:
        made += [make_zero_shot(split, splits[split]) for split in SPLITS]
    if "five" in shots:
        made += [make_five_shot(split, splits[split], splits["dev"], tokenizer, max_tokens) for split in SPLITS]
    return made


def report(made: list[Made], splits: dict[str, Split], folder: Path, max_tokens: int) -> str:
    """What was made, where, and what to do with it."""
    subjects = len(splits["dev"])
    lines = [f"{subjects} of {SUBJECTS} subjects, written to {folder}", ""]
    lines.append(f"{'file':<26}{'questions':>10}{'subjects':>10}{'bytes':>13}  git blob id")
    for file in made:
        sizes = f"{file.questions:>10,}{subjects:>10}{len(file.content):>13,}"
        lines.append(f"{file.name:<26}{sizes}  {blob_id(file.content)}")
    measured = [file for file in made if file.fits]
    if measured:
        counts = range(EXAMPLES, -1, -1)
        lines += ["", f"{'prompts by examples':<26}" + "".join(f"{count:>8}" for count in counts) + "  longest prompt"]
    for file in measured:
        by_shots, longest = Counter(shots for shots, _ in file.fits), max(tokens for _, tokens in file.fits)
        row = "".join(f"{by_shots[count]:>8,}" for count in counts)
        lines.append(f"{file.name:<26}{row}  {longest:,} of {max_tokens:,} tokens")
        too_long = sum(tokens > max_tokens for _, tokens in file.fits)
        if too_long:
            lines.append(f"  {too_long:,} prompts are longer than {max_tokens:,} tokens without any example")
    if subjects == SUBJECTS:
        lines += compare_to_known(made)
    dataset = "" if measured else " --mmlu_dataset mmlu-zs"
    copy = "" if folder.resolve() == HERE else f"copy them to {HERE}, then "
    lines += ["", f"Next: {copy}python qlora.py … --do_mmlu_eval --mmlu_split eval{dataset}"]
    return "\n".join(lines)


def blob_id(content: bytes) -> str:
    """Git's id of a file's content (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects).

    >>> blob_id(b"what is up, doc?")
    'bd9dbf5aae1a3862dd1526723246b20206e5fc37'
    """
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def compare_to_known(made: list[Made]) -> list[str]:
    """Say which files are the published ones, and which not those of the official questions and a LLaMA tokenizer."""
    published = [file.name for file in made if blob_id(file.content) == PUBLISHED.get(file.name)]
    other = [file.name for file in made if blob_id(file.content) != (PUBLISHED | OWN)[file.name]]
    lines = ["", f"{', '.join(published)}: the file that QLoRA's authors published"] if published else []
    if other:
        lines += [
            "",
            f"note: {', '.join(other)}: not the bytes that data/mmlu/README.md lists. The questions are not quite the "
            "official ones, or the tokenizer is not LLaMA's, or --max_tokens is another; scores on other prompts do "
            "not compare with published ones.",
        ]
    return lines


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"--output {folder}: cannot be made: {error.strerror}; give a folder that can be written"
        ) from error


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--csv", type=Path, metavar="DIR", help="folder that holds dev, val and test, of the official archive"
    )
    source.add_argument("--hub", action="store_true", help="take cais/mmlu from the Hugging Face hub")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", default=HERE, help="folder to write to (default: data/mmlu)"
    )
    parser.add_argument(
        "--tokenizer",
        metavar="DIR_OR_NAME",
        default=LLAMA,
        help=f"folder or hub name of a LLaMA tokenizer (default: {LLAMA})",
    )
    parser.add_argument(
        "--max_tokens",
        type=positive,
        default=2048,
        help="longest five-shot prompt, BOS included (default: 2048 tokens)",
    )
    parser.add_argument(
        "--shots", nargs="+", choices=SHOTS, default=SHOTS, help="which prompts to make (default: both)"
    )
    return parser.parse_args(argv)


def make_files(args: argparse.Namespace) -> None:
    """Read the questions, make the prompts, write them, and say what was made."""
    splits = read_hub() if args.hub else read_folder(args.csv)
    tokenizer = load_tokenizer(args.tokenizer) if "five" in args.shots else None
    make_folder(args.output)
    made = make_all(splits, tokenizer, args.shots, args.max_tokens)
    for file in made:
        write_whole(args.output / file.name, file.content)
    print(report(made, splits, args.output, args.max_tokens))


def main(argv: list[str] | None = None) -> int:
    """Make the prompt files; gives the exit status."""
    args = parse(argv)
    return exit_status("prepare.py", lambda: make_files(args))


if __name__ == "__main__":
    sys.exit(main())
