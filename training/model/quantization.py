"""In how many bits weights are held, and in which type products are computed.

    quantization_config(training)     # bitsandbytes' settings: NF4, constants quantized too

Source: https://arxiv.org/abs/2305.14314
"""

import logging

import torch
from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel

from arguments.training import TrainingArguments
from common.errors import ModelError


def compute_dtype(training: TrainingArguments) -> torch.dtype:
    """Return what matrix products are computed in."""
    return torch.float16 if training.fp16 else torch.bfloat16 if training.bf16 else torch.float32


def weight_dtype(training: TrainingArguments) -> torch.dtype:
    """Return what weights that are not quantized are held in.

    With fp16, everything that trains stays in fp32: the gradient scaler cannot unscale fp16 gradients.
    """
    if training.bits == 32:
        return torch.float32
    if training.bits == 16 and training.fp16:
        return torch.float32 if training.full_finetune else torch.float16
    return torch.bfloat16 if training.bits == 16 or training.bf16 else torch.float32


def quantization_config(training: TrainingArguments) -> BitsAndBytesConfig | None:
    """Return the bitsandbytes settings for --bits, or None where weights are not quantized."""
    if training.bits == 4:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_compute_dtype=compute_dtype(training),
            bnb_4bit_use_double_quant=training.double_quant,
            bnb_4bit_quant_type=training.quant_type,
        )
    return BitsAndBytesConfig(load_in_8bit=True) if training.bits == 8 else None


def stored_quantized(training: TrainingArguments, config: PretrainedConfig, weights: str) -> bool:
    """Return whether a checkpoint is quantized already, as asked, so that no other config may be passed.

    Raises:
        ModelError: it is quantized in another way than the flags ask.
    """
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return False
    stored = stored if isinstance(stored, dict) else stored.to_dict()
    bits = 4 if stored.get("load_in_4bit") else 8 if stored.get("load_in_8bit") else None
    if bits is None or training.full_finetune:
        kind = f"{bits}-bit" if bits else stored.get("quant_method", "otherwise quantized")
        flags = f"--bits {training.bits}" + (" --full_finetune" if training.full_finetune else "")
        raise ModelError(f"{flags} with {weights}, which holds {kind} weights: use the original, unquantized model.")
    values = {"bits": (training.bits, bits)}
    if bits == training.bits == 4:
        values["quant_type"] = (training.quant_type, stored.get("bnb_4bit_quant_type", "fp4"))
        values["double_quant"] = (training.double_quant, stored.get("bnb_4bit_use_double_quant", False))
    for flag, (asked, value) in values.items():
        if asked != value:
            raise ModelError(
                f"--{flag} {asked} with {weights}, whose weights were stored with --{flag} {value}: use --{flag} "
                f"{value}, or the original model."
            )
    return True


def quiet_8bit_layers() -> None:
    """Leave out that each 8-bit layer says that it computes in fp16, as all of them do."""
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)


def settle_4bit_layers(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Let every 4-bit layer compute in `dtype`, with the same kernel in training and evaluation, on every processor."""
    from bitsandbytes.nn import Linear4bit

    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.compute_dtype = dtype  # a checkpoint stored in 4 bits has its own
            # On a CPU with AVX512-BF16 the first evaluation would repack the weights, for good, for a kernel that
            # rounds to bfloat16 and has no backward: training after it would pass no gradient through the layer.
            layer.support_avx512bf16_for_cpu = False


def wrong_shape(weights: str, name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> ModelError:
    """Return the error about a weight that has another shape than config.json says."""
    return ModelError(
        f"cannot load the base model {weights}: {name} is {tuple(shape)}, by config.json {tuple(expected)}."
    )


def check_shapes(model: PreTrainedModel, weights: str) -> None:
    """Refuse quantized layers of another shape than the config says; the library compares only the others."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    for name, layer in model.named_modules():
        if isinstance(layer, (Linear4bit, Linear8bitLt)):
            state = getattr(layer.weight, "quant_state", None)
            shape = tuple(layer.weight.shape if state is None else state.shape)
            expected = (layer.out_features, layer.in_features)
            if shape != expected:
                raise wrong_shape(weights, name, shape, expected)
