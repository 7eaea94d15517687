"""LoRA on the linear layers of a base model: which layers, and the adapters on them, fresh or saved.

    targets = lora_targets(model, bits=4, asked="all", name="gpt2")
    model = add_adapters(model, training, name="gpt2", checkpoint=None)

Source: https://arxiv.org/abs/2106.09685
"""

import warnings

from peft import LoraConfig, PeftModel, PeftModelForCausalLM, get_peft_model
from safetensors import SafetensorError
from torch import nn
from transformers.pytorch_utils import Conv1D
from transformers.trainer_utils import check_target_module_exists

from arguments.training import TrainingArguments
from common.errors import CheckpointError, ModelError
from training.checkpoint.find import adapter_directory
from training.checkpoint.same_run import check_same_adapter
from training.model.files import error_text


def linear_classes(bits: int) -> tuple[type, ...]:
    """Return the classes of linear layers at `bits`."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    # GPT-2 keeps its linear layers as Conv1D.
    return {4: (Linear4bit,), 8: (Linear8bitLt,)}.get(bits, (nn.Linear, Conv1D))


def linear_layers(model: nn.Module, bits: int) -> dict[str, nn.Module]:
    """Return full name → linear layer at `bits`, for each but the output head."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    classes = linear_classes(bits)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, classes) and module is not head and name.split(".")[-1] != "lm_head"
    }


def linear_names(model: nn.Module, bits: int) -> list[str]:
    """Return the last parts of the names of the linear layers at `bits`, without the output head, sorted."""
    return sorted({name.split(".")[-1] for name in linear_layers(model, bits)})


def lora_targets(model: nn.Module, bits: int, asked: str, name: str) -> list[str]:
    """Return the layer names that --lora_modules asks for.

    Args:
        asked: the flag's value.
        name: of the model.

    Raises:
        ModelError: a name that matches no linear layer, or a model without any.
    """
    existing = linear_names(model, bits)
    if not existing:
        raise ModelError(f"{name} has no linear layer at {bits} bits to put LoRA on.")
    if asked.strip() == "all":
        return existing
    names = [part.strip() for part in asked.split(",") if part.strip()]
    missing = [part for part in names if part not in existing]
    if missing or not names:
        raise ModelError(
            f"--lora_modules {asked}: no linear layer is called {', '.join(missing) or '(nothing)'}. "
            f"This model has: {', '.join(existing)} (or 'all')."
        )
    return names


def check_optimizer_targets(model: nn.Module, asked: str) -> None:
    """Refuse an --optim_target_modules that matches no linear layer. Raises ModelError."""
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    if not any(check_target_module_exists(asked, name) for name in names):
        raise ModelError(
            f"--optim_target_modules {asked}: no linear layer has a name that is all matched by it. This model has: "
            f"{', '.join(names[:8])}, … (or all-linear)."
        )


def add_adapters(model: nn.Module, training: TrainingArguments, name: str, checkpoint: str | None) -> PeftModel:
    """Attach LoRA: fresh (B = 0, so the model still answers as the base does), or as saved in a checkpoint.

    LoRA weights are held in fp32 whatever the base is held in.

    Args:
        name: of the base model.
        checkpoint: a checkpoint or a finished output directory, or None.

    Raises:
        ModelError: --lora_modules names a layer that there is not.
        CheckpointError: the checkpoint holds another adapter than the flags ask for.
    """
    # PEFT reads a property that transformers renamed; what it reads is still right.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    targets = lora_targets(model, training.bits, training.lora_modules, name)
    if checkpoint is not None:
        directory = adapter_directory(checkpoint)
        if training.do_train:
            check_same_adapter(training, directory, targets)
        return load_adapters(model, str(directory), name)
    is_conv1d = any(isinstance(layer, Conv1D) for layer in linear_layers(model, training.bits).values())
    config = LoraConfig(
        r=training.lora_r,
        lora_alpha=training.lora_alpha,
        lora_dropout=training.lora_dropout,
        target_modules=targets,
        fan_in_fan_out=is_conv1d,  # Conv1D stores its weight transposed
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def load_adapters(model: nn.Module, directory: str, name: str) -> PeftModel:
    """Return the model with the adapter in `directory`, all of it, to be trained further or used.

    Raises:
        CheckpointError: the adapter is damaged, or of another model.
    """
    try:
        config = LoraConfig.from_pretrained(directory)
        config.inference_mode = False
        tuned = PeftModelForCausalLM(model, config)
        # PEFT would leave the parts that the file lacks as if never trained.
        missing = tuned.load_adapter(directory, "default", is_trainable=True).missing_keys
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise does_not_fit(directory, name, error_text(error)[:300]) from error
    if missing:
        raise does_not_fit(directory, name, f"it lacks {len(missing)} weights, {missing[0]} among them")
    return tuned


def does_not_fit(directory: str, name: str, reason: str) -> CheckpointError:
    """Return the error about an adapter that is damaged, or of another base model than `name`."""
    return CheckpointError(
        f"the adapter in {directory} does not fit {name}: {reason}\n"
        "Give the --model_name_or_path that it was trained on, or another --output_dir to start anew."
    )
