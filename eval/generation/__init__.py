"""Generated answers: predictions.jsonl, and how good its answers are: `python -m eval.generation --help`."""

from eval.generation.generation import main, parse
from eval.generation.predictions import write_predictions

__all__ = ["main", "parse", "write_predictions"]
