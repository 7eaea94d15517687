"""The base model as it is loaded: config, tokenizer and weights, at 4, 8, 16 or 32 bits, on their device."""

import logging
import os
from pathlib import Path
from typing import Any

import torch

from common.errors import FailedRunError, RequestError
from training.model.files import (
    cannot_load_model,
    cannot_load_tokenizer,
    convert_pickles,
    directory_of,
    error_text,
    no_vocabulary_reason,
    vocabulary_reason,
)
from training.model.sentencepiece import follow_model, model_file
from training.model.tokenizer import keep_settings, repair_special_tokens

LEARNED_POSITIONS = ("gpt2", "gpt_neo", "opt", "gpt_bigcode", "biogpt", "xglm", "openai-gpt", "codegen2")


class ModelError(RequestError):
    """The base model cannot be loaded or tuned as asked."""


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
        raise ModelError(f"--model_name_or_path {weights} is not a model: {no_config_reason(path)}.")
    if any(path.glob("pytorch_model*.bin")) and not any(path.glob("*.safetensors")):
        raise ModelError(
            f"--model_name_or_path {weights} holds its weights as pickles (*.bin), which can run any code and are not "
            f"read. {convert_pickles(weights)}"
        )
    try:
        return AutoConfig.from_pretrained(weights, **hub_options(args))
    except Exception as error:  # each architecture checks its own settings, or trips over them
        raise ModelError(cannot_load_model(weights, error, args.cache_dir)) from error


def no_config_reason(directory: Path) -> str:
    if (directory / "adapter_config.json").is_file():
        return "it holds a LoRA adapter: give the base model that it belongs to"
    below = [
        path.parent for pattern in ("*/config.json", "snapshots/*/config.json") for path in directory.glob(pattern)
    ]
    return "it has no config.json" + (f"; there is one in {min(below)}" if below else "")


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
    if args.use_cpu or not (torch.cuda.is_available() or torch.accelerator.is_available()):
        return {"device_map": {"": "cpu"}}
    if not torch.cuda.is_available():
        return {"device_map": {"": torch.accelerator.current_accelerator().type}}
    limit = f"{args.max_memory_MB}MB"
    if args.device_map == "auto":
        return {"device_map": "auto", "max_memory": {i: limit for i in range(torch.cuda.device_count())}}
    device, devices = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if device >= devices:
        raise ModelError(f"LOCAL_RANK {device} with {devices} GPUs: start one process for each GPU at most.")
    total = torch.cuda.get_device_properties(device).total_memory
    if args.max_memory_MB * 1e6 < total:
        print(f"note: using {args.max_memory_MB:,} of the GPU's {total / 1e6:,.0f} MB at most (--max_memory_MB).")
    torch.cuda.set_per_process_memory_fraction(min(1.0, args.max_memory_MB * 1e6 / total), device)
    return {"device_map": {"": device}}


def check_context(args: Any, config: Any) -> None:
    """Say where rows may be longer than what the model was made for, and refuse where it has no place for them.

    `args.context` becomes the number of tokens that it was made for, or None.

    Raises:
        ModelError: the positions are a learned table (GPT-2, OPT, …), which ends there.
    """
    text = config.get_text_config()
    args.context = context = getattr(text, "max_position_embeddings", None)
    answer = max(args.target_max_len, getattr(args, "max_new_tokens", 0) if args.do_predict else 0)
    longest = args.source_max_len + answer
    reads_rows = args.do_train or args.do_eval or args.do_predict
    if not reads_rows or context is None or longest <= context:
        return
    flags = f"--source_max_len {args.source_max_len} and answers of up to {answer} tokens"
    if text.model_type in LEARNED_POSITIONS:
        raise ModelError(
            f"{flags} make {longest:,} tokens; {args.model_name_or_path} has {context:,} positions and fails beyond. "
            f"Try --source_max_len {max(context - answer, 1)}, or a smaller --target_max_len and --max_new_tokens."
        )
    print(f"note: {flags} make {longest:,} tokens; this model was made for {context:,}.")


def check_stored_quantization(args: Any, config: Any, weights: str) -> bool:
    """Whether the checkpoint is already quantized (as `args` asks), so that no other config may be passed.

    Raises:
        ModelError: it is quantized in another way than `args` asks.
    """
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return False
    stored = stored if isinstance(stored, dict) else stored.to_dict()
    bits = 4 if stored.get("load_in_4bit") else 8 if stored.get("load_in_8bit") else None
    if bits is None or args.full_finetune:
        kind = f"{bits}-bit" if bits else stored.get("quant_method", "otherwise quantized")
        flags = f"--bits {args.bits}" + (" --full_finetune" if args.full_finetune else "")
        raise ModelError(f"{flags} with {weights}, which holds {kind} weights: use the original, unquantized model.")
    found = {"bits": bits}
    if bits == args.bits == 4:
        found["quant_type"] = stored.get("bnb_4bit_quant_type", "fp4")
        found["double_quant"] = stored.get("bnb_4bit_use_double_quant", False)
    for flag, value in found.items():
        if getattr(args, flag) != value:
            raise ModelError(
                f"--{flag} {getattr(args, flag)} with {weights}, whose weights were stored with --{flag} {value}: "
                f"use --{flag} {value}, or the original model."
            )
    return True


def load_base_model(args: Any, weights: str, config: Any) -> Any:
    """The causal language model at `args.bits`, frozen, in evaluation-ready form on its device."""
    options = {**hub_options(args), **device_options(args), "dtype": weight_dtype(args), "use_safetensors": True}
    if not check_stored_quantization(args, config, weights) and args.bits in (4, 8):
        options["quantization_config"] = quantization_config(args)
    if args.bits == 8:  # it would say for each layer that it computes in fp16, as 8-bit layers do
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    model = read_weights(args, weights, config=config, **options)
    if args.bits == 4:
        settle_4bit_layers(model, compute_dtype(args))
    return model.requires_grad_(False)


def build_skeleton(args: Any, config: Any) -> Any:
    """The causal language model of a config with its layers and no weights, in a moment."""
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=args.trust_remote_code)
    except Exception as error:  # as where the weights are read
        raise ModelError(cannot_load_model(args.model_name_or_path, error, args.cache_dir)) from error


def settle_4bit_layers(model: Any, dtype: torch.dtype) -> None:
    """Let every 4-bit layer compute in `dtype`, with the same kernel in training and evaluation, on every processor."""
    from bitsandbytes.nn import Linear4bit

    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.compute_dtype = dtype  # a checkpoint stored in 4 bits has its own
            # On a CPU with AVX512-BF16 the first evaluation would repack the weights, for good, for a kernel that
            # rounds to bfloat16 and has no backward: training after it would pass no gradient through the layer.
            layer.support_avx512bf16_for_cpu = False


def read_weights(args: Any, weights: str, **options: Any) -> Any:
    """`from_pretrained`, where a weight that is missing or of another shape is an error: it would be left random."""
    from transformers import AutoModelForCausalLM

    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # which are then refused by name
    try:
        model, info = AutoModelForCausalLM.from_pretrained(weights, **options)
    except torch.OutOfMemoryError as error:
        raise FailedRunError(
            f"the GPU has too little memory for {weights} at {args.bits} bits: {error_text(error)}\n"
            "Try --bits 4, a smaller model, or a larger --max_memory_MB."
        ) from error
    except Exception as error:  # each architecture trips in its own way over a config or weights that are not its own
        raise ModelError(cannot_load_model(weights, error, args.cache_dir)) from error
    for name, found, expected in sorted(info["mismatched_keys"]):
        raise wrong_shape(weights, name, found, expected)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{weights} lacks {len(missing)} weights of a {type(model).__name__}, {missing[0]} among them."
        )
    check_shapes(model, weights)
    return model


def wrong_shape(weights: str, name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> ModelError:
    return ModelError(
        f"cannot load the base model {weights}: {name} is {tuple(found)}, by config.json {tuple(expected)}."
    )


def check_shapes(model: Any, weights: str) -> None:
    """Refuse quantized layers of another shape than the config says; the library compares only the others."""
    import bitsandbytes as bnb

    for name, layer in model.named_modules():
        if isinstance(layer, (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)):
            state = getattr(layer.weight, "quant_state", None)
            found = tuple(layer.weight.shape if state is None else state.shape)
            expected = (layer.out_features, layer.in_features)
            if found != expected:
                raise wrong_shape(weights, name, found, expected)


def load_tokenizer(args: Any, checkpoint_dir: str | None, config: Any) -> Any:
    """The tokenizer saved with the checkpoint, or else the base model's, with special tokens repaired.

    Raises:
        ModelError: it cannot be read, or would encode otherwise than the model was trained with.
    """
    source = args.model_name_or_path
    if checkpoint_dir is not None and (Path(checkpoint_dir) / "tokenizer_config.json").is_file():
        source = checkpoint_dir
    tokenizer = read_tokenizer(args, source)
    directory = directory_of(source, args.cache_dir)
    model = model_file(directory) if directory is not None and tokenizer.is_fast else None
    try:
        if model is not None:
            follow_model(tokenizer, model)
        repair_special_tokens(tokenizer, config)
    except ValueError as error:
        raise ModelError(f"cannot use the tokenizer of {source}: {error}.") from error
    keep_settings(tokenizer)
    return tokenizer


def read_tokenizer(args: Any, source: str) -> Any:
    """The tokenizer of a directory or hub name as transformers reads it; refused where there is no vocabulary."""
    from transformers import AutoTokenizer

    directory = directory_of(source, args.cache_dir)
    if directory is not None and model_file(directory) is not None:
        # What cannot be read as SentencePiece the library takes for tiktoken's, and warns and advises accordingly.
        reason = vocabulary_reason(directory)
        if reason is not None:
            raise ModelError(f"cannot load the tokenizer of {source}: {reason}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **hub_options(args))
    except Exception as error:  # the library behind it, tokenizers, raises no other kind
        raise ModelError(cannot_load_tokenizer(source, error, args.cache_dir)) from error
    directory, names = directory_of(source, args.cache_dir), set(tokenizer.vocab_files_names.values())
    reason = directory and no_vocabulary_reason(names and names | {"tekken.json"}, directory)
    if reason:  # some classes begin with an empty vocabulary then
        raise ModelError(f"cannot load the tokenizer of {source}: {reason}")
    return tokenizer
