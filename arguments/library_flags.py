"""The flags of transformers' `Seq2SeqTrainingArguments`, declared here so that neither it nor torch must be loaded.

    LibraryArguments(max_steps=500).max_steps

A test holds names, types and defaults to the pinned transformers; OUR_DEFAULTS are the published ones that differ. The
values are handed to the library's own class by `training.loop.arguments.library_arguments`.
"""

from dataclasses import dataclass, fields
from typing import Literal

from arguments.declare import (
    ABOVE_0,
    AT_LEAST_1,
    BELOW_1,
    NOT_BELOW_0,
    SEED,
    Rule,
    default_of,
    option,
)
from arguments.settings import (
    OPTIMIZER_NAMES,
    PROJECTING_OPTIMIZERS,
    SCHEDULES,
    Json,
    as_written,
    json_object,
    json_or_file,
    words,
)

DEFAULT_OPTIM = "paged_adamw_32bit"
DEFAULT_MAX_STEPS = 10000
OUR_DEFAULTS = (
    "output_dir", "optim", "per_device_train_batch_size", "gradient_accumulation_steps", "max_steps",
    "num_train_epochs", "learning_rate", "remove_unused_columns", "max_grad_norm", "do_train", "lr_scheduler_type",
    "warmup_steps", "logging_steps", "logging_first_step", "logging_nan_inf_filter", "save_steps", "save_total_limit",
    "eval_on_start", "train_sampling_strategy",
)  # fmt: skip
# transformers has it for training, where the cache is never read; here it is a flag of generation.
LEFT_OUT = ("use_cache",)

WHEN = ("no", "steps", "epoch")
LEVELS = ("detail", "debug", "info", "warning", "error", "critical", "passive")
GROUPING_STRATEGIES = ("group_by_length", "batch_rebalance")  # they choose rows by their length
STEPS: Rule = (
    "more than 0: a whole number of steps, or a share below 1",
    lambda n: 0 < n < 1 or (n >= 1 and n == int(n)),
)
WARMUP: Rule = (
    "0 or more: a whole number of steps, or a share below 1",
    lambda n: 0 <= n < 1 or (n >= 1 and n == int(n)),
)
MAX_STEPS: Rule = ("1 or more, or -1 for --num_train_epochs", lambda n: n == -1 or n >= 1)


@dataclass(frozen=True)
class LibraryArguments:
    """What `Seq2SeqTrainingArguments` takes, with the published defaults; `TrainingArguments` adds this tool's own."""

    # What is done, and where
    output_dir: str = option("./output", "Directory for checkpoints, the adapter, metrics and predictions.")
    do_train: bool = option(True, "Train. --do_train False evaluates or predicts with what --output_dir holds.")
    do_eval: bool = option(False, "Evaluate at the end on held-out rows, and before the first step.")
    do_predict: bool = option(False, "Generate an answer to each held-out row and write predictions.jsonl.")
    resume_from_checkpoint: str | None = option(
        None, "Checkpoint directory to go on from; unset: the last good one in --output_dir."
    )
    seed: int = option(
        42, "Seed of new weights, dropout and, unless --data_seed is given, rows.", affects="split", rule=SEED
    )
    data_seed: int | None = option(None, "Seed of the order and the split of rows.", affects="split", rule=SEED)
    full_determinism: bool = option(False, "Use slower operations that give the same bits on every GPU run.")
    use_cpu: bool = option(False, "Run on the CPU even where there is a GPU.", aliases=["--no_cuda", "--no-cuda"])

    # Steps
    max_steps: int = option(
        DEFAULT_MAX_STEPS,
        "Optimizer steps to train; -1 = as many as --num_train_epochs gives.",
        affects="training",
        rule=MAX_STEPS,
    )
    num_train_epochs: float | None = option(
        None, "Passes over the data where --max_steps is -1; unset: 3.", affects="training", rule=ABOVE_0
    )
    per_device_train_batch_size: int = option(1, "Rows in a micro-batch.", affects="rows", rule=AT_LEAST_1)
    gradient_accumulation_steps: int = option(
        16, "Micro-batches in an optimizer step.", affects="rows", rule=AT_LEAST_1
    )
    auto_find_batch_size: bool = option(False, "Halve the micro-batch until it fits into memory.", affects="training")
    max_grad_norm: float = option(
        0.3, "Gradient norm above which gradients are scaled down; 0 = never.", affects="training", rule=NOT_BELOW_0
    )
    label_smoothing_factor: float = option(
        0.0, "Share of each label spread over all other tokens.", affects="training", rule=BELOW_1
    )
    neftune_noise_alpha: float | None = option(
        None, "Noise on the embeddings while training (NEFTune); often 5 to 15.", affects="training", rule=NOT_BELOW_0
    )
    average_tokens_across_devices: bool = option(
        True, "Weight the losses of processes by their tokens.", affects="training"
    )

    # Optimizer and schedule
    optim: str = option(
        DEFAULT_OPTIM,
        "Optimizer. Paged ones need CUDA and become their plain twin elsewhere.",
        affects="optimizer",
        choices=OPTIMIZER_NAMES,
    )
    optim_args: str | None = option(None, "Settings of the optimizer: name=value,name=value.", affects="optimizer")
    optim_target_modules: str | None = option(
        None, f"Layers of {', '.join(PROJECTING_OPTIMIZERS)}: all-linear, or a pattern of names.", affects="optimizer"
    )
    learning_rate: float = option(2e-4, "Peak learning rate.", affects="optimizer", rule=ABOVE_0)
    weight_decay: float = option(0.0, "Weight decay of the optimizer.", affects="optimizer", rule=NOT_BELOW_0)
    adam_beta1: float = option(0.9, "Decay of Adam's mean of gradients.", affects="optimizer", rule=BELOW_1)
    adam_beta2: float = option(0.999, "Decay of Adam's mean of squared gradients.", affects="optimizer", rule=BELOW_1)
    adam_epsilon: float = option(1e-8, "What Adam adds to its denominator.", affects="optimizer", rule=ABOVE_0)
    lr_scheduler_type: str = option(
        "constant", "Learning rate schedule.", affects="optimizer", choices=tuple(SCHEDULES)
    )
    lr_scheduler_kwargs: Json = option(
        None, "Settings of the schedule: a JSON object.", affects="optimizer", reads=json_object
    )
    warmup_steps: float | None = option(
        None, "Steps used to warm up; below 1, a share (unset: --warmup_ratio).", affects="optimizer", rule=WARMUP
    )

    # Precision, memory and speed
    bf16: bool = option(False, "Compute in bfloat16.", affects="base")
    fp16: bool = option(False, "Compute in float16, with scaled losses; bf16 where the GPU has it.", affects="base")
    bf16_full_eval: bool = option(False, "Cast the weights to bfloat16 to evaluate (with --bits 16 or 32).")
    fp16_full_eval: bool = option(False, "Cast the weights to float16 to evaluate (with --bits 16 or 32).")
    tf32: bool | None = option(None, "Allow TF32 matrix products on NVIDIA Ampere or newer GPUs.", affects="training")
    # Left unset so that --gradient_checkpointing False is not overruled by the default of its new name.
    gradient_checkpointing: bool | None = option(
        None, "Recompute activations in the backward pass: less memory, more time; unset: as far as it must to fit."
    )
    gradient_checkpointing_kwargs: Json = option(None, "Settings of it: a JSON object.", reads=json_object)
    activation_checkpointing: bool | None = option(None, "Newer name of --gradient_checkpointing.")
    activation_checkpointing_kwargs: Json = option(
        None, "Newer name of --gradient_checkpointing_kwargs.", reads=json_object
    )
    torch_compile: bool = option(False, "Compile the model with torch.compile.", affects="training")
    torch_compile_backend: str | None = option(None, "Backend of torch.compile; turns it on.", affects="training")
    torch_compile_mode: str | None = option(None, "Mode of torch.compile; turns it on.", affects="training")
    use_liger_kernel: bool = option(False, "Use Liger's kernels (GPU).", affects="training")
    liger_kernel_config: Json = option(
        None, "Which Liger kernels to use: a JSON object of true and false.", affects="training", reads=json_or_file
    )
    torch_empty_cache_steps: int | None = option(
        None, "Steps between two clearings of the GPU's cache.", rule=AT_LEAST_1
    )

    # Logging
    logging_strategy: str = option("steps", "When to log.", choices=WHEN)
    logging_steps: float = option(10, "Steps between two log lines.", rule=STEPS)
    logging_first_step: bool = option(True, "Log the first step by itself.")
    logging_nan_inf_filter: bool = option(False, "Hide losses that are not finite from the log.")
    log_level: str = option("passive", "Least level of the library's own log; passive: as it is.", choices=LEVELS)
    log_level_replica: str = option("warning", "The same for processes but the first.", choices=LEVELS)
    log_on_each_node: bool = option(True, "Log once for each machine, and not once for all.")
    disable_tqdm: bool | None = option(None, "Show no progress bars; unset: they are shown.")
    include_num_input_tokens_seen: str = option(
        "no",
        "Count the tokens trained on in the log; bare: all.",
        choices=("no", "all", "non_padding"),
        nargs="?",
        const="all",
        reads=words(true="all", false="no"),
    )
    report_to: str = option("none", "Trackers to report to: none, tensorboard, wandb, …")
    run_name: str | None = option(None, "Name of the run in the tracker.")
    project: str = option("huggingface", "Project of the run in Trackio.")
    trackio_space_id: str | None = option(None, "Space on the hub that shows the run in Trackio.")
    trackio_bucket_id: str | None = option(None, "Bucket on the hub that holds Trackio's numbers.")
    trackio_static_space_id: str | None | Literal[False] = option(
        None, "Space for the run when it is done; False: none.", reads=words(false=False)
    )
    debug: str = option("", "underflow_overflow: look for numbers that are too small or large.")
    skip_memory_metrics: bool = option(True, "Leave memory out of the metrics.")

    # Evaluation
    eval_strategy: str = option(
        "no",
        "When to evaluate during training.",
        choices=WHEN,
        affects="best",
        aliases=["--evaluation_strategy", "--evaluation-strategy"],
    )
    eval_steps: float | None = option(
        None, "Steps between two evaluations; unset: --logging_steps.", affects="best", rule=STEPS
    )
    eval_delay: float = option(0, "Steps, or epochs, before the first evaluation.", affects="best", rule=NOT_BELOW_0)
    eval_on_start: bool | None = option(None, "Evaluate before the first step, too; unset: with --do_eval.")
    per_device_eval_batch_size: int = option(8, "Rows evaluated together.", rule=AT_LEAST_1)
    eval_accumulation_steps: int | None = option(None, "Batches after which results leave the GPU.", rule=AT_LEAST_1)
    eval_use_gather_object: bool = option(False, "Gather results of processes as objects.")
    predict_with_generate: bool = option(
        False, "Generate answers at each evaluation too, and measure them as --do_predict does."
    )
    load_best_model_at_end: bool = option(False, "Take the weights of the best checkpoint.", affects="training")
    metric_for_best_model: str | None = option(
        None, "What makes a checkpoint the best; unset: the loss.", affects="best"
    )
    greater_is_better: bool | None = option(None, "Whether more of it is better; unset: by its name.", affects="best")
    eval_do_concat_batches: bool = option(True, "Only True.", only="the loss is weighted over all batches")
    batch_eval_metrics: bool = option(False, "Only False.", only="evaluation computes the loss alone")
    include_for_metrics: list[str] = option([], "Only empty.", only="evaluation computes the loss alone")
    prediction_loss_only: bool = option(
        False, "Only False.", only="evaluation without --predict_with_generate computes the loss alone"
    )

    # Saving
    save_strategy: str = option("steps", "When to save a checkpoint.", affects="best", choices=(*WHEN, "best"))
    save_steps: float = option(
        250, "Steps between two checkpoints; below 1, a share of all steps.", affects="best", rule=STEPS
    )
    save_total_limit: int | None = option(40, "Checkpoints to keep; older ones are deleted.", rule=AT_LEAST_1)
    save_only_model: bool = option(False, "Save no optimizer state: training cannot go on from such a checkpoint.")
    save_on_each_node: bool = option(False, "Save on each machine, and not on the first alone.")
    restore_callback_states_from_checkpoint: bool = option(False, "Bring back the state of callbacks.")
    ignore_data_skip: bool = option(False, "Begin with the first rows again where training goes on.", affects="rows")
    enable_jit_checkpoint: bool = option(False, "Only False.", only="SIGTERM saves a checkpoint by itself")

    # The hub
    push_to_hub: bool = option(False, "Push to the hub after checkpoints and at the end.")
    hub_model_id: str | None = option(None, "Repository to push to; unset: the name of --output_dir.")
    hub_token: str | None = option(None, "Token for the hub; unset: the stored one.")
    hub_private_repo: bool | None = option(None, "Whether the repository is private; unset: as the owner has it.")
    hub_strategy: str = option(
        "every_save", "When to push.", choices=("end", "every_save", "checkpoint", "all_checkpoints")
    )
    hub_always_push: bool = option(False, "Push though the push before is still going on.")
    hub_revision: str | None = option(None, "Branch, tag or commit to push to.")

    # Loading rows
    train_sampling_strategy: str | None = option(
        None,
        "Order of training rows, in the library's plain micro-batches: random, sequential, group_by_length (a whole "
        "epoch by length), batch_rebalance; unset: random, and see --group_by_length.",
        affects="rows",
        choices=("random", "sequential", *GROUPING_STRATEGIES),
    )
    length_column_name: str = option("length", "Column of lengths for these strategies.")
    dataloader_drop_last: bool = option(False, "Leave out a last step that is not full.", affects="rows")
    dataloader_num_workers: int = option(0, "Processes that load rows.", rule=NOT_BELOW_0)
    dataloader_pin_memory: bool = option(True, "Load rows into memory from which a GPU copies faster.")
    dataloader_persistent_workers: bool = option(False, "Keep these processes from one epoch to the next.")
    dataloader_prefetch_factor: int | None = option(None, "Batches that each of them loads ahead.", rule=AT_LEAST_1)
    dataloader_multiprocessing_context: str | None = option(
        None, "How they are started.", choices=("fork", "spawn", "forkserver")
    )
    dataloader_in_order: bool = option(True, "Take batches in their order, and not as they are ready.", affects="rows")
    remove_unused_columns: bool = option(
        False, "Must stay False.", only="it would remove the text before it is tokenized"
    )
    label_names: list[str] | None = option(None, "Only unset.", only="the rows' targets are the labels")
    sortish_sampler: bool = option(False, "Only False.", only="use --group_by_length")
    generation_max_length: int | None = option(None, "Only unset.", only="use --max_new_tokens")
    generation_num_beams: int | None = option(None, "Only unset.", only="use --num_beams")
    generation_config: str | None = option(None, "Only unset.", only="use the flags under 'generation' in --help")

    # Several processes
    local_rank: int = option(-1, "Only what the launcher says in LOCAL_RANK.")
    accelerator_config: Json = option(
        None, "Settings of accelerate: a JSON object, or a file that holds one.", affects="training", reads=json_or_file
    )
    parallelism_config: str | None = option(
        None, "Only unset.", only="no model is spread over several processes but by --fsdp or --deepspeed"
    )
    ddp_backend: str | None = option(
        None, "How processes talk.", choices=("nccl", "gloo", "mpi", "xccl", "hccl", "cncl", "mccl")
    )
    ddp_find_unused_parameters: bool | None = option(None, "Whether some weights take no part in a step.")
    ddp_bucket_cap_mb: int | None = option(None, "MB of gradients sent together.", rule=AT_LEAST_1)
    ddp_broadcast_buffers: bool | None = option(None, "Send buffers to the other processes.")
    ddp_static_graph: bool | None = option(None, "Whether every step uses the same weights.")
    ddp_timeout: int = option(1800, "Seconds to wait for another process.", rule=AT_LEAST_1)
    fsdp: str | None | Literal[True] = option(
        None,
        "Shard an unquantized model over the processes.",
        affects="training",
        nargs="?",
        const=True,
        reads=words(true=True, false=None),
    )
    fsdp_config: Json = option(
        None, "Settings of it: a JSON object, or a file that holds one.", affects="training", reads=json_or_file
    )
    deepspeed: str | None = option(
        None, "DeepSpeed's settings: a JSON object, or a file that holds one.", affects="training"
    )

    def flags_set(self, names: tuple[str, ...]) -> list[str]:
        """Return `--flag value` for each of `names` that is away from its default; a token is not shown."""
        defaults = {flag.name: default_of(flag) for flag in fields(self)}
        values = {name: getattr(self, name) for name in names if getattr(self, name) != defaults[name]}
        return [f"--{name} {'…' if name.endswith('_token') else as_written(value)}" for name, value in values.items()]
