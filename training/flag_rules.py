"""What values flags may have, as tables: choices, ranges, what is needed, and what other versions called them."""

from collections.abc import Callable
from typing import Any

CHOICES = {
    "bits": (4, 8, 16, 32),
    "quant_type": ("nf4", "fp4"),
    "mmlu_split": ("eval", "test"),
    "train_sampling_strategy": (None, "random", "sequential", "group_by_length", "batch_rebalance"),
    "include_num_input_tokens_seen": ("no", "all", "non_padding"),
}
GROUPING_STRATEGIES = ("group_by_length", "batch_rebalance")  # those that choose rows by their length
# The rule in words, its test, and the flags that keep it where they are set.
RANGES: tuple[tuple[str, Callable[[Any], bool], tuple[str, ...]], ...] = (
    (
        "1 or more",
        lambda n: n >= 1,
        (
            "max_mmlu_samples", "mmlu_source_max_len", "lora_r", "max_memory_MB", "per_device_train_batch_size",
            "per_device_eval_batch_size", "gradient_accumulation_steps", "eval_accumulation_steps",
            "dataloader_prefetch_factor", "save_total_limit", "max_tokens_per_batch", "torch_empty_cache_steps",
            "ddp_timeout", "ddp_bucket_cap_mb",
        ),
    ),
    (
        "more than 0",
        lambda x: x > 0,
        (
            "lora_alpha", "learning_rate", "logging_steps", "save_steps", "eval_steps", "num_train_epochs",
            "adam_epsilon",
        ),
    ),
    (
        "0 or more",
        lambda x: x >= 0,
        (
            "weight_decay", "max_grad_norm", "warmup_steps", "eval_delay", "dataloader_num_workers",
            "neftune_noise_alpha",
        ),
    ),
    ("a whole number, or a share below 1", lambda x: x < 1 or x == int(x), ("warmup_steps",)),
    ("from 0 to below 1", lambda x: 0 <= x < 1, ("lora_dropout", "adam_beta1", "adam_beta2", "label_smoothing_factor")),
    ("from 0 to 1", lambda x: 0 <= x <= 1, ("warmup_ratio",)),
    ("from 0 to 4294967295", lambda n: 0 <= n < 2**32, ("seed", "data_seed")),
    ("1 or more, or -1 for --num_train_epochs", lambda n: n == -1 or n >= 1, ("max_steps",)),
)  # fmt: skip
# Modules, of which one must be installed, for each tracker of --report_to.
TRACKERS = {
    "none": (), "all": (), "azure_ml": ("azureml",), "clearml": ("clearml",), "codecarbon": ("codecarbon",),
    "comet_ml": ("comet_ml",), "dagshub": ("dagshub",), "dvclive": ("dvclive",), "flyte": ("flytekit",),
    "mlflow": ("mlflow",), "neptune": ("neptune",), "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",), "wandb": ("wandb",),
}  # fmt: skip
# Decoding methods that the pinned transformers dropped: the flag stays at its default, anything else is refused.
GONE_DECODING = {
    "num_beam_groups": "diverse beam search",
    "diversity_penalty": "diverse beam search",
    "penalty_alpha": "contrastive search",
}
SAMPLING_OPTIONS = ("temperature", "top_k", "top_p", "typical_p")
# Flags of transformers that have no meaning here: (the only value allowed, why).
FIXED_FLAGS: dict[str, tuple[Any, str]] = {
    "remove_unused_columns": (False, "it would remove the text before it is tokenized"),
    "eval_do_concat_batches": (True, "the loss is weighted over all batches"),
    "batch_eval_metrics": (False, "evaluation computes the loss alone"),
    "include_for_metrics": ([], "evaluation computes the loss alone"),
    "prediction_loss_only": (False, "evaluation without --predict_with_generate computes the loss alone"),
    "label_names": (None, "the rows' targets are the labels"),
    "parallelism_config": (None, "no model is spread over several processes but by --fsdp or --deepspeed"),
    "enable_jit_checkpoint": (False, "SIGTERM saves a checkpoint by itself"),
    "sortish_sampler": (False, "use --group_by_length"),
    "generation_max_length": (None, "use --max_new_tokens"),
    "generation_num_beams": (None, "use --num_beams"),
    "generation_config": (None, "use the flags under 'generation' in --help"),
}
# Flags of older transformers and of other QLoRA scripts, without dashes → what to do instead.
REPLACED_FLAGS = {
    "adafactor": "use --optim adafactor",
    "base_model": "use --model_name_or_path",
    "batch_size": "use --per_device_train_batch_size (rows in a micro-batch)",
    "bnb_4bit_compute_dtype": "use --bf16 or --fp16",
    "bnb_4bit_quant_type": "use --quant_type",
    "compress_statistics": "use --double_quant",
    "cutoff_len": "use --source_max_len and --target_max_len",
    "data_path": "use --dataset",
    "dataset_name": "use --dataset",
    "dataset_path": "use --dataset",
    "device": "the device is found by itself; --use_cpu keeps a run on the CPU",
    "dispatch_batches": "use --accelerator_config",
    "epochs": "use --max_steps -1 --num_train_epochs",
    "eval_file": "use --eval_dataset",
    "fp16_backend": "use --fp16 or --bf16 alone",
    "fp16_opt_level": "use --fp16 or --bf16 alone",
    "fsdp_min_num_params": "use --fsdp_config",
    "fsdp_transformer_layer_cls_to_wrap": "use --fsdp_config",
    "half_precision_backend": "use --fp16 or --bf16 alone",
    "include_inputs_for_metrics": "evaluation computes the loss alone; leave it out",
    "include_tokens_per_second": "use --include_num_input_tokens_seen",
    "load_in_4bit": "use --bits 4",
    "load_in_8bit": "use --bits 8",
    "logging_dir": "logs go to --output_dir; for TensorBoard set the variable TENSORBOARD_LOGGING_DIR",
    "lora_rank": "use --lora_r",
    "lora_target_modules": "use --lora_modules",
    "lr": "use --learning_rate",
    "max_len": "use --source_max_len and --target_max_len",
    "max_length": "use --source_max_len and --target_max_len",
    "max_seq_length": "use --source_max_len and --target_max_len",
    "micro_batch_size": "use --per_device_train_batch_size",
    "model": "use --model_name_or_path",
    "model_max_length": "use --source_max_len and --target_max_len",
    "num_epochs": "use --max_steps -1 --num_train_epochs",
    "overwrite_output_dir": (
        "the same command again goes on from its last checkpoint; "
        "to start anew, give another --output_dir or remove the old one"
    ),
    "per_gpu_eval_batch_size": "use --per_device_eval_batch_size",
    "per_gpu_train_batch_size": "use --per_device_train_batch_size",
    "push_to_hub_model_id": "use --hub_model_id",
    "push_to_hub_organization": "use --hub_model_id ORGANIZATION/NAME",
    "push_to_hub_token": "use --hub_token",
    "resume": "the same command again goes on from its last checkpoint; or name one with --resume_from_checkpoint DIR",
    "save_safetensors": "weights are always saved as safetensors; leave it out",
    "sharded_ddp": "use --fsdp",
    "split_batches": "use --accelerator_config",
    "target_modules": "use --lora_modules",
    "test_file": "use --eval_dataset",
    "test_size": "use --eval_dataset_size",
    "torch_dtype": "use --bf16 or --fp16",
    "torchdynamo": "use --torch_compile",
    "train_file": "use --dataset",
    "use_accelerate": "it is always on; leave it out",
    "use_double_quant": "use --double_quant",
    "use_legacy_prediction_loop": "there is one loop for evaluation and prediction; leave it out",
    "use_mps_device": "the device is found by itself; leave it out",
    "val_set_size": "use --eval_dataset_size",
    "validation_file": "use --eval_dataset",
    "xpu_backend": "use --ddp_backend",
}
