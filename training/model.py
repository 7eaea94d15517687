"""Base model in, model ready to train out: quantized load, tokenizer, LoRA, and what was really built.

model, tokenizer = get_accelerate_model(args, checkpoint_dir=None)
print_trainable_parameters(args, model)
"""

import os
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.arguments import RequestError
from training.checkpoint import adapter_directory, check_same_adapter
from training.tokenizer import (
    align_model_with_tokenizer,
    pad_token_for,
    repair_special_tokens,
    smart_tokenizer_and_embedding_resize,
)


class ModelError(RequestError):
    """The base model cannot be loaded or tuned as asked."""


def get_accelerate_model(args: Any, checkpoint_dir: str | None) -> tuple[Any, Any]:
    """Load the base model at `args.bits`, its tokenizer, and the LoRA adapters (or all weights) to train.

    Args:
        args: every flag of the command line, as one namespace.
        checkpoint_dir: a checkpoint or a finished output directory whose weights to go on with, or None to start.

    Returns:
        (model, tokenizer): a `PeftModel`, or the plain model with `args.full_finetune`.

    Raises:
        ModelError: no such model, a checkpoint in a form that is not supported, or a LoRA layer name that
            matches nothing.
    """
    weights = (checkpoint_dir if args.full_finetune else None) or args.model_name_or_path
    config = load_config(args, weights)
    model = load_base_model(args, weights, config)
    tokenizer = load_tokenizer(args, checkpoint_dir, config)
    smart_tokenizer_and_embedding_resize({"pad_token": pad_token_for(tokenizer)}, tokenizer, model)
    align_model_with_tokenizer(model, tokenizer)
    if args.full_finetune:
        model.requires_grad_(True)
    else:
        model = add_adapters(args, model, checkpoint_dir)
    return model, tokenizer


def hub_options(args: Any) -> dict[str, Any]:
    return {
        "cache_dir": args.cache_dir,
        "token": True if args.use_auth_token else None,
        "trust_remote_code": args.trust_remote_code,
    }


def load_config(args: Any, weights: str) -> Any:
    from transformers import AutoConfig

    path = Path(weights)
    if path.is_dir() and not (path / "config.json").is_file():
        adapter = (path / "adapter_config.json").is_file()
        kind = "it holds a LoRA adapter: give the base model that it belongs to" if adapter else "it has no config.json"
        raise ModelError(f"--model_name_or_path {weights} is not a model: {kind}.")
    try:
        return AutoConfig.from_pretrained(weights, **hub_options(args))
    except (OSError, ValueError) as error:
        raise ModelError(cannot_load(weights, error)) from error


def cannot_load(weights: str, error: Exception) -> str:
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"cannot load the base model {weights}: {first_line}\n"
        "Give a local directory with config.json and *.safetensors, or a name on the hub that is in the cache or can "
        "be reached (gated models: --use_auth_token after `hf auth login`)."
    )


def compute_dtype(args: Any) -> torch.dtype:
    """What matrix products are computed in."""
    return torch.float16 if args.fp16 else torch.bfloat16 if args.bf16 else torch.float32


def weight_dtype(args: Any) -> torch.dtype:
    """What weights that are not quantized are held in.

    With fp16, everything that trains stays in fp32: the gradient scaler cannot unscale fp16 gradients.
    """
    if args.bits == 32:
        return torch.float32
    if args.bits == 16:
        if args.fp16:
            return torch.float32 if args.full_finetune else torch.float16
        return torch.bfloat16
    return torch.bfloat16 if args.bf16 else torch.float32


def quantization_config(args: Any) -> Any:
    """The bitsandbytes settings for `args.bits`, or None where weights are not quantized."""
    from transformers import BitsAndBytesConfig

    if args.bits == 4:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_compute_dtype=compute_dtype(args),
            bnb_4bit_use_double_quant=args.double_quant,
            bnb_4bit_quant_type=args.quant_type,
        )
    if args.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return None


def device_options(args: Any) -> dict[str, Any]:
    """Device map and memory limits: one process one device, `LOCAL_RANK`'s under a launcher."""
    if not torch.cuda.is_available() or args.use_cpu:
        return {"device_map": {"": "cpu"}}
    limit = f"{args.max_memory_MB}MB"
    if args.device_map == "auto":
        return {"device_map": "auto", "max_memory": {i: limit for i in range(torch.cuda.device_count())}}
    device = int(os.environ.get("LOCAL_RANK", "0"))
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, args.max_memory_MB * 1e6 / total), device)
    return {"device_map": {"": device}}


def check_stored_quantization(args: Any, config: Any, weights: str) -> bool:
    """Whether the checkpoint is already quantized (as `args.bits` asks), so that no other config may be passed."""
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return False
    stored = stored if isinstance(stored, dict) else stored.to_dict()
    bits = 4 if stored.get("load_in_4bit") else 8 if stored.get("load_in_8bit") else None
    if bits != args.bits:
        kind = f"{bits}-bit" if bits else stored.get("quant_method", "otherwise quantized")
        raise ModelError(
            f"--bits {args.bits} with {weights}, which holds {kind} weights: "
            + (f"use --bits {bits}, or the original model." if bits else "use the original, unquantized model.")
        )
    return True


def load_base_model(args: Any, weights: str, config: Any) -> Any:
    """The causal language model at `args.bits`, frozen, in evaluation-ready form on its device."""
    from transformers import AutoModelForCausalLM

    options = {**hub_options(args), **device_options(args), "dtype": weight_dtype(args), "use_safetensors": True}
    if not check_stored_quantization(args, config, weights) and args.bits in (4, 8):
        options["quantization_config"] = quantization_config(args)
    try:
        model = AutoModelForCausalLM.from_pretrained(weights, config=config, **options)
    except (OSError, ValueError) as error:
        raise ModelError(cannot_load(weights, error)) from error
    for module in model.modules():
        if hasattr(module, "compute_dtype") and args.bits == 4:  # a checkpoint stored in 4 bits keeps its own
            module.compute_dtype = compute_dtype(args)
    return model.requires_grad_(False)


def load_tokenizer(args: Any, checkpoint_dir: str | None, config: Any) -> Any:
    """The tokenizer saved with the checkpoint, or else the base model's, with BOS and EOS repaired."""
    from transformers import AutoTokenizer

    source = args.model_name_or_path
    if checkpoint_dir is not None and (Path(checkpoint_dir) / "tokenizer_config.json").is_file():
        source = checkpoint_dir
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, padding_side="right", **hub_options(args))
        repair_special_tokens(tokenizer, config)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot load the tokenizer of {source}: {error}") from error
    return tokenizer


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


def add_adapters(args: Any, model: nn.Module, checkpoint_dir: str | None) -> Any:
    """Attach LoRA: fresh (B = 0, so the model still answers as the base does), or as saved in `checkpoint_dir`.

    LoRA weights are held in fp32 whatever the base is held in. Source: https://arxiv.org/abs/2106.09685
    """
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers.pytorch_utils import Conv1D

    # PEFT reads a property that transformers renamed; what it reads is still right.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    targets = lora_targets(args, model)
    if checkpoint_dir is not None:
        directory = adapter_directory(checkpoint_dir)
        check_same_adapter(args, directory, targets)
        return PeftModel.from_pretrained(model, str(directory), is_trainable=True)
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
        experts: weights of fused experts (3-D tensors), which bitsandbytes does not quantize.
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
        elif parameter.ndim == 3:
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
