"""What to tell someone who wrote a flag that there is not: the flag that is near, or what another tool's flag is here.

unknown_flag("--lerning_rate", {"--learning_rate": action}, {})   # "unknown flag --lerning_rate. Did you mean …?"
"""

import argparse
import re
from collections.abc import Iterable, Mapping

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


def unknown_flag(found: str, known: Mapping[str, argparse.Action], replaced: Mapping[str, str]) -> str:
    """Return what to tell someone who wrote `found`."""
    name = found.partition("=")[0]
    if not found.startswith("-") and not re.match(r"[\w.]+=", found):
        return f"unexpected argument {found!r}: every value needs a flag in front of it, like --dataset {found}."
    if f"--{name}" in known:
        return f"unexpected argument {found!r}: a flag begins with two dashes, as in --{found}."
    key = re.sub(r"[-.]", "_", name.lstrip("-"))
    flags = {flag.lstrip("-").replace("-", "_"): action for flag, action in known.items()}
    instead = replaced.get(key) or switched_off(key, flags)
    text = f"no flag {name} here: {instead}." if instead else f"unknown flag {name}. {nearest(key, flags, replaced)}"
    return f"{text} All flags: python qlora.py --help"


def switched_off(key: str, flags: Mapping[str, argparse.Action]) -> str | None:
    """Return how to say `no_key`, where key is a flag that is on or off."""
    name = key.removeprefix("no_")
    return f"use --{name} False" if name != key and name in flags and flags[name].const is True else None


def nearest(key: str, flags: Iterable[str], replaced: Mapping[str, str]) -> str:
    """Return which flag may be meant, of those here or else of other tools."""
    near = near_flags(key, flags)
    if near:
        return f"Did you mean {' or '.join(f'--{flag}' for flag in near)}?"
    other = next(iter(slips(key, replaced)), None)
    return f"For --{other} of other tools: {replaced[other]}." if other else "Nothing here has a similar name."


def near_flags(name: str, flags: Iterable[str]) -> list[str]:
    """Return at most 3 flags that `name` is a slip of, or else begins, or has two words or more of and no other."""
    words = set(name.split("_"))
    near = slips(name, flags) or [flag for flag in flags if len(name) > 3 and flag.startswith(name)]
    near = near or [flag for flag in flags if len(words) > 1 and words <= set(flag.split("_"))]
    return sorted(near) if len(near) <= 3 else []


def slips(name: str, names: Iterable[str]) -> list[str]:
    """Return the nearest of `names` that differ from `name` by a letter in five of a word, but at least by one."""
    distances = {}
    for other in names if len(name) > 2 else ():
        ours, theirs = name.lower().split("_"), other.lower().split("_")
        if len(ours) != len(theirs):
            ours, theirs = [name.lower()], [other.lower()]
        by_word = [edit_distance(word, twin) for word, twin in zip(ours, theirs, strict=True)]
        if all(distance <= max(1, len(word) // 5) for word, distance in zip(ours, by_word, strict=True)):
            distances[other] = sum(by_word)
    return [other for other, distance in distances.items() if distance == min(distances.values())]


def edit_distance(first: str, second: str) -> int:
    """Return letters to add, drop, replace or swap with their neighbour, to make `second` of `first`.

    Source: https://en.wikipedia.org/wiki/Damerau-Levenshtein_distance (optimal string alignment). To import nltk's
    takes 0.8 s, of the two in which a mistyped flag is to be refused.
    """
    before, last = [], list(range(len(second) + 1))  # the rows above the present one
    for row, letter in enumerate(first, 1):
        present = [row]
        for column, other in enumerate(second, 1):
            cost = min(last[column] + 1, present[column - 1] + 1, last[column - 1] + (letter != other))
            swapped = row > 1 and column > 1 and first[row - 2] == other and letter == second[column - 2]
            present.append(min(cost, before[column - 2] + 1) if swapped else cost)
        before, last = last, present
    return last[-1]
