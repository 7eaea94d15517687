"""The training arguments, the trainer, and the three steps it drives: train, evaluate, predict.

The trainer is transformers' `Seq2SeqTrainer` with five differences: the loss is computed at supervised positions
only, the evaluation loss is weighted by supervised tokens, evaluation and prediction keep the data set's order,
prediction generates from the prompt alone, and checkpoints are rotated only once the new one is sealed.
"""

import contextlib
import inspect
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import GenerationConfig, Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback, TrainerState
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_pt_utils import LabelSmoother
from transformers.trainer_utils import PredictionOutput

from training.arguments import ArgumentsError, FailedRunError, QLoRAArguments
from training.checkpoint import SavingError, StopOnSignalCallback

IGNORED = LabelSmoother.ignore_index  # transformers' mark for labels that are not supervised
PROMPT = "prompt_"  # the collator's prefix for the left-padded prompts that generation starts from
PLAIN_TWINS = {
    "paged_adamw_32bit": "adamw_torch_fused",
    "paged_adamw_8bit": "adamw_bnb_8bit",
    "paged_lion_32bit": "lion_32bit",
    "paged_lion_8bit": "lion_8bit",
    "paged_ademamix_32bit": "ademamix",
    "paged_ademamix_8bit": "ademamix_8bit",
}


@dataclass
class TrainingArguments(QLoRAArguments, Seq2SeqTrainingArguments):
    """`Seq2SeqTrainingArguments` with the flags and defaults of this tool, fitted to the machine it runs on."""

    def __post_init__(self):
        QLoRAArguments.__post_init__(self)
        self.use_8bit_adam()
        if torch.cuda.is_available() and not self.use_cpu:
            self.fit_to_gpu()
        else:
            self.fit_without_cuda()
        try:
            Seq2SeqTrainingArguments.__post_init__(self)
        except ValueError as error:
            raise ArgumentsError(str(error)) from error
        self._n_gpu = min(self._n_gpu, 1)  # one process, one device: never DataParallel

    def use_8bit_adam(self) -> None:
        if self.adam8bit:
            self.optim = "paged_adamw_8bit"

    def fit_to_gpu(self) -> None:
        if self.fp16 and torch.cuda.is_bf16_supported(including_emulation=False):
            print("note: this GPU computes in bfloat16: --bf16 is as fast as --fp16 and needs no loss scaling.")

    def fit_without_cuda(self) -> None:
        """Give each setting that needs CUDA its nearest equivalent, and say so in one line each."""
        optim = str(getattr(self.optim, "value", self.optim))
        self.optim = PLAIN_TWINS.get(optim, optim)
        changed = f"; optimizer {optim} → {self.optim}" if self.optim != optim else ""
        if self.tf32:
            print("note: --tf32 has no effect without an NVIDIA GPU.")
            self.tf32 = None
        if torch.accelerator.is_available() and not self.use_cpu:
            device = torch.accelerator.current_accelerator().type
            print(f"note: running on {device}, without CUDA{changed}; --max_memory_MB does not apply.")
            return
        self.use_cpu = True
        print(f"note: running on the CPU{changed}; --max_memory_MB does not apply.")
        if self.bf16:
            print("note: --bf16 on a CPU without bfloat16 units is slower than fp32, the default.")
        if self.fp16:
            raise ArgumentsError(
                "--fp16 without a CUDA GPU: fp16 products on a CPU are over 20 times slower than fp32. "
                "Leave --fp16 out (fp32), or try --bf16."
            )


def supervised_only(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Ask the model for logits at supervised positions only, so that full logits are never held.

    Args:
        inputs: `input_ids`, `attention_mask` and `labels`, each (batch, length).

    Returns:
        The inputs with `logits_to_keep`, a boolean mask (batch, length) of the positions whose next token is
        supervised, and `labels` = `shift_labels`, the tokens to predict there (number of True). The model then
        gives logits (number of True, vocabulary), and its own loss function is right as it is.
    """
    following = nn.functional.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED)  # (batch, length)
    keep = following != IGNORED
    targets = following[keep]
    return {**inputs, "logits_to_keep": keep, "labels": targets, "shift_labels": targets}


def row_losses(logits: torch.Tensor, kept: dict[str, torch.Tensor]) -> torch.Tensor:
    """Summed loss and number of supervised tokens of each row.

    Args:
        logits: (number of True in `logits_to_keep`, vocabulary).
        kept: the inputs that `supervised_only` made.

    Returns:
        (batch, 2) tensor of loss sums in nats, and counts.
    """
    mask = kept["logits_to_keep"]
    mask, labels = mask.to(logits.device), kept["labels"].to(logits.device)
    losses = nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    rows = mask.nonzero()[:, 0]  # row of each kept position
    sums = torch.zeros(len(mask), device=losses.device).index_add_(0, rows, losses)
    return torch.stack([sums, mask.sum(dim=1).float()], dim=1)


def takes_logits_to_keep(model: nn.Module) -> bool:
    """Whether the forward pass of a (PEFT-wrapped) model can skip the head where nothing is supervised."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    parameters = inspect.signature(base.forward).parameters
    return "logits_to_keep" in parameters and any(p.kind is p.VAR_KEYWORD for p in parameters.values())


class QLoRATrainer(Seq2SeqTrainer):
    """`Seq2SeqTrainer` for causal language models on rows of source and target; see the module's first lines."""

    def __init__(self, *args: Any, generation: GenerationConfig, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.generation = generation
        self.generating = False
        self.saved_limit = self.args.save_total_limit
        self.skips_head = (
            takes_logits_to_keep(self.model)
            and len(set((getattr(self.model, "hf_device_map", None) or {}).values())) <= 1
            and not self.args.label_smoothing_factor
            and not self.args.use_liger_kernel
        )
        self.pop_callback(ProgressCallback)
        if not self.args.disable_tqdm:
            self.add_callback(LogLineCallback)

    # ---- loss ----

    def compute_loss(self, model: nn.Module, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        inputs = {name: value for name, value in inputs.items() if not name.startswith(PROMPT)}
        return super().compute_loss(model, supervised_only(inputs) if self.skips_head else inputs, *args, **kwargs)

    # ---- evaluation and prediction ----

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        # The library reorders evaluation too when training is grouped by length.
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], prediction_loss_only: bool, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, Any, None]:
        """Losses by row, and while predicting the new tokens too.

        Returns:
            (mean loss of the batch, (batch, 2) loss sums and token counts [, (batch, new tokens) generated], None)
        """
        inputs = self._prepare_inputs(inputs)
        text = {name: value for name, value in inputs.items() if not name.startswith(PROMPT)}
        kept = supervised_only(text)
        asked = {name: kept[name] for name in kept if name not in ("labels", "shift_labels")}
        if not self.skips_head:
            asked.pop("logits_to_keep")
        with torch.no_grad(), self.accelerator.autocast():
            logits = model(**asked).logits
            logits = logits if self.skips_head else logits[kept["logits_to_keep"].to(logits.device)]
            by_row = row_losses(logits, kept)
            outputs = (by_row, self.generate_from(inputs)) if self.generating else by_row
        return by_row[:, 0].sum() / by_row[:, 1].sum(), outputs, None

    def generate_from(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Continue the left-padded prompts; gives the new tokens alone, (batch, at most max_new_tokens)."""
        prompts = inputs[f"{PROMPT}input_ids"]
        model = self.accelerator.unwrap_model(self.model)
        written = model.generate(
            input_ids=prompts,
            attention_mask=inputs[f"{PROMPT}attention_mask"],
            generation_config=self.generation,
        )
        return written[:, prompts.shape[1] :]

    def evaluation_loop(self, dataloader: Any, description: str, *args: Any, **kwargs: Any) -> Any:
        """The library's loop, with the loss weighted by supervised tokens whatever the batch size and world size."""
        kwargs["prediction_loss_only"] = False
        prefix = kwargs.get("metric_key_prefix", "eval")
        output = super().evaluation_loop(dataloader, description, *args, **kwargs)
        # Processes repeat rows to fill their last batch; the surplus comes at the end.
        parts = output.predictions if isinstance(output.predictions, tuple) else (output.predictions,)
        parts = [part[: output.num_samples] for part in parts]
        loss_sum, tokens = parts[0].sum(axis=0, dtype="float64")
        output.metrics[f"{prefix}_loss"] = loss = float(loss_sum / tokens)
        output.metrics[f"{prefix}_perplexity"] = math.exp(min(loss, 700.0))  # exp(710) overflows
        output.metrics[f"{prefix}_supervised_tokens"] = int(tokens)
        output.metrics.pop(f"{prefix}_model_preparation_time", None)
        return output._replace(predictions=parts[1] if len(parts) > 1 else None)

    def predict(self, test_dataset: Any, *args: Any, **kwargs: Any) -> PredictionOutput:
        """As the library's; `predictions` holds the generated token ids, (rows, longest), filled up with −100."""
        self.generating = True
        try:
            return super().predict(test_dataset, *args, **kwargs)
        finally:
            self.generating = False

    # ---- saving ----

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        model = self.accelerator.unwrap_model(self.model)
        with failing_as(SavingError, f"{output_dir} could not be written", OSError, SafetensorError):
            if not hasattr(model, "peft_config"):
                super()._save(output_dir, state_dict)
            elif self.args.should_save:
                # Left to itself PEFT asks the hub whether the embeddings grew; here it is known.
                model.save_pretrained(output_dir, state_dict=state_dict, save_embedding_layers=model.embeddings_resized)
                Path(output_dir, "README.md").unlink(missing_ok=True)  # PEFT's blank form; ours is written at the end
                self.processing_class.save_pretrained(output_dir)
            if self.args.should_save:
                share_weights(Path(output_dir))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        # `SavePeftModelCallback` rotates after it has sealed the new checkpoint, never before.
        self.args.save_total_limit = None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = self.saved_limit

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Nothing: `get_accelerate_model` has loaded the weights of the checkpoint.

        The library would load an older layout's `adapter_model/` as a second adapter that is not active.
        """


def share_weights(directory: Path) -> None:
    """Give weight files, which safetensors writes for their owner alone, the permissions of any other new file."""
    umask = os.umask(0)
    os.umask(umask)
    for path in directory.glob("*.safetensors"):
        path.chmod(0o666 & ~umask)


class LogLineCallback(ProgressCallback):
    """The library's progress bars, with one short line for each log entry."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any):
        if not state.is_world_process_zero or self.training_bar is None or not logs:
            return
        hidden = ("epoch", "total_flos", "runtime", "per_second", "supervised_tokens")
        shown = [f"{name} {value:.4g}" for name, value in logs.items() if not name.endswith(hidden)]
        self.training_bar.write(f"step {state.global_step}/{state.max_steps}  {'  '.join(shown)}")


class DivergedError(FailedRunError):
    """The loss is no longer a finite number."""


class WatchLossCallback(TrainerCallback):
    """Logs the last step too, and ends a run whose loss is not finite: every later step would be wasted."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any):
        control.should_log |= state.global_step >= state.max_steps
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any):
        bad = {name: value for name, value in (logs or {}).items() if name in ("loss", "eval_loss")}
        bad = {name: value for name, value in bad.items() if not math.isfinite(value)}
        for name, value in bad.items():
            raise DivergedError(
                f"the {name} is {value} at step {state.global_step}: training diverged. Lower --learning_rate "
                f"({args.learning_rate:g}), or use --bf16 instead of --fp16. Earlier checkpoints are kept."
            )


def build_trainer(
    model: Any, tokenizer: Any, args: TrainingArguments, generation: Any, data_module: dict
) -> QLoRATrainer:
    """A trainer for the data sets and collator of `data_module`; `generation` are the GenerationArguments."""
    config = GenerationConfig(
        **generation.options(),
        eos_token_id=model.generation_config.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    if args.ddp_find_unused_parameters is None and not any("expert" in name for name, _ in model.named_modules()):
        args.ddp_find_unused_parameters = False  # without experts to choose from, every weight takes part in each step
    return QLoRATrainer(
        model=model,
        args=args,
        train_dataset=data_module["train_dataset"],
        eval_dataset=data_module["eval_dataset"],
        data_collator=data_module["data_collator"],
        processing_class=tokenizer,
        generation=config,
    )


def train_model(trainer: QLoRATrainer, checkpoint: str | None) -> tuple[dict[str, Any], int | None]:
    """Train to the end, going on from `checkpoint` where there is one.

    Returns:
        (metrics, signal): the training metrics, and the signal that stopped the run early, or None.

    Raises:
        DivergedError: the loss became infinite or not a number.
        FailedRunError: there was nothing to train on.
    """
    stop = StopOnSignalCallback()
    trainer.add_callback(stop)
    trainer.add_callback(WatchLossCallback)
    metrics: dict[str, Any] = {}
    if checkpoint is not None:
        trainer.args.eval_on_start = False  # the run did that when it started
        trainer.state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
    *_, total = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())
    # The library would train one step more from a checkpoint of the last step.
    if checkpoint is None or trainer.state.global_step < total:
        with stop:
            metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
    if trainer.state.global_step == 0 and stop.signum is None:
        raise FailedRunError(
            "not one step was trained: the training rows do not fill a batch. Lower --per_device_train_batch_size, or "
            "leave --dataloader_drop_last out."
        )
    return {**metrics, **learning_curve(trainer.state)}, stop.signum


@contextlib.contextmanager
def failing_as(kind: type[Exception], message: str, *errors: type[Exception]):
    """Turn `errors` into `kind` with a message for the user."""
    try:
        yield
    except errors as error:
        raise kind(f"{message}: {error}") from error


@contextlib.contextmanager
def explaining_memory(args: TrainingArguments):
    """Turn an out-of-memory error, wherever it comes, into advice.

    Raises:
        FailedRunError: the GPU has too little memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise FailedRunError(out_of_memory(args, error)) from error


def out_of_memory(args: TrainingArguments, error: Exception) -> str:
    return (
        f"the GPU has too little memory: {str(error).splitlines()[0]}\n"
        f"Try, in this order: --per_device_train_batch_size 1 (now {args.per_device_train_batch_size}) with more "
        "--gradient_accumulation_steps, shorter --source_max_len and --target_max_len, --gradient_checkpointing, "
        "--bits 4, a larger --max_memory_MB."
    )


def learning_curve(state: TrainerState) -> dict[str, Any]:
    """First and last logged loss, and the evaluation loss before training, from the trainer's history."""
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    before = [entry["eval_loss"] for entry in state.log_history if entry["step"] == 0 and "eval_loss" in entry]
    curve = {"train_steps": state.global_step}
    if losses:
        curve |= {"train_loss_first": losses[0], "train_loss_last": losses[-1]}
    if before:
        curve["eval_loss_before"] = before[0]
    return curve
