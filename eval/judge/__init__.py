"""A model as the judge of two answers to a question: `python -m eval.judge --help`."""

from eval.judge.judge import main, parse

__all__ = ["main", "parse"]
