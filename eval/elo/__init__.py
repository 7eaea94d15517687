"""Elo ratings from files of pairwise judgements: `python -m eval.elo --help`."""

from eval.elo.ratings import main, parse

__all__ = ["main", "parse"]
