"""Base model in, model ready to train out: LoRA on its linear layers, and a count of what was really built.

model, tokenizer = get_accelerate_model(args, checkpoint_dir=None)
print_trainable_parameters(args, model)
"""

import warnings
from argparse import Namespace
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.trainer_utils import check_target_module_exists

from training.checkpoint.checkpoint import CheckpointError, adapter_directory, check_same_adapter
from training.loop.steps import check_packable
from training.model.base import (
    ModelError,
    build_skeleton,
    check_context,
    load_base_model,
    load_config,
    load_tokenizer,
    weight_dtype,
)
from training.model.files import error_text
from training.model.tokenizer import align_model_with_tokenizer, pad_token_for, smart_tokenizer_and_embedding_resize


def get_tokenizer(args: Any, checkpoint_dir: str | None) -> Any:
    """Load the tokenizer alone, with its pad token: all that the data needs, and in a moment.

    Raises:
        ModelError: no such model, sources and targets longer than its context, names of layers that it does not have,
            or --packing with an architecture that is not known to keep packed rows apart.
    """
    config = load_config(args, weights_of(args, checkpoint_dir))
    check_context(args, config)
    check_layer_names(args, config)
    if getattr(args, "packing", False) and args.do_train:
        check_packable(config.model_type)
    tokenizer = load_tokenizer(args, checkpoint_dir, config)
    tokenizer.add_special_tokens({"pad_token": pad_token_for(tokenizer)})
    return tokenizer


def weights_of(args: Any, checkpoint_dir: str | None) -> str:
    """Where the weights are loaded from: a whole model that was tuned, or the base of an adapter."""
    if not (args.full_finetune and checkpoint_dir is not None):
        return args.model_name_or_path
    check_whole_model(checkpoint_dir)
    return checkpoint_dir


def get_accelerate_model(args: Any, checkpoint_dir: str | None, tokenizer: Any = None) -> tuple[Any, Any]:
    """Load the base model at `args.bits`, its tokenizer, and the LoRA adapters (or all weights) to train.

    Args:
        args: every flag of the command line, as one namespace.
        checkpoint_dir: a checkpoint or a finished output directory whose weights to go on with, or None to start.
        tokenizer: that of `get_tokenizer`, where it was loaded before.

    Returns:
        (model, tokenizer): a `PeftModel`, or the plain model with `args.full_finetune`.

    Raises:
        ModelError: no such model, a checkpoint in a form that is not supported, or a LoRA layer name that
            matches nothing.
        CheckpointError: `checkpoint_dir` holds other weights than `args` asks for.
        FailedRunError: the GPU has too little memory for the model.
    """
    tokenizer = tokenizer or get_tokenizer(args, checkpoint_dir)  # before the weights, which take longer to load
    weights = weights_of(args, checkpoint_dir)
    model = load_base_model(args, weights, load_config(args, weights))
    smart_tokenizer_and_embedding_resize({"pad_token": pad_token_for(tokenizer)}, tokenizer, model)
    align_model_with_tokenizer(model, tokenizer)
    if args.full_finetune:
        model.requires_grad_(True)
        if weight_dtype(args) == torch.bfloat16:
            print(
                "note: the weights are trained in bfloat16, where a change below 1/256 of a weight is lost; "
                "--bits 32 (with --bf16 for speed) keeps every change."
            )
    else:
        model = add_adapters(args, model, checkpoint_dir)
    return model, tokenizer


def check_whole_model(checkpoint_dir: str) -> None:
    if not (Path(checkpoint_dir) / "config.json").is_file():
        raise CheckpointError(
            f"--full_finetune with {checkpoint_dir}, which holds an adapter: leave --full_finetune out to go on from "
            "it, or give another --output_dir to start anew."
        )


def linear_classes(bits: int) -> tuple[type, ...]:
    """The classes of linear layers at `bits`."""
    import bitsandbytes as bnb
    from transformers.pytorch_utils import Conv1D

    if bits == 4:
        return (bnb.nn.Linear4bit,)
    if bits == 8:
        return (bnb.nn.Linear8bitLt,)
    return (nn.Linear, Conv1D)  # GPT-2 keeps its linear layers as Conv1D


def linear_layers(args: Any, model: nn.Module) -> dict[str, nn.Module]:
    """Full name → linear layer at `args.bits`, for each but the output head."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    classes = linear_classes(args.bits)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, classes) and module is not head and name.split(".")[-1] != "lm_head"
    }


def find_all_linear_names(args: Any, model: nn.Module) -> list[str]:
    """Last parts of the names of the linear layers at `args.bits`, without the output head, sorted."""
    return sorted({name.split(".")[-1] for name in linear_layers(args, model)})


def lora_targets(args: Any, model: nn.Module) -> list[str]:
    """The layer names that `--lora_modules` asks for.

    Raises:
        ModelError: a name that matches no linear layer, or a model without any.
    """
    existing = find_all_linear_names(args, model)
    if not existing:
        raise ModelError(f"{args.model_name_or_path} has no linear layer at {args.bits} bits to put LoRA on.")
    return asked_layers(args, existing)


def asked_layers(args: Any, existing: list[str]) -> list[str]:
    """Those of the `existing` layer names that --lora_modules asks for.

    Raises:
        ModelError: it asks for another, or for none.
    """
    if args.lora_modules.strip() == "all":
        return existing
    asked = [name.strip() for name in args.lora_modules.split(",") if name.strip()]
    missing = [name for name in asked if name not in existing]
    if missing or not asked:
        raise ModelError(
            f"--lora_modules {args.lora_modules}: no linear layer is called {', '.join(missing) or '(nothing)'}. "
            f"This model has: {', '.join(existing)} (or 'all')."
        )
    return asked


def check_layer_names(args: Any, config: Any) -> None:
    """Refuse flags that name layers which the model does not have, by a model without weights.

    Raises:
        ModelError: --lora_modules or --optim_target_modules matches no linear layer.
    """
    for_lora = not args.full_finetune and args.lora_modules.strip() != "all"
    if not for_lora and args.optim_target_modules is None:
        return
    skeleton = build_skeleton(args, config)
    if for_lora:
        asked_layers(args, find_all_linear_names(Namespace(bits=16), skeleton))
    if args.optim_target_modules in (None, "all-linear", "all_linear"):
        return
    names = [name for name, layer in skeleton.named_modules() if isinstance(layer, nn.Linear)]
    if not any(check_target_module_exists(args.optim_target_modules, name) for name in names):
        raise ModelError(
            f"--optim_target_modules {args.optim_target_modules}: no linear layer has a name that is all matched by "
            f"it. This model has: {', '.join(names[:8])}, … (or all-linear)."
        )


def add_adapters(args: Any, model: nn.Module, checkpoint_dir: str | None) -> Any:
    """Attach LoRA: fresh (B = 0, so the model still answers as the base does), or as saved in `checkpoint_dir`.

    LoRA weights are held in fp32 whatever the base is held in. Source: https://arxiv.org/abs/2106.09685
    """
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    # PEFT reads a property that transformers renamed; what it reads is still right.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    targets = lora_targets(args, model)
    if checkpoint_dir is not None:
        directory = adapter_directory(checkpoint_dir)
        check_same_adapter(args, directory, targets)
        return load_adapters(args, model, str(directory))
    is_conv1d = any(isinstance(layer, Conv1D) for layer in linear_layers(args, model).values())
    config = LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=targets,
        fan_in_fan_out=is_conv1d,  # Conv1D stores its weight transposed
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def load_adapters(args: Any, model: nn.Module, directory: str) -> Any:
    """The model with the adapter in `directory`, all of it, to be trained further or used.

    Raises:
        CheckpointError: the adapter is damaged, or of another model.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        with warnings.catch_warnings():
            # PEFT would leave those parts of the adapter as if never trained.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            return PeftModel.from_pretrained(model, directory, is_trainable=True)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, UserWarning) as error:
        raise CheckpointError(
            f"the adapter in {directory} does not fit {args.model_name_or_path}: {error_text(error)[:300]}\n"
            "Give the --model_name_or_path that it was trained on, or another --output_dir to start anew."
        ) from error


@dataclass
class ParameterCounts:
    """What a model is made of, in numbers of weights.

    Attributes:
        trainable: weights that receive gradients.
        architecture: weights of the base model as its architecture counts them, whatever they are packed in.
        stored: elements of all tensors as they are held, adapters included; a packed byte holds two 4-bit weights.
        dtypes: stored elements of each dtype.
        quantized: base weights held in 4 or 8 bits, of `architecture`.
        layers: linear layers of the base, and how many of them are quantized.
        experts: weights of fused experts (one 3-D tensor for all), which bitsandbytes does not quantize.
    """

    trainable: int = 0
    architecture: int = 0
    stored: int = 0
    dtypes: Counter = field(default_factory=Counter)
    quantized: int = 0
    layers: tuple[int, int] = (0, 0)
    experts: int = 0


def logical_elements(parameter: torch.Tensor) -> int:
    """Weights that a parameter stands for: those of the unpacked matrix where it is 4-bit."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else torch.Size(state.shape).numel()


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Count every parameter of `model` once (tied ones too)."""
    from transformers.pytorch_utils import Conv1D

    counts = ParameterCounts()
    for name, parameter in model.named_parameters():
        counts.stored += parameter.numel()
        counts.dtypes[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
        counts.trainable += parameter.numel() if parameter.requires_grad else 0
        if ".lora_" in name:
            continue
        counts.architecture += logical_elements(parameter)
        if parameter.dtype in (torch.uint8, torch.int8):
            counts.quantized += logical_elements(parameter)
        elif parameter.ndim == 3 and "expert" in name:
            counts.experts += parameter.numel()
    layers = [
        m for n, m in model.named_modules()
        if isinstance(m, (nn.Linear, Conv1D)) and ".lora_" not in n
    ]  # fmt: skip
    counts.layers = (len(layers), sum(layer.weight.dtype in (torch.uint8, torch.int8) for layer in layers))
    return counts


def print_trainable_parameters(args: Any, model: nn.Module) -> None:
    """Print what trains, what the architecture counts, what is stored and in which dtypes, and what was quantized."""
    counts = count_parameters(model)
    share = counts.trainable / max(counts.architecture, 1)
    print(f"parameters: {counts.trainable:,} trainable; the base model has {counts.architecture:,} ({share:.2%})")
    packed = "; a packed byte holds two 4-bit weights" if args.bits == 4 else ""
    print(f"stored:     {counts.stored:,} elements, adapter included{packed}")
    shares = [f"{name} {n / counts.stored:.1%}" for name, n in counts.dtypes.most_common()]
    print(f"dtypes:     {', '.join(shares)}")
    if args.bits in (4, 8):
        linear, quantized = counts.layers
        print(
            f"quantized:  {quantized} of {linear} linear layers to {args.bits} bits, "
            f"{counts.quantized / counts.architecture:.1%} of the base weights"
        )
        if counts.experts:
            print(
                f"note: {counts.experts / counts.architecture:.1%} of the base weights are fused experts, which "
                f"bitsandbytes does not quantize; they stay in {str(weight_dtype(args)).removeprefix('torch.')}."
            )
    if not counts.trainable:
        raise ModelError("nothing to train: no parameter of the model is trainable.")
