"""A walk over every flag, the library's and this tool's, with a wrong value each.

Each ends in exit status 2 and one message that names the flag, before torch is loaded where it can be told without, and
in any case before the base model is.
"""

import pytest

import qlora
from arguments.parser import flags_of, make_parser
from arguments.training import TrainingArguments

# Flag → what is written behind it: a wrong value, and other flags where it is wrong with them alone.
WRONG = {
    # base model
    "model_name_or_path": "./nowhere",
    "device_map": "balanced",
    # data
    "dataset": "nosuch.jsonl",
    "dataset_format": "nosuch",
    "eval_dataset": "nosuch.jsonl",
    "eval_dataset_size": "1.5",
    "max_train_samples": "0",
    "max_eval_samples": "0",
    "source_max_len": "0",
    "target_max_len": "1",
    "chat_template": "nosuch.jinja",
    "prompt_format": "nosuch",
    "preview": "0",
    "cache_dir": "qlora.py",
    # what is trained
    "full_finetune": "True --bits 4",
    "adam8bit": "True --optim sgd",
    "quant_type": "int4",
    "bits": "5",
    "lora_r": "0",
    "lora_alpha": "0",
    "lora_dropout": "1",
    "lora_modules": "nosuch",
    "max_memory_MB": "0",
    "max_tokens_per_batch": "0",
    "packing": "True --train_sampling_strategy group_by_length",
    "shared_prefix": "on",
    "group_by_length": "False --train_sampling_strategy group_by_length",
    "train_sampling_strategy": "nosuch",
    "output_dir": "qlora.py",
    "do_train": "False",
    "resume_from_checkpoint": "nosuch",
    "max_steps": "0",
    "num_train_epochs": "0 --max_steps -1",
    "per_device_train_batch_size": "0",
    "gradient_accumulation_steps": "0",
    "seed": "-1",
    "data_seed": "-1",
    # schedule and optimizer
    "learning_rate": "nan",
    "lr_scheduler_type": "cosine_with_min_lr",
    "lr_scheduler_kwargs": "nojson",
    "warmup_ratio": "1.1",
    "warmup_steps": "-1",
    "optim": "lomo",
    "optim_args": "momentum=x --optim sgd",
    "optim_target_modules": "all-linear",
    "weight_decay": "-1",
    "adam_beta1": "1",
    "adam_beta2": "1",
    "adam_epsilon": "0",
    "max_grad_norm": "-1",
    "label_smoothing_factor": "1",
    "neftune_noise_alpha": "-1",
    # precision and memory
    "fp16": "True --bf16",
    "bf16": "True --fp16",
    "fp16_full_eval": "True --bits 4",
    "bf16_full_eval": "True --bits 4",
    "activation_checkpointing": "False --gradient_checkpointing True",
    "gradient_checkpointing": "False --activation_checkpointing True",
    "activation_checkpointing_kwargs": '{"every_n_layers":0}',
    "gradient_checkpointing_kwargs": "nojson",
    "torch_compile_backend": "nosuch",
    "torch_compile_mode": "nosuch",
    "use_liger_kernel": "True",
    "liger_kernel_config": '{"rope":1}',
    "torch_empty_cache_steps": "0",
    "auto_find_batch_size": "True --packing",
    # evaluation
    "eval_strategy": "always",
    "eval_steps": "0",
    "eval_delay": "-1",
    "per_device_eval_batch_size": "0",
    "eval_accumulation_steps": "0",
    "eval_on_start": "True",
    "eval_do_concat_batches": "False",
    "prediction_loss_only": "True",
    "include_for_metrics": "inputs",
    "batch_eval_metrics": "True",
    "label_names": "labels",
    "metric_for_best_model": "nosuch --eval_strategy steps",
    "greater_is_better": "True",
    "load_best_model_at_end": "True",
    "compare_base": "True",
    "mmlu_split": "train",
    "mmlu_dataset": "nosuch.json",
    "max_mmlu_samples": "0",
    "mmlu_source_max_len": "0",
    # logging and saving
    "logging_strategy": "always",
    "logging_steps": "0",
    "include_num_input_tokens_seen": "some",
    "log_level": "loud",
    "log_level_replica": "loud",
    "report_to": "nosuch",
    "project": "mine",
    "trackio_space_id": "mine",
    "trackio_bucket_id": "mine",
    "trackio_static_space_id": "mine",
    "save_strategy": "best",
    "save_steps": "0",
    "save_total_limit": "0",
    "enable_jit_checkpoint": "True",
    # hub
    "push_to_hub": "True",
    "hub_token": "hf_secret",
    "hub_private_repo": "True",
    "hub_model_id": "mine",
    "hub_strategy": "end",
    "hub_always_push": "True",
    "hub_revision": "main",
    # loading rows
    "dataloader_num_workers": "-1",
    "dataloader_persistent_workers": "True",
    "dataloader_prefetch_factor": "2",
    "dataloader_multiprocessing_context": "spawn",
    "dataloader_in_order": "False",
    "remove_unused_columns": "True",
    "sortish_sampler": "True",
    # several processes
    "local_rank": "3",
    "accelerator_config": '{"even_batches":"maybe"}',
    "parallelism_config": '{"tp_size":2}',
    "ddp_backend": "gloo",
    "ddp_bucket_cap_mb": "0",
    "ddp_timeout": "0",
    "fsdp": "full_shard",
    "fsdp_config": "nosuch.json",
    "deepspeed": "nosuch.json",
    "debug": "nosuch",
    # generation
    "generation_config": "nosuch.json",
    "generation_max_length": "5",
    "generation_num_beams": "2",
    "max_new_tokens": "0",
    "min_new_tokens": "-1",
    "num_beams": "0",
    "num_beam_groups": "2",
    "penalty_alpha": "0.6",
    "temperature": "0",
    "top_k": "-1",
    "top_p": "1.5",
    "typical_p": "0",
    "diversity_penalty": "0.5",
    "repetition_penalty": "0",
    "length_penalty": "inf",
    "no_repeat_ngram_size": "-1",
}
# Both truth values are right whatever stands beside them, so that only another word is wrong.
TRUTHS = (
    "trust_remote_code", "use_auth_token", "train_on_source", "double_quant", "do_eval", "do_mmlu_eval", "do_predict",
    "use_cpu", "tf32", "torch_compile", "average_tokens_across_devices", "predict_with_generate",
    "eval_use_gather_object", "logging_first_step", "logging_nan_inf_filter", "log_on_each_node", "disable_tqdm",
    "save_only_model", "save_on_each_node", "ignore_data_skip", "restore_callback_states_from_checkpoint",
    "full_determinism", "dataloader_drop_last", "dataloader_pin_memory", "ddp_find_unused_parameters",
    "ddp_broadcast_buffers", "ddp_static_graph", "skip_memory_metrics", "do_sample", "use_cache",
)  # fmt: skip
# Flag → why no value of it is wrong.
FREE = {
    "run_name": "any text names a run; that no tracker shows it is said in a note",
    "length_column_name": "rows may have any column; that lengths are not read from it is said in a note",
}
# What torch, the tokenizer or the base model's config must be asked about.
TOLD_BY_TORCH = {"lora_modules", "torch_compile_backend", "torch_compile_mode"}
WALK = WRONG | dict.fromkeys(TRUTHS, "maybe")


def test_every_flag_is_in_the_walk():
    flags = {action.dest for action in flags_of(make_parser()).values()} - {"help"}
    assert flags == WALK.keys() | FREE.keys()
    training = TrainingArguments()
    tied = training.needs() + training.idle(on_cpu=True)
    assert {name for names, *_ in tied for name in names} < flags
    assert not WALK.keys() & FREE.keys() and not WRONG.keys() & set(TRUTHS)


@pytest.mark.parametrize("flag", WALK)
def test_a_wrong_value_is_refused_before_a_model_loads(flag, make_base, command, capsys, monkeypatch):
    argv = [*command(make_base(), f"--{flag}"), *WALK[flag].split()]
    started = []
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    quiet = qlora.quiet
    monkeypatch.setattr(qlora, "quiet", lambda: started.append(flag) or quiet())  # what comes after it brings torch
    monkeypatch.setattr("training.model.build.load_base_model", lambda *args: pytest.fail("the base model was loaded"))
    assert qlora.main(argv) == 2
    message = capsys.readouterr().err
    assert "qlora.py: error: " in message and f"--{flag}" in message and "Traceback" not in message
    assert bool(started) == (flag in TOLD_BY_TORCH)
