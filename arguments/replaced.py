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
# What to do here instead → flags of other tools, without dashes: older transformers and its example scripts, the
# published QLoRA script, alpaca-lora, PEFT, TRL, LLaMA-Factory, axolotl, unsloth, torchtune, litgpt.
INSTEAD = {
    # the base model
    "use --model_name_or_path": (
        "base base_model base_model_name_or_path load_model model model_dir model_id model_name model_path "
        "pretrained_model pretrained_model_name_or_path"
    ),
    "use --model_name_or_path for the base, --resume_from_checkpoint for a run to go on with": (
        "checkpoint_dir ckpt ckpt_dir"
    ),
    "the tokenizer is that of --model_name_or_path; leave it out": (
        "tokenizer tokenizer_name tokenizer_name_or_path tokenizer_path tokenizer_type use_fast_tokenizer "
        "use_slow_tokenizer"
    ),
    "the config.json of --model_name_or_path says it; leave it out": (
        "config_name config_overrides model_config model_type rope_scaling"
    ),
    "fetch that revision with `hf download`, and give its directory as --model_name_or_path": "model_revision revision",
    "use --use_auth_token, which sends the token that `hf auth login` has stored": (
        "access_token auth_token hf_hub_token hf_token hf_use_auth_token token"
    ),
    "leave --bf16 and --fp16 out": "fp32",
    "use --bf16 or --fp16": (
        "amp bfloat16 bnb_4bit_compute_dtype compute_dtype dtype float16 half mixed_precision precision torch_dtype"
    ),
    "use --fp16 or --bf16 alone": "fp16_backend fp16_opt_level half_precision_backend",
    "attention is computed as transformers chooses for the model; leave it out": (
        "attn_implementation eager_attention flash_attention flash_attention_2 flash_attn s2_attention sdp_attention "
        "shift_attn use_flash_attention use_flash_attention_2 use_flash_attn xformers_attention"
    ),
    "it is always so; leave it out": "low_cpu_mem_usage use_accelerate",
    "the vocabulary is the base model's, with a pad token where it has none; leave it out": (
        "add_tokens eos_token new_special_tokens pad_token resize_vocab special_tokens"
    ),
    "there is one way to train; leave it out": "unsloth use_unsloth",
    # bits
    "use --bits": "bit load_in_bits num_bits quantization quantization_bit quantization_bits quantize wbits",
    "use --bits 4": "int4 load_4bit load_in_4bit nf4 use_4bit",
    "use --bits 8": "int8 load_8bit load_in_8bit use_8bit use_int8",
    "use --quant_type": "bnb_4bit_quant_type quantization_type",
    "use --double_quant": (
        "bnb_4bit_use_double_quant compress_statistics double_quantization nested_quant use_bnb_nested_quant "
        "use_double_quant use_nested_quant"
    ),
    "bitsandbytes quantizes, and stores bytes; leave it out": "bnb_4bit_quant_storage quant_method quantization_method",
    # LoRA
    "use --lora_r": "lora_attn_dim lora_dim lora_rank r rank",
    "use --lora_alpha": "alpha",
    "use --lora_dropout": "dropout",
    "use --lora_modules": (
        "lora_attn_modules lora_key lora_layers lora_mlp lora_projection lora_query lora_target lora_target_linear "
        "lora_target_modules lora_target_parameters lora_value target_modules"
    ),
    "adapters are trained, unless you say --full_finetune; leave it out": (
        "adapter fine_tune_type finetuning_type lora lora_enable lora_task_type peft peft_type q_lora qlora sft_type "
        "task_type train_type tuner_type use_lora use_peft use_qlora"
    ),
    "use --full_finetune": "full_fine_tune full_finetuning full_parameter",
    "LoRA is plain, on linear layers alone; leave it out": (
        "additional_target bias fan_in_fan_out init_lora_weights loftq_config lora_bias lora_fan_in_fan_out "
        "lora_modules_to_save loraplus_lr_ratio modules_to_save peft_use_dora peft_use_rslora pissa_init use_dora "
        "use_rslora"
    ),
    "an adapter is trained further by the command that began it, or with --resume_from_checkpoint DIR": (
        "adapter_name_or_path adapter_path lora_ckpt lora_model_dir lora_path lora_weights peft_model "
        "resume_adapter_file"
    ),
    "only supervised fine-tuning is done, for which of preferences the chosen answers are learned; leave it out": (
        "beta dpo_beta loss_type pref_beta pref_loss ref_model reward_model rl stage"
    ),
    # after training
    "a run saves the adapter; merge_and_unload of PEFT merges it into its base": (
        "export export_dir merge merge_adapter merge_adapters merge_after_training merge_and_unload merge_lora "
        "merge_on_save merge_weights save_merged save_method save_model"
    ),
    "a run saves the adapter; merge it with merge_and_unload of PEFT, and convert that with llama.cpp": (
        "export_gguf gguf push_gguf save_gguf"
    ),
    "use --push_to_hub": "push push_model upload_to_hub",
    "use --hub_model_id": "hub_path hub_repo push_to_hub_model_id repo_id",
    "use --hub_model_id ORGANIZATION/NAME": "push_to_hub_organization",
    "use --hub_token": "push_to_hub_token",
    # data
    "use --dataset": (
        "data data_file data_files data_path dataset_id dataset_name dataset_path datasets train_data train_data_path "
        "train_dataset train_file train_path"
    ),
    "give the path of a file as --dataset": "data_dir dataset_dir",
    "the data sets of data/README.md are fetched by name; of any other give the file as --dataset": (
        "dataset_config dataset_config_name dataset_split dataset_train_split split subset train_split"
    ),
    "use --eval_dataset": (
        "dev_file eval_data eval_data_file eval_data_path eval_file eval_path test_data test_dataset test_file "
        "val_data val_dataset val_file valid_file validation_data validation_file"
    ),
    "give the rows as a file with --eval_dataset, or hold some out with --eval_dataset_size": (
        "dataset_test_split eval_split test_split"
    ),
    "use --eval_dataset_size (rows, or a fraction below 1)": (
        "dev_ratio split_ratio test_size val_ratio val_set_size val_size val_split validation_split "
        "validation_split_percentage"
    ),
    "use --dataset_format": "data_format dataset_type format prompt_style",
    "columns are found by their names (see data/README.md), or use --dataset_format": (
        "dataset_text_field prompt_column response_column summary_column text_column text_field"
    ),
    "use --prompt_format for questions and answers, --chat_template for conversations": (
        "chat_template_path conv_template conversation_template prompt_template prompt_template_name prompt_type "
        "template"
    ),
    "put it into the rows: conversations may begin with a system turn": "default_system system system_prompt",
    "answers alone are supervised; --train_on_source supervises the source too": (
        "assistant_only_loss completion_only_loss instruction_template mask_history mask_inputs mask_prompt "
        "response_template train_on_completions_only train_on_input train_on_inputs train_on_prompt "
        "train_on_responses_only"
    ),
    "use --source_max_len and --target_max_len": (
        "block_size context_length cutoff_len length max_completion_length max_input_length max_len max_length "
        "max_prompt_length max_seq_len max_seq_length max_source_length max_target_length model_max_length seq_len "
        "seq_length sequence_len train_max_seq_length val_max_target_length"
    ),
    "use --packing": "neat_packing packed packing_strategy padding_free sample_packing use_packing",
    "rows are evaluated each by itself; --packing packs those that are trained on": "eval_packing eval_sample_packing",
    "rows are padded to the longest of their micro-batch; leave it out": (
        "pad_to_max_length pad_to_multiple_of pad_to_sequence_len"
    ),
    "use --max_train_samples and --max_eval_samples": "max_samples n_samples num_samples subset_size",
    "rows are prepared once and kept (see data/README.md); leave it out": (
        "dataset_num_proc dataset_prepared_path dataset_processes num_proc overwrite_cache preprocessing_num_workers "
        "skip_prepare_dataset tokenized_path"
    ),
    "rows are mapped into memory, not read into it; leave it out": "dataset_streaming streaming",
    "give weights: --dataset a.jsonl:0.7,b.jsonl:0.3": "interleave_probs mix_strategy mixing_weights",
    "rows are drawn at random; --train_sampling_strategy sequential takes them in order": "shuffle shuffle_dataset",
    # steps
    "use --per_device_train_batch_size (rows in a micro-batch)": (
        "batch_size device_batch_size micro_batch micro_batch_size micro_train_batch_size per_device_batch_size "
        "per_gpu_train_batch_size train_batch_size train_micro_batch_size"
    ),
    "use --per_device_eval_batch_size": "eval_batch_size per_gpu_eval_batch_size val_batch_size",
    "it is --per_device_train_batch_size times --gradient_accumulation_steps": (
        "effective_batch_size global_batch_size total_batch_size train_global_batch_size"
    ),
    "use --gradient_accumulation_steps": (
        "accumulation_steps grad_acc_steps grad_accum grad_accum_steps gradient_accumulation "
        "gradient_accumulation_iters"
    ),
    "use --learning_rate": "lr max_lr peak_lr",
    "use --max_steps -1 --num_train_epochs": "epoch epochs max_epochs n_epochs num_epochs train_epochs",
    "use --max_steps": (
        "iters max_iters max_train_steps num_iters num_steps num_train_steps steps total_steps train_steps"
    ),
    "use --lr_scheduler_type": "lr_schedule lr_scheduler scheduler scheduler_type",
    "use --lr_scheduler_type cosine_with_min_lr and --lr_scheduler_kwargs": "cosine_min_lr_ratio min_lr min_lr_ratio",
    "use --warmup_steps or --warmup_ratio": (
        "lr_warmup_steps num_warmup_steps warmup warmup_fraction warmup_iters warmup_proportion warmup_steps_ratio"
    ),
    "use --optim": "optim_type optimizer optimizer_type",
    "use --optim adafactor": "adafactor",
    "use --adam8bit": "adam_8bit use_8bit_adam",
    "use --weight_decay": "wd",
    "use --max_grad_norm": "clip_grad clip_grad_norm grad_clip gradient_clip_val gradient_clipping max_norm",
    "use --neftune_noise_alpha": "noisy_embedding_alpha",
    "use --seed": "manual_seed random_seed random_state",
    "it is on; --gradient_checkpointing False turns it off": (
        "enable_activation_checkpointing enable_gradient_checkpointing grad_checkpoint grad_checkpointing "
        "use_gradient_checkpointing"
    ),
    "use --gradient_checkpointing False": "disable_gradient_checkpointing no_gradient_checkpointing",
    "use --gradient_checkpointing_kwargs": "gradient_checkpointing_use_reentrant use_reentrant",
    "activations are computed again, not moved (--gradient_checkpointing); leave it out": (
        "activation_offloading enable_activation_offloading"
    ),
    "use --dataloader_num_workers": "dataloader_workers num_workers workers",
    "use --use_liger_kernel": "enable_liger_kernel liger use_liger",
    "use --torch_compile": "compile compile_model torchdynamo use_compile",
    # evaluating, saving, logging
    "training runs to its end; --load_best_model_at_end with --eval_strategy steps takes the best checkpoint": (
        "early_stop early_stopping early_stopping_min_delta early_stopping_patience early_stopping_steps "
        "early_stopping_threshold patience"
    ),
    "use --eval_strategy steps": "eval_during_training evaluate_during_training",
    "use --eval_steps": "eval_every eval_freq eval_frequency eval_interval evals_per_epoch steps_per_eval val_interval",
    "use --do_predict": "do_generate do_inference do_test generate inference predict test",
    "put the questions into a file, and use --eval_dataset and --do_predict": "prompt prompts",
    "use --do_train, --do_eval and --do_predict": "mode train",
    "use --save_steps": (
        "checkpoint_every checkpoint_interval checkpointing_steps save_every save_every_n_steps save_freq "
        "save_interval saves_per_epoch"
    ),
    "use --output_dir": "out out_dir output output_folder output_path save_dir save_path",
    "the same command goes on where it stopped; to start anew, give another --output_dir or remove this one": (
        "overwrite overwrite_output_dir"
    ),
    "the same command again goes on from its last checkpoint; or name one with --resume_from_checkpoint DIR": (
        "auto_resume_from_checkpoints checkpoint continue_from resume resume_checkpoint resume_from"
    ),
    "weights are always saved as safetensors; leave it out": "safe_serialization save_safetensors",
    "use --logging_steps": "log_every log_every_n_steps log_interval log_steps logging_interval steps_per_report",
    "logs go to --output_dir; for TensorBoard set the variable TENSORBOARD_LOGGING_DIR": "log_dir logging_dir",
    "the losses are in trainer_state.json; for pictures use --report_to": "plot_loss",
    "use --report_to": "tracker with_tracking",
    "use --report_to wandb": "use_wandb wandb with_wandb",
    "use --report_to wandb, and set the variable WANDB_PROJECT": "wandb_project",
    "use --report_to wandb, and set the variable WANDB_ENTITY": "wandb_entity",
    "use --report_to wandb, and set the variable WANDB_WATCH": "wandb_watch",
    "use --report_to wandb, and set the variable WANDB_LOG_MODEL": "wandb_log_model",
    "use --run_name": "exp_name experiment_name wandb_name wandb_run_name",
    "use --log_level info": "verbose",
    "use --include_num_input_tokens_seen": "include_tokens_per_second",
    "evaluation computes the loss alone; leave it out": "include_inputs_for_metrics",
    "use --predict_with_generate, which measures generated answers": "compute_accuracy compute_metrics",
    "there is one loop for evaluation and prediction; leave it out": "use_legacy_prediction_loop",
    # generation
    "use --max_new_tokens": "max_gen_len max_gen_length max_generate_length max_tokens",
    "use --temperature": "temp",
    "use --num_beams": "beam_size beams",
    "one answer is written for each row; leave it out": "num_return_sequences",
    # machines
    "the device is found by itself; --use_cpu keeps a run on the CPU": (
        "cpu cuda device gpu tpu use_cuda use_gpu use_mps_device"
    ),
    "start qlora.py with torchrun for several GPUs (see README.md); CUDA_VISIBLE_DEVICES says which": (
        "devices gpu_id gpu_ids gpus n_gpu n_gpus nnodes nproc nproc_per_node num_gpus num_nodes num_processes"
    ),
    "use --deepspeed": "deepspeed_config ds_config zero_stage",
    "use --fsdp": "sharded_ddp",
    "use --fsdp_config": "fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap",
    "use --ddp_backend": "xpu_backend",
    "use --accelerator_config": "dispatch_batches split_batches",
    "there is no file of settings: each is a flag": "args_file config config_file yaml",
}
REPLACED_FLAGS = {name: instead for instead, names in INSTEAD.items() for name in names.split()}
