"""The base model as it is stored: its config and its weights, at 4, 8, 16 or 32 bits, on their device.

    config = load_config(weights, hub_options(model_arguments, cache_dir))
    model = load_base_model(model_arguments, training, weights, config)

What cannot be loaded is a `ModelError` with the reason, as far as `training.model.files` finds it.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from arguments.model import ModelArguments
from arguments.training import TrainingArguments
from common.errors import FailedRunError, ModelError
from common.forward import has_position_table
from common.outputs import ADAPTER_CONFIG, CONFIG
from training.model.device import device_options
from training.model.files import cannot_load_model, convert_pickles, error_text
from training.model.quantization import (
    check_shapes,
    compute_dtype,
    quantization_config,
    quiet_8bit_layers,
    settle_4bit_layers,
    stored_quantized,
    weight_dtype,
    wrong_shape,
)

# Model types whose packed logits equal the unpacked ones; tests/test_data/batches/test_packing.py proves each.
PACKABLE = (
    "cohere", "gemma", "gemma2", "gemma3_text", "glm4", "gpt2", "gpt_bigcode", "gpt_neox", "gptj", "granite", "llama",
    "mistral", "olmo", "olmo2", "phi", "phi3", "qwen2", "qwen3", "smollm3", "starcoder2",
)  # fmt: skip


def hub_options(model: ModelArguments, cache_dir: str | None) -> dict[str, Any]:
    """Return the keyword arguments of every `from_pretrained`."""
    return {
        "cache_dir": cache_dir,
        "token": True if model.use_auth_token else None,
        "trust_remote_code": model.trust_remote_code,
    }


def load_config(weights: str, options: dict[str, Any]) -> PretrainedConfig:
    """Return the config of a directory or hub name.

    Args:
        options: see `hub_options`.

    Raises:
        ModelError: there is no such model, or none in a form that is read.
    """
    path = Path(weights)
    if path.is_dir() and not (path / CONFIG).is_file():
        raise ModelError(f"--model_name_or_path {weights} is not a model: {no_config_reason(path)}.")
    if any(path.glob("pytorch_model*.bin")) and not any(path.glob("*.safetensors")):
        raise ModelError(
            f"--model_name_or_path {weights} holds its weights as pickles (*.bin), which can run any code and are not "
            f"read. {convert_pickles(weights)}"
        )
    try:
        return AutoConfig.from_pretrained(weights, **options)
    except Exception as error:  # each architecture checks its own settings, or trips over them
        raise ModelError(cannot_load_model(weights, error, options["cache_dir"])) from error


def no_config_reason(directory: Path) -> str:
    """Return what a directory is that has no config.json."""
    if (directory / ADAPTER_CONFIG).is_file():
        return "it holds a LoRA adapter: give the base model that it belongs to"
    below = [path.parent for pattern in (f"*/{CONFIG}", f"snapshots/*/{CONFIG}") for path in directory.glob(pattern)]
    return f"it has no {CONFIG}" + (f"; there is one in {min(below)}" if below else "")


def context_of(config: PretrainedConfig) -> int | None:
    """Return how many tokens a model was made for, as far as its config says."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def check_context(config: PretrainedConfig, name: str, options: dict[str, Any], source: int, answer: int) -> None:
    """Say where rows may be longer than what the model was made for, and refuse where it has no place for them.

    Args:
        name: of the model.
        options: see `hub_options`.
        source, answer: tokens of the longest source and of the longest answer.

    Raises:
        ModelError: the positions are a learned table (GPT-2, OPT, …), which ends there.
    """
    context, longest = context_of(config), source + answer
    if context is None or longest <= context:
        return
    flags = f"--source_max_len {source} and answers of up to {answer} tokens"
    if has_position_table(build_skeleton(config, name, options)):
        raise ModelError(
            f"{flags} make {longest:,} tokens; {name} has {context:,} positions and fails beyond. "
            f"Try --source_max_len {max(context - answer, 1)}, or a smaller --target_max_len and --max_new_tokens."
        )
    print(f"note: {flags} make {longest:,} tokens; this model was made for {context:,}.")


def check_packable(model_type: str) -> None:
    """Refuse --packing for an architecture in which packed rows might see one another.

    Raises:
        ModelError: naming it, and those that are known to keep rows apart.
    """
    if model_type not in PACKABLE:
        raise ModelError(
            f"--packing with a model of type {model_type}: it is not known to keep packed rows apart, and where they "
            f"see one another training goes wrong in silence. Leave --packing out. Known are: {', '.join(PACKABLE)}."
        )


def build_skeleton(config: PretrainedConfig, name: str, options: dict[str, Any]) -> PreTrainedModel:
    """Return the causal language model of a config with its layers and no weights, in a moment."""
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=options["trust_remote_code"])
    except Exception as error:  # as where the weights are read
        raise ModelError(cannot_load_model(name, error, options["cache_dir"])) from error


def load_base_model(
    model: ModelArguments, training: TrainingArguments, weights: str, config: PretrainedConfig
) -> PreTrainedModel:
    """Return the causal language model at --bits, frozen, in evaluation-ready form on its device.

    Args:
        weights: a directory or hub name.

    Raises:
        ModelError: the weights are not those of the config, or not in the bits that are asked for.
        FailedRunError: the GPU has too little memory for them.
    """
    options = hub_options(model, training.cache_dir) | device_options(training, model.device_map)
    options |= {"dtype": weight_dtype(training), "use_safetensors": True}
    if not stored_quantized(training, config, weights) and training.bits in (4, 8):
        options["quantization_config"] = quantization_config(training)
    if training.bits == 8:
        quiet_8bit_layers()
    loaded = read_weights(weights, training.bits, config=config, **options)
    if training.bits == 4:
        settle_4bit_layers(loaded, compute_dtype(training))
    return loaded.requires_grad_(False)


def read_weights(weights: str, bits: int, **options: Any) -> PreTrainedModel:
    """Return the model of `from_pretrained`, which would leave a weight that is missing or of another shape random."""
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # which are then refused by name
    try:
        model, info = AutoModelForCausalLM.from_pretrained(weights, **options)
    except torch.OutOfMemoryError as error:
        raise FailedRunError(
            f"the GPU has too little memory for {weights} at {bits} bits: {error_text(error)}\n"
            "Try --bits 4, a smaller model, or a larger --max_memory_MB."
        ) from error
    except Exception as error:  # each architecture trips in its own way over a config or weights that are not its own
        raise ModelError(cannot_load_model(weights, error, options["cache_dir"])) from error
    for name, shape, expected in sorted(info["mismatched_keys"]):
        raise wrong_shape(weights, name, shape, expected)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"{weights} lacks {len(missing)} weights of a {type(model).__name__}, {missing[0]} among them."
        )
    check_shapes(model, weights)
    return model
