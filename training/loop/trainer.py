"""The trainer: transformers' `Seq2SeqTrainer` for causal language models on rows of a question and an answer.

    trainer = QLoRATrainer(model=model, args=settings, ..., generation=GenerationConfig(max_new_tokens=64))

It overrides eight methods, each for the reason that its docstring gives:
https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/trainer.py
"""

import contextlib
import copy
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from datasets import Dataset
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, Sampler, SequentialSampler
from transformers import GenerationConfig, Seq2SeqTrainer, StoppingCriteriaList, StopStringCriteria
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import EvalLoopOutput, seed_worker
from transformers.utils import ModelOutput

from common.errors import SavingError, failing_as
from common.forward import on_one_device
from common.labels import PROMPT, ROWS
from common.outputs import MODEL_CARD
from training.loop.callbacks import LogLineCallback
from training.loop.loss import (
    row_losses,
    supervised_loss,
    supervised_losses,
    supervised_only,
    supervised_tokens,
    takes_logits_to_keep,
    without_prompts,
)
from training.loop.packing import check_packing
from training.loop.steps import MICRO_BATCHES, Batch, StepSampler, collate_step
from training.memory import ROOM, bytes_per_weight, choose, free_memory, layers_in_words, measure, slower
from training.model.tokenizer import restore_settings
from training.shortcuts.attention import attending, for_model
from training.shortcuts.decoding import batch_tokens, batches_by_tokens, decode, decodes
from training.shortcuts.head import PIECE_BYTES, head_apart, stands_apart, token_losses
from training.shortcuts.lora_step import whole_size, whole_weights


class QLoRATrainer(Seq2SeqTrainer):
    """`Seq2SeqTrainer` with the loss at supervised positions only, steps of several micro-batches, and generation.

    Batches that hold prompts (`prompt_input_ids`) are generated from while they are evaluated.

    Args:
        generation: how answers are written.
        step_collator: makes a list of micro-batches of the rows of an optimizer step, or None, where training takes
            batches of the `data_collator` as the library does. With it, the library counts a step as one batch.
        trial: micro-batches of a few rows that stand behind one another, as the step collator puts them; that they do
            not see one another is checked before the first step. Empty where rows stand by themselves.
        largest: tokens of the largest micro-batch and how many of them are supervised: by these it is chosen how many
            layers are recomputed; None where flags say it.
    """

    def __init__(
        self,
        *args: Any,
        generation: GenerationConfig,
        step_collator: Callable[[Sequence], list[Batch]] | None,
        trial: Sequence[Batch],
        largest: tuple[int, int] | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.generation, self.step_collator, self.trial = generation, step_collator, trial
        self.largest, self.recomputed_every = largest, None
        self.skips_head = takes_logits_to_keep(self.model) and on_one_device(self.model)
        if self.args.use_liger_kernel:  # its kernels compute the loss of whole batches in the model
            self.skips_head = False
        else:
            self.compute_loss_func = self.loss_of_step
        elsewhere = self.args.fp16, self.args.torch_compile, self.args.fsdp, self.args.deepspeed
        # With fp16, a gradient that is computed before the scaler has scaled the loss would vanish.
        self.loss_in_pieces = self.skips_head and not any(elsewhere) and stands_apart(self.model)
        self.decodes = not any(elsewhere) and on_one_device(self.model) and decodes(self.model, generation)
        self.pop_callback(ProgressCallback)
        self.bars = LogLineCallback()
        if not self.args.disable_tqdm:
            self.add_callback(self.bars)

    # ---- training ----

    def get_train_dataloader(self) -> DataLoader:
        """Load whole optimizer steps where there is a step collator; the library knows micro-batches only."""
        if self.step_collator is None:
            return super().get_train_dataloader()
        args, rows = self.args, self.train_dataset
        order: Sampler = (
            SequentialSampler(rows) if args.train_sampling_strategy == "sequential" else RandomSampler(rows)
        )
        rows_of_step = self.get_total_train_batch_size(args)
        processes = rows_of_step // args.train_batch_size
        loader = DataLoader(
            rows,
            batch_sampler=StepSampler(order, rows_of_step, processes, args.dataloader_drop_last),
            collate_fn=partial(collate_step, self.step_collator),
            worker_init_fn=partial(seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index),
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            prefetch_factor=args.dataloader_prefetch_factor,
            in_order=args.dataloader_in_order,
        )
        return self.accelerator.prepare(loader)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[Batch], torch.Tensor | None]:
        """Count the tokens of the step that are predicted, of every architecture alike, and ask for no other logits.

        The library counts the first label of a row too where it does not know that the model shifts labels (GPT-2).
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        steps = [batch.get(MICRO_BATCHES, [batch]) for batch in batches]
        if not steps:
            return batches, None
        if self.trial:
            with self.accelerator.autocast():
                trial = send_to_device(self.trial, device)
                check_packing(self.accelerator.unwrap_model(self.model), trial, self.skips_head)
            self.trial = []
        tokens = sum(supervised_tokens(batch) for step in steps for batch in step).to(device)
        if self.args.average_tokens_across_devices:  # as gradients are
            tokens = self.accelerator.gather(tokens).sum()
        prepared = [[self.prepared(batch) for batch in step] for step in steps]
        if self.step_collator is None:
            return [batch for [batch] in prepared], tokens
        return [batch | {MICRO_BATCHES: step} for batch, step in zip(batches, prepared, strict=True)], tokens

    def prepared(self, batch: Batch) -> Batch:
        """Return what the model is given of a batch."""
        batch = for_model(without_prompts(batch))
        return supervised_only(batch) if self.skips_head else batch

    def settle_recomputation(self) -> None:
        """Choose how many layers are recomputed, by what a step takes and what is free, where no flag says it."""
        if self.largest is None:
            return
        model, args = self.accelerator.unwrap_model(self.model), self.args
        with self.accelerator.autocast():
            piece = PIECE_BYTES if self.loss_in_pieces else None
            usage = measure(model, bytes_per_weight(args.optim.value), piece)
        if usage is None:  # no layers that could be recomputed
            return
        chosen = choose(usage, *self.largest, free_memory(args.device))
        if self.is_world_process_zero():
            print(f"memory: {chosen}")
        self.recompute(chosen.every)

    def recompute(self, every: int) -> None:
        """Recompute one of `every` layers in the backward pass, or none for 0."""
        model = self.accelerator.unwrap_model(self.model)
        model.activation_checkpointing_disable()
        if every:
            model.activation_checkpointing_enable({"use_reentrant": False}, every_n_layers=every)
        self.recomputed_every = every

    def training_step(self, model: nn.Module, inputs: Batch, *args: Any) -> torch.Tensor:
        """Go backward through every micro-batch of a step; gives the loss of the step. The library has one of them.

        Where it was chosen here how many layers are recomputed, a step that does not fit is done again with more.
        """
        if MICRO_BATCHES not in inputs:
            with self.computing(inputs):
                return super().training_step(model, inputs, *args)
        random_states = (torch.get_rng_state(), *torch.cuda.get_rng_state_all())
        while True:
            try:
                return self.whole_step(model, inputs[MICRO_BATCHES], *args)
            except torch.OutOfMemoryError:
                every = slower(self.recomputed_every)
                if every is None or self.args.world_size > 1:  # other processes would wait for this one
                    raise
            model.zero_grad()
            torch.cuda.empty_cache()
            torch.set_rng_state(random_states[0])
            torch.cuda.set_rng_state_all(random_states[1:])
            step = self.state.global_step + 1
            print(f"note: step {step:,} does not fit into memory; recomputing {layers_in_words(every)} from now on.")
            self.recompute(every)

    def whole_step(self, model: nn.Module, batches: Sequence[Batch], *args: Any) -> torch.Tensor:
        """Go backward through the micro-batches of a step; gives its loss."""
        *others, last = batches
        losses = []
        with self.computing(last):
            for batch in others:
                # Processes may have different numbers of micro-batches: they meet in the last one alone.
                self.accelerator.sync_gradients = False
                with self.accelerator.no_sync(model):
                    losses.append(super().training_step(model, batch, *args))
            self.accelerator.sync_gradients = True
            losses.append(super().training_step(model, last, *args))
        return torch.stack(losses).sum()

    @contextlib.contextmanager
    def computing(self, batch: Batch) -> Iterator[None]:
        """Let the model compute as a micro-batch is laid out and as the loss takes it; afterwards as before."""
        model = self.accelerator.unwrap_model(self.model)
        with attending(model, batch), head_apart(model) if self.loss_in_pieces else contextlib.nullcontext():
            yield

    def loss_of_step(
        self, outputs: ModelOutput, labels: torch.Tensor, num_items_in_batch: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of a micro-batch as `supervised_loss` does; of what the head is given where it is apart."""
        smoothing = self.args.label_smoothing_factor
        if not self.loss_in_pieces:
            return supervised_loss(outputs, labels, num_items_in_batch, smoothing)
        head = self.accelerator.unwrap_model(self.model).get_output_embeddings()
        with self.accelerator.autocast():  # as the rest of the model was computed
            return token_losses(outputs.logits, labels, head, smoothing).sum() / num_items_in_batch

    # ---- evaluation and prediction ----

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate with base and adapter as one matrix of each layer where memory allows; the library has no such way.

        On a CPU alone: what 4-bit kernels of GPUs take for a token has not been measured against it.
        """
        model, device = self.accelerator.unwrap_model(self.model), self.args.device
        size = whole_size(model) if device.type == "cpu" else None
        fits = size is not None and size < ROOM * free_memory(device)
        with whole_weights(model) if fits else contextlib.nullcontext():
            return super().evaluation_loop(*args, **kwargs)

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        """Load as many rows at a time as their tokens allow; the library loads as many whatever their lengths.

        Rows come in their order, longest prompt first.
        """
        model = self.accelerator.unwrap_model(self.model)
        if not self.decodes or self.args.world_size > 1 or not len(test_dataset):
            return super().get_test_dataloader(test_dataset)
        batches = batches_by_tokens(
            test_dataset["prompt_length"],
            self.generation.max_new_tokens,
            batch_tokens(model.config, free_memory(self.args.device)),
            least=self.args.eval_batch_size,
        )
        return self.accelerator.prepare(
            DataLoader(test_dataset, batch_sampler=batches, collate_fn=self.data_collator, num_workers=0)
        )

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | None:
        """Keep the order of the data set; the library reorders evaluation too when training is grouped by length."""
        return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None

    def prediction_step(
        self, model: nn.Module, inputs: Batch, prediction_loss_only: bool, *args: Any, **kwargs: Any
    ) -> tuple[None, torch.Tensor, torch.Tensor]:
        """Give losses by row, and the new tokens where a batch has prompts.

        The library gives the mean of the batch, and generates from rows that are padded on the right and hold the
        answer.

        Returns:
            (None, (batch, new tokens) generated or else the losses, (batch, 2) loss sums and token counts)
        """
        prompts = {name.removeprefix(PROMPT): value for name, value in inputs.items() if name.startswith(PROMPT)}
        rows = supervised_only(for_model(without_prompts(inputs)))
        with torch.no_grad(), self.accelerator.autocast():
            with attending(self.accelerator.unwrap_model(model), inputs):
                losses = supervised_losses(model, rows, self.skips_head, self.loss_in_pieces)
            losses = row_losses(losses, rows, inputs.get(ROWS))
            return None, self.generate_from(prompts) if prompts else losses, losses

    def generate_from(self, prompts: Batch) -> torch.Tensor:
        """Continue left-padded prompts; gives the new tokens alone, (batch, at most max_new_tokens)."""
        config, criteria = copy.copy(self.generation), StoppingCriteriaList()
        if config.stop_strings:  # for which the library hands no tokenizer on to a custom way
            criteria.append(StopStringCriteria(self.processing_class, config.stop_strings))
            config.stop_strings = None
        written = self.accelerator.unwrap_model(self.model).generate(
            **prompts,
            generation_config=config,
            stopping_criteria=criteria,
            custom_generate=decode if self.decodes else None,
        )
        return written[:, prompts["input_ids"].shape[1] :]

    def end(self) -> None:
        """Let go of DDP first, as a process could wait forever for a thread of gloo.

        Whoever lets go of a gloo group last joins its threads. DDP's destructor does that while it holds the GIL, for
        which such a thread may be waiting.
        """
        self.model_wrapped = self.model
        self.accelerator.free_memory()
        super().end()

    # ---- saving ----

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save adapters without asking the hub whether the embeddings grew, as PEFT does; here it is known."""
        model = self.accelerator.unwrap_model(self.model)
        restore_settings(self.processing_class)
        with failing_as(SavingError, f"{output_dir} could not be written", OSError, SafetensorError):
            if not hasattr(model, "peft_config"):
                super()._save(output_dir, state_dict)
            elif self.args.should_save:
                model.save_pretrained(output_dir, state_dict=state_dict, save_embedding_layers=model.embeddings_resized)
                Path(output_dir, MODEL_CARD).unlink(missing_ok=True)  # PEFT's blank form; ours is written at the end
                self.processing_class.save_pretrained(output_dir)
            if self.args.should_save:
                share_weights(Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load nothing: `training.model.build.build_model` has loaded the weights of the checkpoint.

        The library would load an older layout's `adapter_model/` as a second adapter that is not active.
        """


def share_weights(directory: Path) -> None:
    """Give weight files, which safetensors writes for their owner alone, the permissions of any other new file."""
    umask = os.umask(0)
    os.umask(umask)
    for path in directory.glob("*.safetensors"):
        path.chmod(0o666 & ~umask)
