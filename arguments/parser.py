"""The command line → one typed, frozen dataclass for each group of flags, in one pass and before torch is loaded.

    arguments = parse(["--model_name_or_path", "gpt2", "--bits", "4"])
    arguments.training.bits                                              # 4
    parse(["--lerning_rate", "1e-4"])                                    # ArgumentsError: … --learning_rate?

Every rule of one group of flags is checked where its dataclass is made.
"""

import argparse
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from arguments.data import DataArguments
from arguments.declare import ArgumentsError, require
from arguments.generation import GenerationArguments
from arguments.model import ModelArguments
from arguments.training import TrainingArguments
from arguments.unknown import unknown_flag

# Modules without which no run gets far, and whose absence libraries report in their own strange ways.
NEEDED_MODULES = (
    "torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors", "tokenizers", "datasets", "pyarrow",
    "numpy", "jinja2",
)  # fmt: skip

USAGE = "python qlora.py --model_name_or_path PATH_OR_NAME [--dataset PATH_OR_NAME] [--output_dir DIR] [flags]"
EXAMPLES = """examples:
  python qlora.py --model_name_or_path Qwen/Qwen3-0.6B --dataset my.jsonl --max_steps 500 --output_dir output/mine
  (the same command again goes on from the last checkpoint)
  python qlora.py … --do_train False --do_predict --output_dir output/mine     (predictions.jsonl)"""


class Arguments(NamedTuple):
    """All that was asked for."""

    model: ModelArguments
    data: DataArguments
    training: TrainingArguments
    generation: GenerationArguments

    @classmethod
    def of(cls, flags: Any) -> "Arguments":
        """Return the arguments of an object that has flags as attributes, as a namespace of published scripts has.

        A flag that it lacks has its default. Raises ArgumentsError.
        """
        named = {name: value for name, value in vars(flags).items() if value is not None}
        kinds = (ModelArguments, DataArguments, TrainingArguments, GenerationArguments)
        chosen = [{f.name: named[f.name] for f in fields(kind) if f.name in named} for kind in kinds]
        return cls(*(kind(**values) for kind, values in zip(kinds, chosen, strict=True)))


def check_installed() -> None:
    """Refuse to begin without a package that every run needs; none is imported."""
    missing = [module for module in NEEDED_MODULES if importlib.util.find_spec(module) is None]
    require(not missing, f"not installed: {', '.join(missing)}. Run: pip install -r requirements.txt")


def parse(argv: Sequence[str]) -> Arguments:
    """Parse a command line.

    Raises:
        ArgumentsError: an unknown flag (the nearest one is named), a bad value, or a contradiction.
        SystemExit: with status 0 after `--help`.
    """
    parser = make_parser()
    *parsed, extra = parser.parse_args_into_dataclasses(
        args=list(argv), return_remaining_strings=True, look_for_args_file=False
    )
    if extra:
        raise ArgumentsError(unknown_flag(extra[0], flags_of(parser)))
    return Arguments(*parsed)


def load_hf_argparser() -> ModuleType:
    """Return transformers' `hf_argparser` module, by its path: the package around it takes half a second to import."""
    package = importlib.util.find_spec("transformers")
    path = Path(package.origin).with_name("hf_argparser.py")
    spec = importlib.util.spec_from_file_location("hf_argparser", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind each flag, the examples as they are written."""


def make_parser() -> Any:
    """Return an `HfArgumentParser` of the dataclasses that raises `ArgumentsError` instead of exiting.

    Every boolean may be given bare or with a value: `--flag`, `--flag True`, `--flag False`.
    """
    library = load_hf_argparser()

    class Parser(library.HfArgumentParser):
        def error(self, message: str):
            raise ArgumentsError(message)

    kinds = (ModelArguments, DataArguments, TrainingArguments, GenerationArguments)
    parser = Parser(
        kinds, prog="qlora.py", formatter_class=HelpFormatter, allow_abbrev=False, usage=USAGE, epilog=EXAMPLES
    )
    for action in set(flags_of(parser).values()):
        if action.type is library.string_to_bool and action.nargs is None:  # as the library leaves `bool | None`
            action.nargs, action.const = "?", True
    return parser


def flags_of(parser: argparse.ArgumentParser) -> Mapping[str, argparse.Action]:
    """Return each spelling of a flag → its action. argparse has no public way to its own list."""
    return parser._option_string_actions
