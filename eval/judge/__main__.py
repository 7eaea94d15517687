"""A model as the judge of two answers: `python -m eval.judge --help`."""

import sys

from eval.judge.judge import main

if __name__ == "__main__":
    sys.exit(main())
