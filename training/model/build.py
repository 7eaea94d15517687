"""Base model in, model ready to train out.

    base = read_base(model_arguments, data, training, max_new_tokens=256, checkpoint=None)   # config and tokenizer
    model = build_model(model_arguments, training, base, checkpoint=None)                    # weights and adapters

Config and tokenizer come first: the data needs them, and what does not fit is refused before weights load.
"""

from dataclasses import dataclass

import torch
from peft import PeftModel
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from arguments.data import DataArguments
from arguments.model import ModelArguments
from arguments.training import TrainingArguments
from common.forward import on_one_device
from training.checkpoint.find import check_whole_model
from training.model.base import (
    build_skeleton,
    check_context,
    check_packable,
    context_of,
    hub_options,
    load_base_model,
    load_config,
)
from training.model.lora import add_adapters, check_optimizer_targets, lora_targets
from training.model.quantization import weight_dtype
from training.model.tokenizer import (
    align_model_with_tokenizer,
    load_tokenizer,
    pad_token_for,
    smart_tokenizer_and_embedding_resize,
)
from training.shortcuts.lora_step import join_steps


@dataclass(frozen=True)
class Base:
    """What is known of a base model in a moment, before its weights load: all that the data needs.

    Attributes:
        weights: where they are, a directory or a name on the hub.
    """

    weights: str
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase

    @property
    def context(self) -> int | None:
        """How many tokens the model was made for, or None."""
        return context_of(self.config)


def read_base(
    model: ModelArguments, data: DataArguments, training: TrainingArguments, max_new_tokens: int, checkpoint: str | None
) -> Base:
    """Read config and tokenizer, and refuse what does not go with this model before its weights load.

    Args:
        max_new_tokens: of a generated answer.
        checkpoint: a checkpoint or a finished output directory whose weights are used, or None.

    Raises:
        ModelError: no such model, sources and targets longer than its context, names of layers that it does not have,
            or --packing with an architecture that is not known to keep packed rows apart.
        CheckpointError: the checkpoint holds other weights than the flags ask for.
    """
    name, options = model.model_name_or_path, hub_options(model, training.cache_dir)
    weights = name
    if training.full_finetune and checkpoint is not None:  # a whole model that was tuned
        check_whole_model(checkpoint)
        weights = checkpoint
    config = load_config(weights, options)
    if training.do_train or training.do_eval or training.do_predict:
        answer = max(data.target_max_len, max_new_tokens if training.do_predict else 0)
        check_context(config, name, options, data.source_max_len, answer)
    check_layer_names(config, training, name, options)
    if training.packing and training.do_train:
        check_packable(config.model_type)
    return Base(weights, config, load_tokenizer(name, checkpoint, config, options))


def check_layer_names(config: PretrainedConfig, training: TrainingArguments, name: str, options: dict) -> None:
    """Refuse flags that name layers which the model does not have, by a model without weights.

    Raises:
        ModelError: --lora_modules or --optim_target_modules matches no linear layer.
    """
    for_lora = not training.full_finetune and training.lora_modules.strip() != "all"
    for_optimizer = training.optim_target_modules not in (None, "all-linear", "all_linear")
    if not for_lora and not for_optimizer:
        return
    skeleton = build_skeleton(config, name, options)
    if for_lora:
        lora_targets(skeleton, 16, training.lora_modules, name)  # of which no layer is quantized
    if for_optimizer:
        check_optimizer_targets(skeleton, training.optim_target_modules)


def build_model(
    model: ModelArguments, training: TrainingArguments, base: Base, checkpoint: str | None
) -> PeftModel | PreTrainedModel:
    """Load the base model at --bits, and the LoRA adapters (or all weights) to train.

    Args:
        checkpoint: a checkpoint or a finished output directory whose weights to go on with, or None to start.

    Returns:
        A `PeftModel`, or the plain model with --full_finetune.

    Raises:
        ModelError: weights in a form that is not supported.
        CheckpointError: the checkpoint holds other weights than the flags ask for.
        FailedRunError: the GPU has too little memory for the model.
    """
    loaded = load_base_model(model, training, base.weights, base.config)
    smart_tokenizer_and_embedding_resize({"pad_token": pad_token_for(base.tokenizer)}, base.tokenizer, loaded)
    align_model_with_tokenizer(loaded, base.tokenizer)
    if not training.full_finetune:
        tuned = add_adapters(loaded, training, model.model_name_or_path, checkpoint)
        # Weights that others move around a forward pass are not there in the backward pass.
        if on_one_device(loaded) and not (training.fsdp or training.deepspeed):
            join_steps(tuned)
        return tuned
    if weight_dtype(training) == torch.bfloat16:
        print(
            "note: the weights are trained in bfloat16, where a change below 1/256 of a weight is lost; "
            "--bits 32 (with --bf16 for speed) keeps every change."
        )
    return loaded.requires_grad_(True)
