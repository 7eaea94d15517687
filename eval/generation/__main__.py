"""Scores of files of answers: `python -m eval.generation --help`."""

import sys

from eval.generation.generation import main

if __name__ == "__main__":
    sys.exit(main())
