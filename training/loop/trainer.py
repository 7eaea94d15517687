"""The training arguments, the trainer, and the three steps it drives: train, evaluate, predict.

The trainer is transformers' `Seq2SeqTrainer` with six differences: the loss is computed at supervised positions only,
an optimizer step may come as one list of micro-batches, losses are weighted by supervised tokens for every model,
evaluation and prediction keep the data set's order, prediction generates from the prompt alone, and checkpoints are
rotated only once the new one is sealed.
"""

import contextlib
import copy
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import DataLoader, SequentialSampler
from transformers import GenerationConfig, Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerState
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import PredictionOutput, seed_worker

from arguments.declare import ArgumentsError, require
from arguments.training import QLoRAArguments
from common.errors import FailedRunError, failing_as
from training.checkpoint.checkpoint import SavingError
from training.loop.callbacks import LogLineCallback, StopOnSignalCallback, WatchLossCallback
from training.loop.loss import row_losses, supervised_logits, supervised_only, supervised_tokens, takes_logits_to_keep
from training.loop.steps import Step, StepSampler, all_tokens, check_packing, rows_in
from training.model.tokenizer import restore_settings

LOADER_OPTIONS = (
    "num_workers", "pin_memory", "persistent_workers", "multiprocessing_context", "prefetch_factor", "in_order",
)  # fmt: skip
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
        except (ValueError, TypeError, ImportError, OverflowError) as error:
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
        changed = f"; optimizer {optim} → {self.optim}" if self.optim != optim and self.do_train else ""
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
        for name in ("fp16", "fp16_full_eval"):
            require(
                not getattr(self, name),
                f"--{name} without a CUDA GPU: fp16 products on a CPU are over 20 times slower than fp32. "
                f"Leave --{name} out (fp32), or try --{name.replace('fp16', 'bf16')}.",
            )
        require(not self.use_liger_kernel, "--use_liger_kernel without a GPU: its kernels run on GPUs. Leave it out.")
        require(not self.fsdp, "--fsdp without GPUs: the library shards no model on CPUs. Leave it out.")
        require(self.ddp_backend != "nccl", "--ddp_backend nccl without NVIDIA GPUs: use --ddp_backend gloo.")
        require(
            not self.activation_checkpointing_kwargs.get("offload"),
            "--activation_checkpointing_kwargs with offload: there is no GPU to take activations from. Leave it out.",
        )


class QLoRATrainer(Seq2SeqTrainer):
    """`Seq2SeqTrainer` for causal language models on rows of source and target; see the module's first lines.

    Args:
        generation: how prediction writes text.
        step_collator: makes a list of micro-batches of the rows of an optimizer step, or None, where training takes
            batches of the `data_collator` as the library does. With it, the library counts a step as one batch.

    Attributes:
        measure_answers: (rows, generated ids, prefix) → metrics, for an evaluation that generates answers too.
        row_losses: (rows, 2), sums of losses and supervised tokens of each row that was evaluated last.
    """

    measure_answers: Callable[[Any, Any, str], dict[str, float]] | None = None
    row_losses: Any = None

    def __init__(self, *args: Any, generation: GenerationConfig, step_collator: Any = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.generation = generation
        self.generating = self.measuring = False
        self._loss_shifts_labels = True  # as every causal model's does; the library does not know it of GPT-2
        # Of a model that gives the mean loss of a micro-batch whatever it is told: `compute_loss` weights it.
        self.loss_is_scaled_for_ga = None if self.model_accepts_loss_kwargs else True
        self.step_tokens: torch.Tensor | None = None  # those supervised in this step, for `compute_loss`
        self.step_collator = step_collator
        self.packing_checked = not self.args.packing
        self.saved_limit = self.args.save_total_limit
        self.skips_head = (
            takes_logits_to_keep(self.model)
            and len(set((getattr(self.model, "hf_device_map", None) or {}).values())) <= 1
            and not self.args.label_smoothing_factor
            and not self.args.use_liger_kernel
        )
        self.pop_callback(ProgressCallback)
        self.bars = LogLineCallback()
        if not self.args.disable_tqdm:
            self.add_callback(self.bars)

    # ---- loss ----

    def compute_loss(self, model: nn.Module, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        inputs = {name: value for name, value in inputs.items() if not name.startswith(PROMPT)}
        tokens = supervised_tokens(inputs)
        loss = super().compute_loss(model, supervised_only(inputs) if self.skips_head else inputs, *args, **kwargs)
        return loss * (tokens / self.step_tokens).to(loss.device) if self.loss_is_scaled_for_ga else loss

    # ---- steps of several micro-batches ----

    def get_train_dataloader(self) -> DataLoader:
        if self.step_collator is None:
            return super().get_train_dataloader()
        args = self.args
        rows = self.get_total_train_batch_size(args)
        order = self._get_train_sampler()
        sampler = StepSampler(order, rows, rows // self._train_batch_size, args.dataloader_drop_last)
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=sampler,
            collate_fn=self.step_collator,
            worker_init_fn=partial(seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index),
            **{name: getattr(args, f"dataloader_{name}") for name in LOADER_OPTIONS},
        )
        return self.accelerator.prepare(loader)

    def training_step(self, model: nn.Module, inputs: Step | dict[str, torch.Tensor], *args: Any) -> torch.Tensor:
        """Backward through every micro-batch of a step; gives the loss of the step, or of the one batch."""
        if isinstance(inputs, dict):
            return super().training_step(model, inputs, *args)
        if not self.packing_checked and self.any_process(max(map(rows_in, inputs)) > 1):
            with self.accelerator.autocast():
                check_packing(self.model, inputs, self.skips_head, self.args)
            self.packing_checked = True
        self.current_gradient_accumulation_steps = len(inputs)
        losses = []
        for number, batch in enumerate(inputs, 1):
            last = number == len(inputs)
            self.accelerator.gradient_state._set_sync_gradients(last)
            # Processes may have different numbers of micro-batches: they meet in the last one alone.
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                losses.append(super().training_step(model, batch, *args))
        return torch.stack(losses).sum()

    def any_process(self, found: bool) -> bool:
        return bool(self.accelerator.gather(torch.tensor([found], device=self.args.device)).any())

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Any:
        if self.step_collator is not None:
            batch_samples = [batch for step in batch_samples for batch in step]
        if self.loss_is_scaled_for_ga and batch_samples:
            self.step_tokens = sum(supervised_tokens(batch) for batch in batch_samples).to(device)
            if self.args.average_tokens_across_devices:  # as gradients are
                self.step_tokens = self.accelerator.gather(self.step_tokens).float().mean()
        return super()._get_num_items_in_batch(batch_samples, device)

    def floating_point_ops(self, inputs: Step | dict[str, torch.Tensor]) -> int:
        return super().floating_point_ops(all_tokens(inputs) if isinstance(inputs, list) else inputs)

    def _track_num_input_tokens(self, inputs: Step | dict[str, torch.Tensor]) -> None:
        super()._track_num_input_tokens(all_tokens(inputs) if isinstance(inputs, list) else inputs)

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
        with torch.no_grad(), self.accelerator.autocast():
            by_row = row_losses(supervised_logits(model, kept, self.skips_head), kept)
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
            tokenizer=self.processing_class if self.generation.stop_strings else None,
        )
        return written[:, prompts.shape[1] :]

    def evaluation_loop(self, dataloader: Any, description: str, *args: Any, **kwargs: Any) -> Any:
        """The library's loop, with the loss weighted by supervised tokens whatever the batch size and world size."""
        kwargs["prediction_loss_only"] = False
        self.bars.label = prefix = kwargs.get("metric_key_prefix", "eval")
        output = super().evaluation_loop(dataloader, description, *args, **kwargs)
        # Processes repeat rows to fill their last batch; the surplus comes at the end.
        parts = output.predictions if isinstance(output.predictions, tuple) else (output.predictions,)
        self.row_losses, *generated = (part[: output.num_samples] for part in parts)
        loss_sum, tokens = self.row_losses.sum(axis=0, dtype="float64")
        output.metrics[f"{prefix}_loss"] = loss = float(loss_sum / tokens)
        output.metrics[f"{prefix}_perplexity"] = math.exp(min(loss, 700.0))  # exp(710) overflows
        output.metrics[f"{prefix}_supervised_tokens"] = int(tokens)
        output.metrics.pop(f"{prefix}_model_preparation_time", None)
        if generated and self.measuring:
            output.metrics.update(self.measure_answers(dataloader.dataset, generated[0], prefix))
        return output._replace(predictions=generated[0] if generated else None)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As the library's; with --predict_with_generate answers are generated and measured too."""
        wanted = self.args.evaluation_generates and self.measure_answers is not None
        with self.doing(generating=wanted, measuring=wanted):
            metrics = super().evaluate(*args, **kwargs)
        # While it trains, the library looks up --metric_for_best_model with eval_ before every name.
        best = {f"eval_{name}": value for name, value in metrics.items() if name.startswith("mmlu_")}
        return metrics | best if self.is_in_train else metrics

    def predict(self, test_dataset: Any, *args: Any, **kwargs: Any) -> PredictionOutput:
        """As the library's; `predictions` holds the generated token ids, (rows, longest), filled up with −100."""
        with self.doing(generating=True, measuring=False):
            return super().predict(test_dataset, *args, **kwargs)

    @contextlib.contextmanager
    def doing(self, generating: bool, measuring: bool):
        self.generating, self.measuring = generating, measuring
        try:
            yield
        finally:
            self.generating = self.measuring = False

    def end(self) -> None:
        # The last to let go of a gloo group joins its threads, and must not be DDP's destructor: it holds the GIL, for
        # which such a thread may wait, and the process then never ends.
        self.model_wrapped = self.model
        self.accelerator.free_memory()
        super().end()

    # ---- saving ----

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        model = self.accelerator.unwrap_model(self.model)
        restore_settings(self.processing_class)
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


def build_trainer(
    model: Any, tokenizer: Any, args: TrainingArguments, generation: Any, data_module: dict
) -> QLoRATrainer:
    """A trainer for the data sets and collators of `data_module`; `generation` are the GenerationArguments.

    Where `data_module` has a `train_collator`, which makes a list of micro-batches of the rows of a step, the trainer's
    own arguments count each step as one batch; `args` itself stays as it was given.
    """
    step_collator = data_module.get("train_collator")
    config = GenerationConfig(
        **generation.options(),
        eos_token_id=model.generation_config.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        stop_strings=list(data_module["data_collator"].text_marks) or None,
    )
    if args.ddp_find_unused_parameters is None and not any("expert" in name for name, _ in model.named_modules()):
        args.ddp_find_unused_parameters = False  # without experts to choose from, every weight takes part in each step
    if step_collator is not None:
        args = copy.copy(args)
        args.per_device_train_batch_size *= args.gradient_accumulation_steps
        args.gradient_accumulation_steps = 1
    return QLoRATrainer(
        model=model,
        args=args,
        train_dataset=data_module["train_dataset"],
        eval_dataset=data_module["eval_dataset"],
        data_collator=data_module["data_collator"],
        processing_class=tokenizer,
        generation=config,
        step_collator=step_collator,
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
    batches = trainer.get_train_dataloader()
    if not len(batches):
        raise FailedRunError(
            "not one step was trained: the training rows do not fill a batch. Lower --per_device_train_batch_size or "
            "--gradient_accumulation_steps, or leave --dataloader_drop_last out."
        )
    *_, total = trainer.set_initial_training_values(trainer.args, batches)
    # The library would train one step more from a checkpoint of the last step.
    if checkpoint is None or trainer.state.global_step < total:
        with stop:
            metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
    return {**metrics, **learning_curve(trainer.state)}, stop.signum


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
