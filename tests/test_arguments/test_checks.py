"""What the libraries would trip over is refused before torch is loaded."""

import pytest

from arguments.declare import ArgumentsError
from arguments.parser import parse

EVALUATED = ["--eval_strategy", "steps", "--eval_steps", "1"]


def refusal(make_args, *argv: str) -> str:
    with pytest.raises(ArgumentsError) as refused:
        parse(["--use_cpu", *argv])
    return str(refused.value)


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--lr_scheduler_type", "warmup_stable_decay"], ["warmup_stable_decay needs num_decay_steps", "_kwargs"]),
        (["--lr_scheduler_type", "cosine_warmup_with_min_lr"], ["needs min_lr or min_lr_rate", "_kwargs"]),
        (
            ["--lr_scheduler_type", "cosine_with_min_lr", "--lr_scheduler_kwargs", '{"min_lr": 0, "min_lr_rate": 0}'],
            ["needs min_lr or min_lr_rate, and not both"],
        ),
        (["--lr_scheduler_kwargs", '{"num_cycles": 1}'], ['{"num_cycles": 1}', "constant has no", "there is none"]),
        (
            ["--lr_scheduler_type", "cosine", "--lr_scheduler_kwargs", '{"nosuch": 1}'],
            ["--lr_scheduler_type cosine has no 'nosuch'", "num_cycles"],
        ),
        (
            ["--lr_scheduler_type", "polynomial", "--lr_scheduler_kwargs", '{"power": "much"}'],
            ['power is "much"', "a number above 0"],
        ),
        (
            ["--lr_scheduler_type", "inverse_sqrt", "--lr_scheduler_kwargs", '{"timescale": 0}'],
            ["timescale is 0", "1 or more"],
        ),
        (["--lr_scheduler_kwargs", "{bad"], ["--lr_scheduler_kwargs {bad", "no JSON", "JSON object"]),
        (["--lr_scheduler_kwargs", "[1]"], ["--lr_scheduler_kwargs [1]", "JSON object"]),
        (["--lr_scheduler_type", "greedy"], ["--lr_scheduler_type greedy", "--eval_strategy"]),
        (
            ["--lr_scheduler_type", "greedy", "--metric_for_best_model", "bleu", "--predict_with_generate", *EVALUATED],
            ["greedy follows bleu to its min", '{"mode": "max"}'],
        ),
        (["--warmup_steps", "1.5"], ["--warmup_steps 1.5", "a whole number of steps, or a share"]),
        (["--gradient_checkpointing_kwargs", '{"nosuch": 1}'], ["--gradient_checkpointing_kwargs", "every_n_layers"]),
        (
            ["--gradient_checkpointing_kwargs", '{"use_reentrant": true, "debug": true}'],
            ["--gradient_checkpointing_kwargs", "debug cannot be set with use_reentrant"],
        ),
        (
            ["--gradient_checkpointing", "False", "--activation_checkpointing_kwargs", '{"every_n_layers": 2}'],
            ["--activation_checkpointing_kwargs", "no effect without --gradient_checkpointing"],
        ),
        (["--accelerator_config", "nosuch.json"], ["--accelerator_config nosuch.json", "No such file"]),
        (["--accelerator_config", '{"use_configured_state": true}'], ["use_configured_state is true", "false"]),
        (
            ["--accelerator_config", '{"gradient_accumulation_kwargs": {"num_steps": 2}}'],
            ["num_steps is 2", "--gradient_accumulation_steps"],
        ),
        (["--optim", "adamw_torch_4bit"], ["--optim adamw_torch_4bit", "torchao"]),
        (["--optim", "schedule_free_sgd"], ["--optim schedule_free_sgd", "schedulefree"]),
        (["--optim", "grokadamw"], ["--optim grokadamw", "package grokadamw"]),
        (["--optim", "apollo_adamw_layerwise"], ["--optim apollo_adamw_layerwise", "added up"]),
        (["--optim", "galore_adamw"], ["--optim galore_adamw", "--full_finetune"]),
        (
            ["--optim", "galore_adamw", "--full_finetune", "--bits", "16"],
            ["--optim galore_adamw needs --optim_target_modules"],
        ),
        (["--optim", "sgd", "--optim_args", "momentum"], ["--optim_args momentum", "name=value"]),
        (["--optim", "sgd", "--optim_args", "weight_decay=1"], ["--optim sgd has no 'weight_decay'", "momentum"]),
        (["--optim", "sgd", "--optim_args", "nesterov=perhaps"], ["nesterov", "true or false"]),
        (["--optim", "rmsprop_bnb", "--optim_args", "alpha=0.9"], ["--optim rmsprop_bnb has no 'alpha'", "none"]),
        (["--fsdp"], ["--fsdp True", "launcher"]),
        (["--save_strategy", "best", "--do_eval"], ["--save_strategy best", "--eval_strategy"]),
        (
            ["--save_strategy", "best", "--eval_strategy", "steps", "--max_steps", "9"],
            ["--save_strategy best", "--eval_steps 10", "--max_steps 9"],
        ),
        (
            ["--load_best_model_at_end", *EVALUATED, "--save_steps", "1", "--eval_delay", "5", "--max_steps", "4"],
            ["--load_best_model_at_end", "--eval_delay 5"],
        ),
        (
            ["--load_best_model_at_end", "--eval_strategy", "steps", "--eval_steps", "2", "--save_steps", "3"],
            ["--load_best_model_at_end", "a multiple of the second"],
        ),
        (["--metric_for_best_model", "loss"], ["--metric_for_best_model loss", "--eval_strategy"]),
        (["--metric_for_best_model", "rougeL", *EVALUATED], ["rougeL", "--predict_with_generate"]),
        (["--metric_for_best_model", "eval_nosuch", *EVALUATED], ["eval_nosuch", "loss, perplexity", "--do_mmlu_eval"]),
        (
            ["--metric_for_best_model", "nosuch", "--predict_with_generate", *EVALUATED],
            ["nosuch", "perplexity, exact_match"],
        ),
        (["--hub_token", "hf_secret"], ["--hub_token …", "--push_to_hub"]),
        (["--push_to_hub"], ["--push_to_hub with HF_HUB_OFFLINE=1"]),
        (["--push_to_hub", "--hub_strategy", "checkpoint"], ["--hub_strategy checkpoint", "every_save"]),
        (["--debug", "tpu_metrics_debug"], ["--debug tpu_metrics_debug", "torch_xla"]),
        (["--debug", "nosuch"], ["--debug nosuch", "underflow_overflow"]),
    ],
)
def test_refusals_name_what_is_wrong(make_args, argv, parts, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    message = refusal(make_args, *argv)
    for part in parts:
        assert part in message, part
    assert "hf_secret" not in message


def test_what_shards_a_model_is_refused_where_nothing_is_sharded(make_args, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert "--fsdp with --bits 4" in refusal(make_args, "--fsdp", "full_shard")
    assert "has no 'nosuch'" in refusal(make_args, "--fsdp", "--bits", "16", "--fsdp_config", '{"fsdp_nosuch": 1}')
    assert "--local_rank 3" in refusal(make_args, "--local_rank", "3")


def test_deepspeed_files_are_read(make_args, tmp_path, monkeypatch):
    for module in ("checks", "training"):
        monkeypatch.setattr(f"arguments.{module}.require_package", lambda *names: None)
    path = tmp_path / "ds.json"
    assert f"--deepspeed {path}: cannot be read" in refusal(make_args, "--deepspeed", str(path))
    path.write_text("nojson")
    assert "no JSON" in refusal(make_args, "--deepspeed", str(path))
    path.write_text('{"zero_optimization": {"stage": 3}}')
    assert "ZeRO stage 3 with --bits 4" in refusal(make_args, "--deepspeed", str(path))
