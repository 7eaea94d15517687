"""The flags of training: what this tool adds to transformers' own, and the rules that tie flags together.

    TrainingArguments(output_dir="output/mine", bits=4, max_steps=500)

A pair of flags that contradict each other is an `ArgumentsError` that names both.
"""

import math
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from arguments.checks import (
    check_accelerator,
    check_checkpointing,
    check_checkpointing_settings,
    check_debug,
    check_kernels,
    check_optimizer,
    check_push_request,
    check_schedule,
    check_sharding,
    check_trackers,
)
from arguments.declare import ABOVE_0, AT_LEAST_1, BELOW_1, Rule, check_values, option, require, require_package, settle
from arguments.evaluation import EvaluationArguments
from arguments.library_flags import DEFAULT_MAX_STEPS, DEFAULT_OPTIM, GROUPING_STRATEGIES
from arguments.settings import FOLLOWING_SCHEDULES, PROJECTING_OPTIMIZERS
from common.launcher import local_rank

UP_TO_1: Rule = ("from 0 to 1", lambda x: 0 <= x <= 1)
TAKING_STEPS_APART = ("split_batches", "dispatch_batches")  # settings of --accelerator_config


@dataclass(frozen=True)
class TrainingArguments(EvaluationArguments):
    """Every flag of training and evaluation: transformers' own with the published defaults, and what this tool adds."""

    _argument_group_name = "training"

    cache_dir: str | None = option(None, "Where downloaded models and data are kept.")
    train_on_source: bool = option(False, "Supervise the source too, not only the target.", affects="text")
    full_finetune: bool = option(
        False, "Train every weight instead of adapters (with --bits 16 or 32).", affects="adapter"
    )
    adam8bit: bool = option(False, "Keep Adam's state in 8 bits (paged where there is a CUDA GPU).")
    double_quant: bool = option(True, "Quantize the quantization constants too (4 bits).", affects="base")
    quant_type: str = option("nf4", "4-bit data type.", affects="base", choices=("nf4", "fp4"))
    bits: int = option(4, "Bits a base weight is held in.", affects="base", choices=(4, 8, 16, 32))
    lora_r: int = option(64, "Rank of the LoRA matrices.", affects="adapter", rule=AT_LEAST_1)
    lora_alpha: float = option(
        16, "LoRA scale: the update is multiplied by alpha / r.", affects="adapter", rule=ABOVE_0
    )
    lora_dropout: float = option(0.0, "Dropout on the LoRA input, from 0 to below 1.", affects="adapter", rule=BELOW_1)
    lora_modules: str = option(
        "all",
        "Layers that get LoRA: 'all' linear layers but the output head, or names like q_proj,v_proj.",
        affects="adapter",
    )
    max_memory_MB: int = option(80000, "GPU memory this run may use, in MB for each GPU.", rule=AT_LEAST_1)
    group_by_length: bool = option(
        True,
        "Split the rows of each optimizer step by length into its micro-batches: less padding, the same steps.",
        affects="rows",
    )
    max_tokens_per_batch: int | None = option(
        None,
        "Tokens of a micro-batch, padding included, at most. As many micro-batches as that takes make a step of "
        "per_device_train_batch_size x gradient_accumulation_steps rows.",
        affects="rows",
        rule=AT_LEAST_1,
    )
    packing: bool = option(
        False,
        "Put the rows of a step behind one another in sequences of --max_tokens_per_batch tokens (unset: "
        "source_max_len + target_max_len), each blind to the others: no padding at all.",
        affects="rows",
    )
    shared_prefix: str = option(
        "auto",
        "auto: compute what the rows of a step begin with alike once for all of them, and no padding, wherever that is "
        "the same step; off: padded micro-batches.",
        choices=("auto", "off"),
    )
    warmup_ratio: float = option(
        0.03, "Share of the steps used to warm up; --warmup_steps, if given, wins.", rule=UP_TO_1
    )

    def __post_init__(self):
        check_values(self)
        settle(self, output_dir=os.path.expanduser(self.output_dir.strip()))
        if self.resume_from_checkpoint is not None:
            settle(self, resume_from_checkpoint=os.path.expanduser(self.resume_from_checkpoint))
        if self.eval_strategy != "no":
            settle(self, do_eval=True, eval_steps=self.eval_steps or self.logging_steps)
        self.check_weights()
        self.check_work()
        self.check_batching()
        self.check_paths()
        self.check_evaluation()
        self.check_library()

    # ---- What applies ----

    @property
    def step_batching(self) -> bool:
        """Whether training takes the rows of an optimizer step at once and makes its micro-batches of them."""
        split = self.group_by_length and self.train_sampling_strategy is None and not self.auto_find_batch_size
        return split or self.packing or self.max_tokens_per_batch is not None

    @property
    def checkpoints_activations(self) -> bool | None:
        """Whether activations are computed again in the backward pass; None: as the memory asks for."""
        if False in (self.activation_checkpointing, self.gradient_checkpointing):
            return False
        given = (self.activation_checkpointing, self.gradient_checkpointing, self.checkpointing_settings)
        # Where a model is spread over processes, no process knows what the others need.
        return True if any(given) or self.fsdp or self.deepspeed else None

    @property
    def checkpointing_settings(self) -> dict[str, Any]:
        """What is given of --activation_checkpointing_kwargs, by either of its names."""
        return self.activation_checkpointing_kwargs or self.gradient_checkpointing_kwargs or {}

    @property
    def more_is_better(self) -> bool:
        """Whether more of --metric_for_best_model is better; the library takes more perplexity for better."""
        if self.greater_is_better is not None:
            return self.greater_is_better
        return not (self.metric_for_best_model or "loss").endswith(("loss", "perplexity"))

    @property
    def goes_by_evaluations(self) -> bool:
        """Whether evaluations during training decide its weights: the best are kept, or a schedule reacts to them."""
        return self.load_best_model_at_end or self.lr_scheduler_type in FOLLOWING_SCHEDULES

    @property
    def trackers(self) -> list[str]:
        """The trackers of --report_to."""
        return [self.report_to] if isinstance(self.report_to, str) else list(self.report_to)

    def resolved(self) -> dict[str, Any]:
        """Return every flag with the value that applies, where it was left to another flag or has an older name."""
        # Below 1 transformers reads warmup_steps as a share of the steps; exactly 1 would be one step.
        ratio = min(self.warmup_ratio, math.nextafter(1.0, 0.0))
        checkpointing = bool(self.checkpoints_activations)
        settings = {"use_reentrant": False} | self.checkpointing_settings
        best = self.metric_for_best_model or ("loss" if self.save_strategy == "best" else None)
        return {flag.name: getattr(self, flag.name) for flag in fields(self)} | {
            "optim": "paged_adamw_8bit" if self.adam8bit else self.optim,
            "warmup_steps": ratio if self.warmup_steps is None else self.warmup_steps,
            "train_sampling_strategy": self.train_sampling_strategy or "random",
            "activation_checkpointing": checkpointing,
            "gradient_checkpointing": checkpointing,
            "activation_checkpointing_kwargs": settings,
            "gradient_checkpointing_kwargs": settings,
            "num_train_epochs": self.num_train_epochs or 3.0,
            "metric_for_best_model": best,
            "greater_is_better": self.greater_is_better if best is None else self.more_is_better,
            "eval_on_start": self.do_eval and self.do_train if self.eval_on_start is None else self.eval_on_start,
            # A prediction is a generated text; there is no other kind here.
            "predict_with_generate": self.predict_with_generate or self.do_predict,
        }

    # ---- Flags that contradict each other ----

    def check_weights(self) -> None:
        """Refuse what cannot be done with weights held in so many bits."""
        require(
            not (self.full_finetune and self.bits in (4, 8)),
            f"--full_finetune with --bits {self.bits}: quantized weights cannot be trained. "
            "Use --bits 16 or 32 with --full_finetune, or leave --full_finetune out to train LoRA adapters.",
        )
        for name, asked in (("fp16_full_eval", self.fp16_full_eval), ("bf16_full_eval", self.bf16_full_eval)):
            require(
                not asked or self.bits in (16, 32),
                f"--{name} with --bits {self.bits}: quantized weights cannot be cast. Leave --{name} out.",
            )
        for kind, both in (("", self.fp16 and self.bf16), ("_full_eval", self.fp16_full_eval and self.bf16_full_eval)):
            require(not both, f"--fp16{kind} with --bf16{kind}: choose one (bf16 where the GPU has it).")
        require(
            not (self.compare_base and self.full_finetune),
            "--compare_base with --full_finetune: every weight is tuned, so there is no adapter to switch off. Run "
            "the base by itself: the same command with --do_train False and another --output_dir.",
        )

    def check_work(self) -> None:
        """Refuse what asks for nothing, or for two things in the place of one."""
        require(
            not self.adam8bit or self.optim in (DEFAULT_OPTIM, "paged_adamw_8bit", "adamw_bnb_8bit", "adamw_8bit"),
            f"--adam8bit with --optim {self.optim}: choose one.",
        )
        # With the default number of steps, epochs that were asked for would be passed over in silence.
        require(
            self.num_train_epochs is None or self.max_steps != DEFAULT_MAX_STEPS,
            f"--num_train_epochs {self.num_train_epochs} with --max_steps {self.max_steps} (its default): the steps "
            "decide. Add --max_steps -1 to train that many epochs.",
        )
        require(
            self.do_train or self.do_eval or self.do_predict or self.do_mmlu_eval,
            "--do_train False without --do_eval, --do_predict or --do_mmlu_eval: nothing to do.",
        )

    def check_batching(self) -> None:
        """Refuse pairs of flags that would make micro-batches in two ways."""
        require(
            self.group_by_length or self.train_sampling_strategy != "group_by_length",
            "--group_by_length False with --train_sampling_strategy group_by_length: choose one.",
        )
        batching = ["--packing"] if self.packing else []
        batching += [f"--max_tokens_per_batch {self.max_tokens_per_batch}"] if self.max_tokens_per_batch else []
        for flag in batching:
            require(
                self.train_sampling_strategy not in GROUPING_STRATEGIES,
                f"{flag} with --train_sampling_strategy {self.train_sampling_strategy}: both decide which rows come "
                "together. Leave one out, or use --train_sampling_strategy random or sequential.",
            )
            require(
                not self.auto_find_batch_size,
                f"{flag} with --auto_find_batch_size: a search would change the rows of a step. Leave one out.",
            )
        taking_apart = [name for name in TAKING_STEPS_APART if (self.accelerator_config or {}).get(name)]
        require(
            not (taking_apart and self.step_batching and self.do_train),
            f"--accelerator_config with {', '.join(taking_apart)}, and {[*batching, '--group_by_length'][0]}: "
            "accelerate would take the micro-batches of a step apart. Leave the first out, or use --group_by_length "
            "False alone.",
        )
        require(
            not (self.packing and self.neftune_noise_alpha),
            f"--packing with --neftune_noise_alpha {self.neftune_noise_alpha}: the noise is scaled by the length of a "
            "sequence, which would be that of many rows. Leave one out.",
        )

    def check_paths(self) -> None:
        """Refuse directories that are files, and a checkpoint that is not there."""
        require(bool(self.output_dir), "--output_dir is empty: give a directory.")
        for name, value in (("output_dir", self.output_dir), ("cache_dir", self.cache_dir)):
            path = Path(value or ".")
            file = next((place for place in (path, *path.parents) if place.is_file()), None)
            require(file is None, f"--{name} {path}: {file} is a file, not a directory.")
        require(
            self.resume_from_checkpoint is None or Path(self.resume_from_checkpoint).is_dir(),
            f"--resume_from_checkpoint {self.resume_from_checkpoint}: no such directory. "
            "Leave the flag out to go on from the last good checkpoint in --output_dir.",
        )

    def check_library(self) -> None:
        """Refuse what the library would refuse, ignore or fail at once the base model has loaded."""
        for names, needed, is_there in self.needs():
            flags = self.flags_set(names)
            require(not flags or is_there, f"{', '.join(flags)}: no effect without {needed}.")
        here = local_rank()
        require(
            self.local_rank in (-1, here),
            f"--local_rank {self.local_rank}: the launcher says it in LOCAL_RANK ({here}); "
            "start with torchrun, and leave the flag out.",
        )
        best = "max" if self.more_is_better else "min"
        metric = self.metric_for_best_model or "loss"
        check_schedule(self.lr_scheduler_type, self.lr_scheduler_kwargs or {}, self.eval_strategy != "no", metric, best)
        check_optimizer(self.optim, self.optim_args, self.optim_target_modules, self.full_finetune, self.do_train)
        names = ("gradient_checkpointing", "activation_checkpointing")
        check_checkpointing(names[0], self.gradient_checkpointing, names[1], self.activation_checkpointing)
        names = ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs")
        values = (self.gradient_checkpointing_kwargs, self.activation_checkpointing_kwargs)
        check_checkpointing(names[0], values[0], names[1], values[1])
        for name, settings in zip(names, values, strict=True):
            check_checkpointing_settings(name, settings or {})
        check_accelerator(self.accelerator_config or {})
        check_sharding(self.fsdp, self.fsdp_config or {}, self.deepspeed, self.bits)
        check_trackers(self.trackers)
        check_kernels(self.liger_kernel_config or {})
        if self.use_liger_kernel:
            require_package("--use_liger_kernel", "liger_kernel")
        if not self.skip_memory_metrics:
            require_package("--skip_memory_metrics False", "psutil")
        check_debug(self.debug)
        if self.push_to_hub and self.do_train:
            check_push_request(self.hub_model_id, self.output_dir, self.hub_strategy, self.hub_token)

    # ---- Flags without effect ----

    def needs(self) -> list[tuple[tuple[str, ...], str, bool]]:
        """Return flags that ask for what does not happen without another flag: (flags, what they need, is it there)."""
        trackio, evaluated = not {"trackio", "all"}.isdisjoint(self.trackers), self.eval_strategy != "no"
        hub = ("hub_model_id", "hub_token", "hub_strategy", "hub_always_push", "hub_revision")
        workers = ("prefetch_factor", "persistent_workers", "multiprocessing_context", "in_order")
        checkpointing = ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs")
        best = self.metric_for_best_model is not None or self.load_best_model_at_end
        started = self.do_eval or evaluated or not self.eval_on_start
        projecting = " or ".join(PROJECTING_OPTIMIZERS)
        return [
            (hub, "--push_to_hub", self.push_to_hub),
            (("hub_private_repo",), "--push_to_hub or --report_to trackio", self.push_to_hub or trackio),
            (
                ("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
                "--report_to trackio",
                trackio,
            ),
            (
                tuple(f"dataloader_{name}" for name in workers),
                "--dataloader_num_workers 1 or more",
                self.dataloader_num_workers > 0,
            ),
            (("metric_for_best_model",), "--eval_strategy steps or epoch", evaluated),
            (("greater_is_better",), "--metric_for_best_model or --load_best_model_at_end", best),
            (("eval_on_start",), "--do_eval or --eval_strategy", started),
            (checkpointing, "--gradient_checkpointing", self.checkpoints_activations is not False),
            (("liger_kernel_config",), "--use_liger_kernel", self.use_liger_kernel),
            (("fsdp_config",), "--fsdp", bool(self.fsdp)),
            (("fsdp", "ddp_backend"), "a launcher, such as torchrun", local_rank() is not None),
            (("optim_target_modules",), f"--optim {projecting}", self.optim in PROJECTING_OPTIMIZERS),
        ]

    def idle(self, on_cpu: bool) -> list[tuple[tuple[str, ...], str, bool]]:
        """Return flags that change how something is done which may not be done here, in the form of `needs`.

        They are named in a note and not refused: the same command may well do it elsewhere.
        """
        processes = (
            "average_tokens_across_devices", "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers",
            "ddp_static_graph", "ddp_timeout", "log_on_each_node", "log_level_replica", "save_on_each_node",
        )  # fmt: skip
        grouping, by_steps = " or ".join(GROUPING_STRATEGIES), "steps" in (self.logging_strategy, self.eval_strategy)
        return [
            (("eval_steps",), "--eval_strategy steps", self.eval_strategy == "steps"),
            (("eval_delay",), "--eval_strategy", self.eval_strategy != "no"),
            (("save_steps",), "--save_strategy steps", self.save_strategy == "steps"),
            (("logging_steps",), "--logging_strategy steps", by_steps),
            (("run_name",), "a tracker (--report_to)", self.trackers != ["none"]),
            (
                ("length_column_name",),
                f"--train_sampling_strategy {grouping}",
                self.train_sampling_strategy in GROUPING_STRATEGIES,
            ),
            (("torch_empty_cache_steps",), "a GPU", not on_cpu),
            (processes, "a launcher, such as torchrun", local_rank() is not None),
        ]
