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


def data_request(**flags: Any) -> Any:
    """Return the `data.selection.Request` of these flags."""
    from data.selection import Request
    from data.sources.mixes import parse_names

    asked = arguments(**flags)
    return Request(asked.data, asked.training, parse_names(asked.data), token=False, prompt_format="alpaca")


def tokenizer_of(argv: list[str]) -> Any:
    """Return the tokenizer that a command line loads."""
    from arguments.parser import parse
    from training.model.build import read_base

    model, data, training, generation = parse(argv)
    return read_base(model, data, training, generation.max_new_tokens, None).tokenizer


def trainer_of(argv: list[str]) -> tuple[Any, Any]:
    """Return the trainer and the `DataModule` that `qlora.run` would build for a command line."""
    import torch

    import qlora
    from arguments.parser import parse
    from data.loading import make_data_module
    from training.loop.arguments import library_arguments
    from training.model.build import build_model, read_base
    from training.plan import make_plan
    from training.shortcuts.attention import row_layout

    plan = make_plan(parse(argv))
    torch.manual_seed(0)
    base = read_base(plan.model, plan.data, plan.training, plan.generation.max_new_tokens, plan.checkpoint)
    model = build_model(plan.model, plan.training, base, plan.checkpoint)
    layout = row_layout(base.config, plan.training)
    module = make_data_module(base.tokenizer, plan.data, plan.training, layout=layout)
    settings = library_arguments(plan.training)
    trainer, _ = qlora.make_trainer(plan, settings, model, base.tokenizer, module, [], {})
    return trainer, module
