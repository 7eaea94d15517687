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
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if not __package__:  # run by its path, which puts this folder on the import path and not the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common.commands import exit_status
from common.errors import DataError, failing_as
from common.files import check_writable, write_whole
from common.text import table
from data.mmlu.prompts import Question, format_line, format_prompt
from data.mmlu.sources import EXAMPLES, Split, first_line, read_folder, read_hub

if TYPE_CHECKING:
    from tokenizers import Tokenizer

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


class PromptFile(NamedTuple):
    """One file's content, and for five-shot the (examples, tokens) of each of its prompts."""

    name: str
    content: bytes
    questions: int
    fits: list[tuple[int, int]]


def load_tokenizer(name: str) -> "Tokenizer":
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
    questions: list[Question], examples: list[Question], tokenizer: "Tokenizer", max_tokens: int
) -> list[tuple[int, int]]:
    """Return, of each question of a subject, the most examples that fit, and the tokens of BOS and prompt with them.

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


def make_zero_shot(split: str, subjects: Split) -> PromptFile:
    """Return the file of every question alone."""
    questions = [question for listed in subjects.values() for question in listed]
    content = "".join(format_line(question, []) for question in questions)
    return PromptFile(f"zero_shot_mmlu_{split}.json", content.encode("ascii"), len(questions), [])


def make_five_shot(split: str, subjects: Split, dev: Split, tokenizer: "Tokenizer", max_tokens: int) -> PromptFile:
    """Return the file of every question after the first five dev questions of its subject, or as many as fit."""
    from tqdm import tqdm

    name = f"five_shot_mmlu_{split}.json"
    examples = {subject: listed[:EXAMPLES] for subject, listed in dev.items()}
    chunks = [
        (examples[subject], listed[start : start + BATCH])
        for subject, listed in subjects.items()
        for start in range(0, len(listed), BATCH)
    ]
    # In characters, since a question of law takes ten times as long as one of anatomy.
    sizes = [sum(len(format_prompt(question, first)) for question in chunk) for first, chunk in chunks]
    lines, fits = [], []
    with tqdm(total=sum(sizes), desc=name, unit=" characters", unit_scale=True) as progress:
        for (first, chunk), size in zip(chunks, sizes, strict=True):
            fitting = fit_examples(chunk, first, tokenizer, max_tokens)
            lines += [format_line(question, first[:shots]) for question, (shots, _) in zip(chunk, fitting, strict=True)]
            fits += fitting
            progress.update(size)
    return PromptFile(name, "".join(lines).encode("ascii"), len(fits), fits)


def make_all(
    splits: dict[str, Split], tokenizer: "Tokenizer | None", shots: Sequence[str], max_tokens: int
) -> list[PromptFile]:
    """Return the files of both splits, with the numbers of examples that are asked for."""
    files = []
    if "zero" in shots:
        files += [make_zero_shot(split, splits[split]) for split in SPLITS]
    if "five" in shots:
        files += [make_five_shot(split, splits[split], splits["dev"], tokenizer, max_tokens) for split in SPLITS]
    return files


def report(files: list[PromptFile], splits: dict[str, Split], folder: Path, max_tokens: int) -> str:
    """Return what was made, where, and what to do with it."""
    subjects = len(splits["dev"])
    rows = [["file", "questions", "subjects", "bytes", "git blob id"]]
    rows += [
        [file.name, f"{file.questions:,}", str(subjects), f"{len(file.content):,}", blob_id(file.content)]
        for file in files
    ]
    lines = [f"{subjects} of {SUBJECTS} subjects, written to {folder}", "", table(rows)]
    five_shot = [file for file in files if file.fits]
    if five_shot:
        lines += ["", examples_table(five_shot, max_tokens)]
    for file in five_shot:
        too_long = sum(tokens > max_tokens for _, tokens in file.fits)
        if too_long:
            lines.append(f"{file.name}: {too_long:,} prompts without any example are longer than {max_tokens:,} tokens")
    if subjects == SUBJECTS:
        lines += compare_to_known(files)
    dataset = "" if five_shot else " --mmlu_dataset mmlu-zs"
    copy = "" if folder.resolve() == HERE else f"copy them to {HERE}, then "
    lines += ["", f"Next: {copy}python qlora.py … --do_mmlu_eval --mmlu_split eval{dataset}"]
    return "\n".join(lines)


def examples_table(files: list[PromptFile], max_tokens: int) -> str:
    """Return a table of how many prompts of each file have how many examples."""
    counts = range(EXAMPLES, -1, -1)
    rows = [["prompts by examples", *map(str, counts), "longest prompt"]]
    for file in files:
        prompts, longest = Counter(shots for shots, _ in file.fits), max(tokens for _, tokens in file.fits)
        numbers = [f"{prompts[count]:,}" for count in counts]
        rows.append([file.name, *numbers, f"{longest:,} of {max_tokens:,} tokens"])
    return table(rows)


def blob_id(content: bytes) -> str:
    """Return git's id of a file's content (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects).

    >>> blob_id(b"what is up, doc?")
    'bd9dbf5aae1a3862dd1526723246b20206e5fc37'
    """
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def compare_to_known(files: list[PromptFile]) -> list[str]:
    """Say which files are the published ones, and which not those of the official questions and a LLaMA tokenizer."""
    published = [file.name for file in files if blob_id(file.content) == PUBLISHED.get(file.name)]
    other = [file.name for file in files if blob_id(file.content) != (PUBLISHED | OWN)[file.name]]
    lines = ["", f"{', '.join(published)}: the file that QLoRA's authors published"] if published else []
    if other:
        lines += [
            "",
            f"note: {', '.join(other)}: not the bytes that data/mmlu/README.md lists. The questions are not quite the "
            "official ones, or the tokenizer is not LLaMA's, or --max_tokens is another; scores on other prompts do "
            "not compare with published ones.",
        ]
    return lines


def positive(text: str) -> int:
    """Return the number of a text, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line; --csv is None with --hub."""
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


def make_files(csv: Path | None, output: Path, tokenizer: str, shots: Sequence[str], max_tokens: int) -> None:
    """Read the questions, make the prompts, write them, and say what was made.

    Args:
        csv: the folder of the official files, None for the hub.
        tokenizer: folder or hub name.
    """
    splits = read_hub() if csv is None else read_folder(csv)
    measure = load_tokenizer(tokenizer) if "five" in shots else None
    with failing_as(DataError, f"--output {output}: give a folder that can be written", OSError):
        check_writable(output)
    files = make_all(splits, measure, shots, max_tokens)
    for file in files:
        write_whole(output / file.name, file.content)
    print(report(files, splits, output, max_tokens))


def main(argv: list[str] | None = None) -> int:
    """Make the prompt files; gives the exit status."""
    args = parse(argv)
    work = partial(make_files, args.csv, args.output, args.tokenizer, args.shots, args.max_tokens)
    return exit_status("prepare.py", work)


if __name__ == "__main__":
    sys.exit(main())
