"""The command line: four dataclasses, and their checks.

    from arguments.training import check_command_line
    check_command_line(["--bits", "4", "--lerning_rate", "1e-4"])   # ArgumentsError: unknown flag … --learning_rate?

Every check raises `ArgumentsError`, whose text names the flags, what was found and what is allowed.
"""

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arguments.data import DataArguments
from arguments.declare import ArgumentsError as ArgumentsError
from arguments.declare import option, require, require_choice, require_range
from arguments.evaluation import EvaluationArguments
from arguments.generation import GenerationArguments
from arguments.library_flags import check_library_flags, more_is_better, read_settings
from arguments.model import ModelArguments
from arguments.parser import EXAMPLES, USAGE, make_parser, parse_known, without_heavy_packages
from arguments.replaced import CHOICES, FIXED_FLAGS, GROUPING_STRATEGIES, RANGES, REPLACED_FLAGS
from common.errors import FailedRunError as FailedRunError
from common.errors import RequestError as RequestError

DEFAULT_OPTIM = "paged_adamw_32bit"
DEFAULT_MAX_STEPS = 10000
TAKING_STEPS_APART = ("split_batches", "dispatch_batches")  # settings of --accelerator_config


@dataclass
class QLoRAArguments(EvaluationArguments):
    """What this tool adds to, or sets differently in, `Seq2SeqTrainingArguments`; needs no torch.

    `training.loop.trainer.TrainingArguments` joins it with transformers' class.
    """

    _argument_group_name = "training"

    cache_dir: str | None = option(None, "Where downloaded models and data are kept.")
    train_on_source: bool = option(False, "Supervise the source too, not only the target.")
    full_finetune: bool = option(False, "Train every weight instead of adapters (with --bits 16 or 32).")
    adam8bit: bool = option(False, "Keep Adam's state in 8 bits (paged where there is a CUDA GPU).")
    double_quant: bool = option(True, "Quantize the quantization constants too (4 bits).")
    quant_type: str = option("nf4", "4-bit data type: nf4 or fp4.")
    bits: int = option(4, "Bits a base weight is held in: 4, 8, 16 or 32.")
    lora_r: int = option(64, "Rank of the LoRA matrices.")
    lora_alpha: float = option(16, "LoRA scale: the update is multiplied by alpha / r.")
    lora_dropout: float = option(0.0, "Dropout on the LoRA input, from 0 to below 1.")
    lora_modules: str = option(
        "all", "Layers that get LoRA: 'all' linear layers but the output head, or names like q_proj,v_proj."
    )
    max_memory_MB: int = option(80000, "GPU memory this run may use, in MB for each GPU.")
    group_by_length: bool = option(
        True, "Split the rows of each optimizer step by length into its micro-batches: less padding, the same steps."
    )
    max_tokens_per_batch: int | None = option(
        None,
        "Tokens of a micro-batch, padding included, at most. As many micro-batches as that takes make a step of "
        "per_device_train_batch_size x gradient_accumulation_steps rows.",
    )
    packing: bool = option(
        False,
        "Put the rows of a step behind one another in sequences of --max_tokens_per_batch tokens (unset: "
        "source_max_len + target_max_len), each blind to the others: no padding at all.",
    )
    warmup_ratio: float = option(0.03, "Share of the steps used to warm up; --warmup_steps, if given, wins.")
    warmup_steps: float | None = option(None, "Steps used to warm up; below 1, a share (unset: --warmup_ratio).")

    # transformers' own flags, with the published defaults
    output_dir: str = option("./output", "Directory for checkpoints, the adapter, metrics and predictions.")
    report_to: str = option("none", "Trackers to report to: none, tensorboard, wandb, …")
    optim: str = option(DEFAULT_OPTIM, "Optimizer. Paged ones need CUDA and become their plain twin elsewhere.")
    per_device_train_batch_size: int = option(1, "Rows in a micro-batch.")
    gradient_accumulation_steps: int = option(16, "Micro-batches in an optimizer step.")
    max_steps: int = option(DEFAULT_MAX_STEPS, "Optimizer steps to train; -1 = as many as --num_train_epochs gives.")
    num_train_epochs: float | None = option(None, "Passes over the data where --max_steps is -1; unset: 3.")
    weight_decay: float = option(0.0, "Weight decay of the optimizer.")
    learning_rate: float = option(2e-4, "Peak learning rate.")
    remove_unused_columns: bool = option(False, "Must stay False: the collator reads the text columns.")
    max_grad_norm: float = option(0.3, "Gradient norm above which gradients are scaled down; 0 = never.")
    do_train: bool = option(True, "Train. --do_train False evaluates or predicts with what --output_dir holds.")
    do_eval: bool = option(False, "Evaluate at the end on held-out rows, and before the first step.")
    do_predict: bool = option(False, "Generate an answer to each held-out row and write predictions.jsonl.")
    resume_from_checkpoint: str | None = option(
        None, "Checkpoint directory to go on from; unset: the last good one in --output_dir."
    )
    lr_scheduler_type: str = option("constant", "Learning rate schedule.")
    logging_steps: float = option(10, "Steps between two log lines.")
    logging_first_step: bool = option(True, "Log the first step by itself.")
    logging_nan_inf_filter: bool = option(False, "Hide losses that are not finite from the log.")
    save_strategy: str = option("steps", "When to save a checkpoint: no, steps, epoch, best.")
    save_steps: float = option(250, "Steps between two checkpoints; below 1, a share of all steps.")
    save_total_limit: int | None = option(40, "Checkpoints to keep; older ones are deleted.")
    eval_strategy: str = option(
        "no",
        "When to evaluate during training: no, steps, epoch.",
        aliases=["--evaluation_strategy", "--evaluation-strategy"],
    )
    eval_on_start: bool | None = option(None, "Evaluate before the first step, too; unset: with --do_eval.")
    tf32: bool | None = option(None, "Allow TF32 matrix products on NVIDIA Ampere or newer GPUs.")
    train_sampling_strategy: str | None = option(
        None,
        "Order of training rows, in the library's plain micro-batches: random, sequential, group_by_length (a whole "
        "epoch by length), batch_rebalance; unset: random, and see --group_by_length.",
    )
    use_cpu: bool = option(False, "Run on the CPU even where there is a GPU.", aliases=["--no_cuda", "--no-cuda"])
    # Left unset so that --gradient_checkpointing False is not overruled by the default of its new name.
    gradient_checkpointing: bool | None = option(
        None, "Recompute activations in the backward pass: less memory, more time; unset: True."
    )
    activation_checkpointing: bool | None = option(None, "Newer name of --gradient_checkpointing.")
    include_num_input_tokens_seen: str = option(
        "no", "Count the tokens trained on in the log: no, all, non_padding; bare: all.", nargs="?", const="all"
    )
    liger_kernel_config: str | None = option(None, "Which Liger kernels to use: a JSON object of true and false.")
    parallelism_config: str | None = option(None, "Only unset: no model is spread over several processes here.")
    # Training never reads the cache, and generation has a flag of this name in GenerationArguments.
    use_cache: bool = field(default=False, init=False)
    # Whether training takes the rows of an optimizer step at once and makes its micro-batches of them; no flag.
    step_batching: bool = field(default=False, init=False)

    def __post_init__(self):
        read_settings(self)
        self.check_values()
        self.check_training_pairs()
        self.check_batching_pairs()
        self.check_paths()
        self.check_evaluation()
        check_library_flags(self)
        self.resolve_aliases()

    def check_values(self) -> None:
        for name, allowed in CHOICES.items():
            require_choice(name, getattr(self, name), allowed)
        for rule, test, names in RANGES:
            require_range(self, rule, test, *names)
        for name, (only, why) in FIXED_FLAGS.items():
            value = getattr(self, name)
            require(value == only, f"--{name} {value}: {why}; only {only} is possible here.")

    def check_training_pairs(self) -> None:
        """Refuse pairs of this tool's flags that contradict each other."""
        require(
            not (self.full_finetune and self.bits in (4, 8)),
            f"--full_finetune with --bits {self.bits}: quantized weights cannot be trained. "
            "Use --bits 16 or 32 with --full_finetune, or leave --full_finetune out to train LoRA adapters.",
        )
        for name in ("fp16_full_eval", "bf16_full_eval"):
            require(
                not getattr(self, name) or self.bits in (16, 32),
                f"--{name} with --bits {self.bits}: quantized weights cannot be cast. Leave --{name} out.",
            )
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
            self.do_train or self.do_eval or self.do_predict or self.do_mmlu_eval or self.eval_strategy != "no",
            "--do_train False without --do_eval, --do_predict or --do_mmlu_eval: nothing to do.",
        )

    def check_batching_pairs(self) -> None:
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
        split = self.group_by_length and self.train_sampling_strategy is None and not self.auto_find_batch_size
        self.step_batching = split or bool(batching)
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
        self.output_dir = os.path.expanduser(self.output_dir.strip())
        require(bool(self.output_dir), "--output_dir is empty: give a directory.")
        for name in ("output_dir", "cache_dir"):
            path = Path(getattr(self, name) or ".")
            file = next((place for place in (path, *path.parents) if place.is_file()), None)
            require(file is None, f"--{name} {path}: {file} is a file, not a directory.")
        if self.resume_from_checkpoint is not None:
            self.resume_from_checkpoint = os.path.expanduser(self.resume_from_checkpoint)
            require(
                Path(self.resume_from_checkpoint).is_dir(),
                f"--resume_from_checkpoint {self.resume_from_checkpoint}: no such directory. "
                "Leave the flag out to go on from the last good checkpoint in --output_dir.",
            )

    def resolve_aliases(self) -> None:
        """Turn the published names into those of the pinned transformers."""
        self.train_sampling_strategy = self.train_sampling_strategy or "random"
        if self.warmup_steps is None:
            # Below 1 transformers reads warmup_steps as a share of the steps; exactly 1 would be one step.
            self.warmup_steps = min(self.warmup_ratio, math.nextafter(1.0, 0.0))
        if self.activation_checkpointing is None:
            self.activation_checkpointing = self.gradient_checkpointing is not False
        self.gradient_checkpointing = self.activation_checkpointing
        settings = self.activation_checkpointing_kwargs or self.gradient_checkpointing_kwargs or {}
        self.activation_checkpointing_kwargs = self.gradient_checkpointing_kwargs = {"use_reentrant": False} | settings
        self.num_train_epochs = self.num_train_epochs or 3.0
        if self.eval_strategy != "no":
            self.do_eval = True
            self.eval_steps = self.eval_steps or self.logging_steps
        if self.save_strategy == "best" and self.metric_for_best_model is None:
            self.metric_for_best_model = "loss"
        if self.metric_for_best_model is not None:
            self.greater_is_better = more_is_better(self)  # the library takes more perplexity for better
        if self.eval_on_start is None:
            self.eval_on_start = bool(self.do_eval and self.do_train)
        self.evaluation_generates = self.predict_with_generate
        # A prediction is a generated text; there is no other kind here.
        self.predict_with_generate = self.predict_with_generate or self.do_predict


TrainingArguments = QLoRAArguments  # the name under which functions ask for it


def parse(training_arguments: type, argv: Sequence[str]) -> tuple[Any, ...]:
    """Parse `argv` into (model, data, training, generation) arguments.

    Raises:
        ArgumentsError: an unknown flag (the nearest one is named), a bad value, or a contradiction.
    """
    types = (ModelArguments, DataArguments, training_arguments, GenerationArguments)
    return parse_known(make_parser(types, usage=USAGE, epilog=EXAMPLES), argv, REPLACED_FLAGS)


def check_command_line(argv: Sequence[str]) -> tuple[Any, ...] | None:
    """Answer `--help` and refuse wrong requests within two seconds of the start, before torch is loaded.

    Returns:
        (model, data, training, generation) arguments as parsed so far, or None where transformers is loaded already
        and nothing is saved by asking early: the full parse follows.

    Raises:
        ArgumentsError: as `parse` does.
        SystemExit: with status 0 after `--help`.
    """
    if "transformers" in sys.modules:
        return None
    with without_heavy_packages():
        return parse(light_training_arguments(), argv)


def light_training_arguments() -> type:
    """The training arguments with every check that needs no torch; to be used in `without_heavy_packages`."""
    from transformers.training_args_seq2seq import Seq2SeqTrainingArguments

    @dataclass
    class LightTrainingArguments(QLoRAArguments, Seq2SeqTrainingArguments):
        def __post_init__(self):
            QLoRAArguments.__post_init__(self)
            if self.lr_scheduler_type == "reduce_lr_on_plateau":
                return  # the library refuses it where it finds no torch; its rule is in `check_library_pairs`
            try:
                self._validate_args()
            except ValueError as error:
                raise ArgumentsError(str(error)) from error

    return LightTrainingArguments
