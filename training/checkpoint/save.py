"""How weights are saved: each checkpoint sealed when it is whole, the final ones read back before the run is completed.

    trainer.add_callback(SavePeftModelCallback(flags, save_total_limit=40))
    save_final(trainer, "output/mine", flags)

The mark of a completed run is written last.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from common.errors import SavingError
from common.files import write_json
from common.outputs import CHECKPOINT, COMPLETED, MANIFEST
from training.checkpoint.find import checkpoints_in
from training.checkpoint.manifest import write_manifest


class SavePeftModelCallback(TrainerCallback):
    """Seals each checkpoint once all of it is on disk, and only then deletes those beyond `--save_total_limit`.

    The trainer has already written the adapter in PEFT's layout. An adapter with a weight that is not finite is left
    unsealed, so that a run never goes on from it.

    Args:
        flags: what the manifest records; see `training.checkpoint.same_run.recorded_flags`.
        save_total_limit: checkpoints to keep; None for all.
    """

    def __init__(self, flags: Mapping[str, Any] | None = None, save_total_limit: int | None = None):
        self.flags, self.save_total_limit = dict(flags or {}), save_total_limit

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PeftModel | PreTrainedModel | None = None,
        **kwargs: Any,
    ):
        """Seal the checkpoint that the trainer has written."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # every process writes its own random state
        if not state.is_world_process_zero:
            return control
        bad = next((n for n, p in model.named_parameters() if p.requires_grad and not p.isfinite().all()), None)
        if bad is not None:
            raise SavingError(f"at step {state.global_step} the weight {bad} is no longer finite: training diverged.")
        checkpoint = Path(args.output_dir) / f"{CHECKPOINT}{state.global_step}"
        write_manifest(checkpoint, state.global_step, self.flags)
        self.rotate(checkpoint, state.best_model_checkpoint)
        return control

    def rotate(self, newest: Path, best: str | None) -> None:
        """Delete the oldest sealed checkpoints beyond the limit; whatever else lies there is not ours to delete."""
        if self.save_total_limit is None:
            return
        spared = {newest} | ({Path(best)} if best else set())
        sealed = [path for path in checkpoints_in(newest.parent) if (path / MANIFEST).is_file() and path not in spared]
        for checkpoint in sealed[max(self.save_total_limit - len(spared), 0) :]:
            shutil.rmtree(checkpoint)


def save_final(trainer: Trainer, output_dir: str, flags: Mapping[str, Any]) -> None:
    """Write the tuned weights and tokenizer to the output directory, read them back, and mark the run completed.

    Raises:
        SavingError: what was read back differs from the weights in memory.
    """
    trainer.save_model(output_dir, _internal_call=True)  # else it would push, with a blank card
    trainer.save_state()
    if trainer.is_world_process_zero():
        check_reads_back(trainer.accelerator.unwrap_model(trainer.model), Path(output_dir))
        mark = {"global_step": trainer.state.global_step, "flags": dict(flags)}
        write_json(Path(output_dir) / COMPLETED, mark)


def check_reads_back(model: PeftModel | PreTrainedModel, directory: Path) -> None:
    """Compare the weights on disk with those in memory, one by one.

    Raises:
        SavingError: there is nothing to compare, or a weight is missing or differs.
    """
    is_adapter = isinstance(model, PeftModel)
    if is_adapter:
        memory = get_peft_model_state_dict(model, save_embedding_layers=model.embeddings_resized)
    else:
        memory = model.state_dict()
    compared: set[str] = set()
    for path in sorted(directory.glob("adapter_model*.safetensors" if is_adapter else "model*.safetensors")):
        compared |= compare_file(path, memory)
    missing = sorted(memory.keys() - compared) if is_adapter else []
    if missing or not compared:
        raise SavingError(f"{missing[0] if missing else 'every weight'} is missing from {directory} after saving.")
    if is_adapter and not any("lora_" in name for name in compared):
        raise SavingError("the adapter holds no LoRA weight: nothing was trained.")


def compare_file(path: Path, memory: Mapping[str, torch.Tensor]) -> set[str]:
    """Return the names of the weights in a file, which are all as in `memory`. Raises SavingError where one is not."""
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys()) & memory.keys()  # tied weights are stored once
            for name in names:
                if not torch.equal(file.get_tensor(name), memory[name].detach().cpu()):
                    raise SavingError(f"{name} differs from what {path} holds after saving; disk full?")
    except SafetensorError as error:
        raise SavingError(f"{path} cannot be read back after saving: {error}; disk full?") from error
    return names
