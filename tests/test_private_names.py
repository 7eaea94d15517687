"""Private names of libraries may go with any release: each that is used is listed here, and is there."""

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Iterator, Mapping

import bitsandbytes.autograd
import datasets
import evaluate
import pytest
from sacrebleu.metrics import CHRF
from transformers import HfArgumentParser, PreTrainedConfig, Seq2SeqTrainer

from tests.support.paths import PARTS, read_sources

ROWS = datasets.Dataset.from_dict({"n": [1]})
# name → what has it
PRIVATE = {
    "_option_string_actions": argparse.ArgumentParser(),
    "_fingerprint": ROWS,
    "_indices": ROWS,
    "_attn_implementation": PreTrainedConfig(),
    "_get_eval_sampler": Seq2SeqTrainer,
    "_save": Seq2SeqTrainer,
    "_load_from_checkpoint": Seq2SeqTrainer,
    "_functions": bitsandbytes.autograd,  # whose logger is set by its name
    "_info": evaluate.Metric,
    "_compute": evaluate.Metric,
    "_extract_corpus_statistics": CHRF,
    "_compute_f_score": CHRF,
    "_internal_call": inspect.signature(Seq2SeqTrainer.save_model).parameters,
    # HfArgumentParser reads it of a dataclass.
    "_argument_group_name": inspect.getsource(HfArgumentParser),
}
BY_STRING = ("getattr", "hasattr", "setattr", "getLogger")
PUBLIC = {"_replace", "_asdict", "_fields"}  # of named tuples, as documented


def names_used(tree: ast.AST) -> Iterator[str]:
    """Give every name that may be a library's: imports, attributes of others, and what subclasses have and use."""
    imported = {}  # name → the package that it is from
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            package = getattr(node, "module", None) or ""
            imported |= {alias.asname or alias.name.partition(".")[0]: package or alias.name for alias in node.names}
            yield from ".".join([package, *(alias.name for alias in node.names)]).split(".")
    ours = {*PARTS, *sys.stdlib_module_names}
    foreign = {name for name, module in imported.items() if module.partition(".")[0] not in ours}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
            yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(BY_STRING):
            texts = (part.value for part in node.args if isinstance(part, ast.Constant))
            yield from (str(text).rpartition(".")[2] for text in texts)
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.ClassDef) and node.decorator_list:  # a dataclass, whose names a parser reads
            yield from (target.id for part in node.body if isinstance(part, ast.Assign) for target in part.targets)
        elif isinstance(node, ast.ClassDef) and foreign & {ast.unparse(base).partition(".")[0] for base in node.bases}:
            yield from (part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute))
            yield from (part.name for part in node.body if isinstance(part, ast.FunctionDef))


def private_names(source: str) -> set[str]:
    return {name for name in names_used(ast.parse(source)) if re.match("_[a-z]", name)} - PUBLIC


@pytest.mark.parametrize("name", PRIVATE)
def test_private_name_exists(name):
    place = PRIVATE[name]
    assert name in place if isinstance(place, str | Mapping) else hasattr(place, name)


def test_private_names_are_listed():
    ours = {module: source for module, source in read_sources().items() if not module.startswith("tests.")}
    assert set().union(*map(private_names, ours.values())) == set(PRIVATE)


def test_private_names_are_seen():
    source = """
from transformers.trainer import _is_peft_model
import datasets._x as y
from torch import nn
getattr(config, "_attn", None)
class Own:
    def _mine(self):
        return self._mine()
class Layer(nn.Module):
    def _theirs(self):
        return self._buffers
rows._data._replace(a=1, _quick=True)
@dataclass
class Flags:
    _group = "training"
"""
    names = {"_is_peft_model", "_x", "_attn", "_theirs", "_buffers", "_data", "_quick", "_group"}
    assert private_names(source) == names
