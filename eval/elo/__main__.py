"""Elo ratings from files of pairwise judgements: `python -m eval.elo --help`."""

import sys

from eval.elo.ratings import main

if __name__ == "__main__":
    sys.exit(main())
