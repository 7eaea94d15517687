"""Typed flags for tests of what takes them, made as the command line makes them."""

from types import SimpleNamespace
from typing import Any

from arguments.parser import Arguments


def arguments(**flags: Any) -> Arguments:
    """Return the arguments of a command that gives these flags; None leaves one out."""
    return Arguments.of(SimpleNamespace(**flags))


def data_module(tokenizer: Any, flags: Any, **options: Any) -> Any:
    """Return the `DataModule` of a namespace of flags."""
    from data.loading import make_data_module

    asked = Arguments.of(flags)
    return make_data_module(tokenizer, asked.data, asked.training, token=asked.model.use_auth_token, **options)


def data_request(**changed: Any) -> Any:
    """Return a `data.loading.Request` to train on `dataset`, with what else is given."""
    from arguments.data import DataArguments
    from data.loading import Request

    names = DataArguments.__dataclass_fields__
    data = DataArguments(**{name: value for name, value in changed.items() if name in names and value is not None})
    others = {name: value for name, value in changed.items() if name not in names}
    defaults = {"trains": True, "evaluates": False, "predicts": False, "seed": 0, "cache_dir": None, "token": False}
    return Request(data=data, **defaults | {"prompt_format": "alpaca"} | others)
