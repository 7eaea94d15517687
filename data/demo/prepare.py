"""Make the demo's data and base model: plain facts, a small Llama that has read them, and questions about them.

    python data/demo/prepare.py                                 # everything, into data/demo; 15 minutes on two cores
    python data/demo/prepare.py --text_only --output /tmp/demo  # text.txt, train.jsonl and eval.jsonl; a second
    python data/demo/prepare.py --steps 50 --output /tmp/demo   # a quick look at the training

From facts.csv it writes text.txt (what the base model reads), base/ (tokenizer and model, trained from scratch),
train.jsonl and eval.jsonl (alpaca form, split by country) and prepare.log (what this run did and measured).
"""

import argparse
import logging
import shlex
import sys
import time
from pathlib import Path

if not __package__:  # run by its path, which puts this folder on the import path and not the repository's root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common.commands import exit_status
from data.demo.text import HERE, read_facts, write_instructions, write_text

log = logging.getLogger("prepare")


def start_log(path: Path, argv: list[str]) -> None:
    """Log to the screen and to `path`, beginning with the command."""
    log.setLevel(logging.INFO)
    log.handlers = [logging.StreamHandler(sys.stdout), logging.FileHandler(path, mode="w", encoding="utf-8")]
    log.info("$ python data/demo/prepare.py%s", "".join(f" {shlex.quote(argument)}" for argument in argv))


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE, help="folder to write to (default: beside this file)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the text, the split and the training")
    parser.add_argument("--steps", type=int, default=1400, help="optimizer steps of the base model's training")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads to train with")
    parser.add_argument("--text_only", action="store_true", help="write text and instructions, train no model")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Write the text and the instructions, then train the base model; gives the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse(argv)
    return exit_status("prepare.py", lambda: make(argv, **vars(args)))


def make(argv: list[str], output: Path, seed: int, steps: int, threads: int, text_only: bool) -> None:
    """Make what a command line asks for, which the log begins with."""
    started = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    start_log(output / "prepare.log", argv)
    rows = read_facts()
    documents = write_text(rows, output / "text.txt", seed)
    log.info("text: %d countries, %d documents", len(rows), len(documents))
    write_instructions(rows, output, seed)
    if not text_only:
        from data.demo.base_model import make_base

        make_base(documents, rows, output / "base", steps, seed, threads)
    log.info("done in %.0f s with %.0f s of CPU time", time.monotonic() - started, time.process_time())


if __name__ == "__main__":
    sys.exit(main())
