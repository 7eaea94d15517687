"""The command line: every flag, default and alias; published lines; every refusal."""

import dataclasses

import pytest

from arguments.declare import ArgumentsError, default_of
from arguments.library_flags import LEFT_OUT, OUR_DEFAULTS, LibraryArguments
from arguments.parser import flags_of, make_parser, parse
from arguments.unknown import replaced_flags
from tests.support.paths import REPOSITORY

MODEL_DEFAULTS = {"model_name_or_path": "EleutherAI/pythia-12b", "trust_remote_code": False, "use_auth_token": False}
DATA_DEFAULTS = {
    "eval_dataset_size": 1024,
    "max_train_samples": None,
    "max_eval_samples": None,
    "source_max_len": 1024,
    "target_max_len": 256,
    "dataset": "alpaca",
    "dataset_format": None,
}
TRAINING_DEFAULTS = {
    "cache_dir": None,
    "train_on_source": False,
    "mmlu_split": "eval",
    "mmlu_dataset": "mmlu-fs",
    "do_mmlu_eval": False,
    "max_mmlu_samples": None,
    "mmlu_source_max_len": 2048,
    "full_finetune": False,
    "adam8bit": False,
    "double_quant": True,
    "quant_type": "nf4",
    "bits": 4,
    "lora_r": 64,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "lora_modules": "all",
    "max_memory_MB": 80000,
    "report_to": "none",
    "output_dir": "./output",
    "optim": "paged_adamw_32bit",
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 16,
    "max_steps": 10000,
    "weight_decay": 0.0,
    "learning_rate": 2e-4,
    "remove_unused_columns": False,
    "max_grad_norm": 0.3,
    "do_train": True,
    "lr_scheduler_type": "constant",
    "warmup_ratio": 0.03,
    "logging_steps": 10,
    "group_by_length": True,
    "save_strategy": "steps",
    "save_steps": 250,
    "save_total_limit": 40,
}
GENERATION_DEFAULTS = {
    "max_new_tokens": 256,
    "min_new_tokens": None,
    "do_sample": False,
    "num_beams": 1,
    "num_beam_groups": 1,
    "penalty_alpha": None,
    "use_cache": True,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "typical_p": 1.0,
    "diversity_penalty": 0.0,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}
DEFAULTS = (MODEL_DEFAULTS, DATA_DEFAULTS, TRAINING_DEFAULTS, GENERATION_DEFAULTS)

# Published with the paper for 7B to 65B; they differ in batch size, learning rate, dropout and number of steps.
GUANACO = """
    --model_name_or_path huggyllama/llama-7b --output_dir ./output/guanaco-7b --logging_steps 10 --save_strategy steps
    --data_seed 42 --save_steps 500 --save_total_limit 40 --evaluation_strategy steps --eval_dataset_size 1024
    --max_eval_samples 1000 --per_device_eval_batch_size 1 --max_new_tokens 32 --dataloader_num_workers 1
    --group_by_length --logging_strategy steps --remove_unused_columns False --do_train --do_eval --do_mmlu_eval
    --lora_r 64 --lora_alpha 16 --lora_modules all --double_quant --quant_type nf4 --bf16 --bits 4 --warmup_ratio 0.03
    --lr_scheduler_type constant --gradient_checkpointing --dataset oasst1 --source_max_len 16 --target_max_len 512
    --per_device_train_batch_size 1 --gradient_accumulation_steps 16 --max_steps 1875 --eval_steps 187
    --learning_rate 0.0002 --adam_beta2 0.999 --max_grad_norm 0.3 --lora_dropout 0.1 --weight_decay 0.0 --seed 0
"""
LLAMA_2 = f"{GUANACO} --use_auth --tf32 --cache_dir /tmp/llama2"
GENERATE = """
    --model_name_or_path EleutherAI/pythia-12b --output_dir ./output --do_train False --do_eval False --do_predict True
    --predict_with_generate --per_device_eval_batch_size 4 --dataset alpaca --source_max_len 512 --target_max_len 128
    --max_new_tokens 64 --do_sample --top_p 0.9 --num_beams 1
"""


@pytest.fixture(scope="module")
def flags() -> dict:
    """Each spelling of a flag → its argparse action."""
    return dict(flags_of(make_parser()))


@pytest.fixture
def training():
    """A function: command line → the training arguments."""
    return lambda *argv: parse(argv).training


# ---- Flags, defaults, aliases --------------------------------------------------------------------------------------


def test_every_published_default():
    """But for --gradient_checkpointing, which was True: unset, it follows from the memory."""
    assert parse([]).training.checkpoints_activations is None
    for parsed, defaults in zip(parse([]), DEFAULTS, strict=True):
        values = parsed.resolved() if hasattr(parsed, "resolved") else vars(parsed)
        assert {name: values[name] for name in defaults} == defaults


def test_every_published_flag_parses_and_arrives(flags):
    """Every flag given its own default, in one command line, changes nothing."""
    argv = []
    for name, value in {k: v for table in DEFAULTS for k, v in table.items()}.items():
        assert f"--{name}" in flags
        argv += [] if value is None else [f"--{name}", str(value)]
    argv[argv.index("--max_steps") + 1] = "11"  # not the default: that it arrives is seen
    plain, given = parse([]), parse(argv)
    for before, after, table in zip(plain, given, DEFAULTS, strict=True):
        values, others = (vars(one) | (one.resolved() if hasattr(one, "resolved") else {}) for one in (before, after))
        changed = {name for name in table if values[name] != others[name]}
        assert changed == ({"max_steps"} if "max_steps" in table else set())


def test_the_flags_of_the_library_are_those_of_the_pinned_one():
    """Each is declared here, with its default where the published one is no other."""
    from transformers import Seq2SeqTrainingArguments

    library = {flag.name: flag for flag in dataclasses.fields(Seq2SeqTrainingArguments) if flag.init}
    ours = {flag.name: flag for flag in dataclasses.fields(LibraryArguments)}
    assert ours.keys() == library.keys() - set(LEFT_OUT)
    other = {name for name, flag in ours.items() if default_of(flag) != default_of(library[name])}
    assert other == set(OUR_DEFAULTS)


def test_choices_are_those_of_the_library():
    from transformers import trainer_utils, training_args

    kinds = {
        "optim": training_args.OptimizerNames,
        "lr_scheduler_type": trainer_utils.SchedulerType,
        "eval_strategy": trainer_utils.IntervalStrategy,
        "logging_strategy": trainer_utils.IntervalStrategy,
        "save_strategy": trainer_utils.SaveStrategy,
        "hub_strategy": trainer_utils.HubStrategy,
    }
    declared = {flag.name: flag.metadata for flag in dataclasses.fields(LibraryArguments)}
    for name, kind in kinds.items():
        assert set(declared[name]["choices"]) == {member.value for member in kind}, name
    for name in ("ddp_backend", "dataloader_multiprocessing_context", "log_level", "train_sampling_strategy"):
        theirs = training_args.TrainingArguments.__dataclass_fields__[name].metadata["choices"]
        assert set(declared[name]["choices"]) == set(theirs), name


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["--evaluation_strategy", "epoch"], "eval_strategy", "epoch"),
        (["--no_cuda"], "use_cpu", True),
        ([], "step_batching", True),
        ([], "train_sampling_strategy", "random"),
        (["--group_by_length"], "train_sampling_strategy", "random"),
        (["--group_by_length", "False"], "step_batching", False),
        (["--group_by_length", "False"], "train_sampling_strategy", "random"),
        (["--group_by_length", "False", "--packing"], "step_batching", True),
        (["--group_by_length", "False", "--max_tokens_per_batch", "64"], "step_batching", True),
        (["--train_sampling_strategy", "random"], "step_batching", False),
        (["--train_sampling_strategy", "group_by_length"], "step_batching", False),
        (["--train_sampling_strategy", "group_by_length"], "train_sampling_strategy", "group_by_length"),
        (["--train_sampling_strategy", "sequential", "--packing"], "step_batching", True),
        (["--train_sampling_strategy", "random", "--max_tokens_per_batch", "64"], "step_batching", True),
        (["--auto_find_batch_size"], "step_batching", False),
        (["--train_sampling_strategy", "sequential"], "train_sampling_strategy", "sequential"),
        (["--warmup_ratio", "0.5"], "warmup_steps", 0.5),
        (["--warmup_steps", "7"], "warmup_steps", 7),
        (["--warmup_steps", "0"], "warmup_steps", 0),
        (["--double_quant"], "double_quant", True),
        (["--double_quant", "False"], "double_quant", False),
        (["--no_double_quant"], "double_quant", False),
        (["--bf16"], "bf16", True),
        (["--bf16", "False"], "bf16", False),
        (["--tf32"], "tf32", True),
        (["--tf32", "False"], "tf32", False),
        (["--disable_tqdm"], "disable_tqdm", True),
        (["--do_train", "False", "--do_eval"], "do_train", False),
        (["--bits=8"], "bits", 8),
        (["--lora-r", "8"], "lora_r", 8),
        (["--max_steps", "-1", "--num_train_epochs", "2"], "num_train_epochs", 2.0),
        (["--max_steps", "-1"], "num_train_epochs", 3.0),
        (["--evaluation_strategy", "steps"], "do_eval", True),
        (["--evaluation_strategy", "steps"], "eval_steps", 10),
        (["--do_predict"], "predict_with_generate", True),
        (["--do_eval"], "eval_on_start", True),
        (["--do_eval", "--eval_on_start", "False"], "eval_on_start", False),
        (["--optim", "adamw_torch"], "optim", "adamw_torch"),
    ],
)
def test_spellings_and_aliases(training, argv, name, value):
    parsed = training(*argv)
    assert (parsed.resolved() | {"step_batching": parsed.step_batching})[name] == value


@pytest.mark.parametrize("spelling", ["--use_auth", "--use-auth", "--use_auth_token", "--use-auth-token"])
def test_use_auth(spelling):
    assert parse([spelling])[0].use_auth_token is True
    assert parse([spelling, "False"])[0].use_auth_token is False


@pytest.mark.parametrize("name", ["gradient_checkpointing", "activation_checkpointing"])
@pytest.mark.parametrize(("value", "on"), [([], True), (["True"], True), (["False"], False)])
def test_checkpointing_under_both_names(make_args, name, value, on):
    """In the real arguments, where the library resolves the names once more."""
    real = make_args([f"--{name}", *value])[1]
    assert real.gradient_checkpointing is real.activation_checkpointing is on
    assert real.activation_checkpointing_kwargs == real.gradient_checkpointing_kwargs == {"use_reentrant": False}


def test_checkpointing_settings_are_kept(make_args):
    real = make_args(["--gradient_checkpointing_kwargs", '{"use_reentrant": true}'])[1]
    assert real.activation_checkpointing_kwargs == {"use_reentrant": True}


@pytest.mark.parametrize(("argv", "steps"), [([], 3), (["--warmup_ratio", "1.0"], 100), (["--warmup_steps", "1"], 1)])
def test_warmup_as_the_library_counts_it(make_args, argv, steps):
    assert make_args(argv)[1].get_warmup_steps(100) == steps


# ---- Published command lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [GUANACO, LLAMA_2], ids=["guanaco", "llama-2"])
def test_published_training_lines_parse_unchanged(line):
    argv = line.split()
    model, data, train, generation = parse(argv)
    assert model.use_auth_token is ("--use_auth" in argv)
    assert (data.dataset, data.source_max_len, data.target_max_len, data.max_eval_samples) == ("oasst1", 16, 512, 1000)
    assert train.do_train and train.do_eval and train.do_mmlu_eval and train.bf16 and train.double_quant
    assert (train.eval_strategy, train.eval_steps, train.max_steps, train.save_steps) == ("steps", 187, 1875, 500)
    assert (train.bits, train.lora_dropout, train.lora_modules, train.adam_beta2) == (4, 0.1, "all", 0.999)
    assert (train.seed, train.data_seed, train.dataloader_num_workers) == (0, 42, 1)
    assert train.checkpoints_activations and train.step_batching and train.train_sampling_strategy is None
    assert train.cache_dir == ("/tmp/llama2" if "--cache_dir" in argv else None)
    assert generation.max_new_tokens == 32


def test_published_generation_line_parses_unchanged():
    _, data, train, generation = parse(GENERATE.split())
    assert (train.do_train, train.do_eval, train.do_predict) == (False, False, True)
    assert data.target_max_len == 128
    assert generation.options()["top_p"] == 0.9 and generation.options()["do_sample"] is True


def test_options_without_effect_are_named_and_left_out():
    generation = parse(["--top_p", "0.9", "--length_penalty", "2"])[3]
    assert generation.unused() == ["--top_p", "--length_penalty"]
    assert not {"top_p", "temperature", "length_penalty", "penalty_alpha"} & generation.options().keys()
    assert generation.options()["max_new_tokens"] == 256


# ---- Refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        ("--lerning_rate 1e-4", ["--lerning_rate", "--learning_rate"]),
        ("--lora_rank_ 4", ["--lora_rank_", "--lora_r"]),
        ("--doublequant", ["--doublequant", "--double_quant"]),
        ("--use_aut", ["--use_aut", "--use_auth"]),
        ("--output-dirr x", ["--output-dirr", "--output_dir"]),
        ("--zzzzzzzz=1", ["--zzzzzzzz", "--help"]),
        ("--bits 4 8", ["'8'"]),
        ("alpaca", ["'alpaca'", "--dataset"]),
        ("--bits 5", ["--bits 5", "4, 8, 16, 32"]),
        ("--bits four", ["--bits", "four"]),
        ("--bits", ["--bits"]),
        ("--double_quant maybe", ["--double_quant", "maybe"]),
        ("--quant_type int4", ["--quant_type int4", "nf4, fp4"]),
        ("--mmlu_dataset mmlu", ["--mmlu_dataset mmlu", "mmlu-fs, mmlu-zs"]),
        ("--mmlu_split train", ["--mmlu_split train", "eval, test"]),
        ("--optim adam", ["--optim adam", "paged_adamw_32bit"]),
        ("--lr_scheduler_type flat", ["--lr_scheduler_type flat", "constant"]),
        ("--evaluation_strategy always", ["--eval_strategy always", "epoch"]),
        ("--save_strategy always", ["--save_strategy always", "epoch"]),
        ("--train_sampling_strategy x", ["--train_sampling_strategy x", "group_by_length"]),
        ("--report_to carrier_pigeon", ["--report_to carrier_pigeon", "wandb"]),
        ("--report_to clearml", ["--report_to clearml", "not installed"]),
        ("--deepspeed ds.json", ["--deepspeed ds.json", "not installed"]),
        ("--full_finetune", ["--full_finetune", "--bits 4", "--bits 16 or 32"]),
        ("--full_finetune --bits 8", ["--full_finetune", "--bits 8"]),
        ("--fp16 --bf16", ["--fp16", "--bf16"]),
        ("--bf16_full_eval", ["--bf16_full_eval", "--bits 4"]),
        ("--adam8bit --optim sgd", ["--adam8bit", "--optim sgd"]),
        ("--num_train_epochs 3", ["--num_train_epochs 3", "--max_steps 10000", "--max_steps -1"]),
        ("--gradient_checkpointing --activation_checkpointing False", ["--gradient_ch", "--activation_ch"]),
        ("--group_by_length False --train_sampling_strategy group_by_length", ["--group_by_length", "--train_sampl"]),
        ("--packing --train_sampling_strategy group_by_length", ["--packing", "--train_sampling_strategy group_by_l"]),
        ("--max_tokens_per_batch 64 --train_sampling_strategy batch_rebalance", ["--max_tokens_per_batch 64", "rebal"]),
        ("--max_tokens_per_batch 64 --auto_find_batch_size", ["--max_tokens_per_batch 64", "--auto_find_batch_size"]),
        ("--packing --auto_find_batch_size", ["--packing", "--auto_find_batch_size"]),
        ("--packing --neftune_noise_alpha 5", ["--packing", "--neftune_noise_alpha 5"]),
        ('--accelerator_config={"split_batches":true}', ["--accelerator_config", "split_b", "--group_by_length False"]),
        ('--packing --accelerator_config={"dispatch_batches":true}', ["--packing", "--accelerator_config", "dispatch"]),
        ("--max_tokens_per_batch 0", ["--max_tokens_per_batch 0", "1 or more"]),
        ("--lr_scheduler_type reduce_lr_on_plateau", ["--lr_scheduler_type", "--eval_strategy"]),
        ("--load_best_model_at_end", ["--load_best_model_at_end", "--eval_strategy no"]),
        ("--do_train False", ["--do_train False", "--do_eval", "--do_predict"]),
        ("--remove_unused_columns True", ["--remove_unused_columns True", "False"]),
        ("--generation_num_beams 4", ["--generation_num_beams 4", "--num_beams"]),
        ("--generation_max_length 4", ["--generation_max_length 4", "--max_new_tokens"]),
        ("--resume_from_checkpoint True", ["--resume_from_checkpoint True", "--output_dir"]),
        ("--output_dir qlora.py/here", ["--output_dir qlora.py/here", "a file"]),
        ("--output_dir=", ["--output_dir", "empty"]),
        ("--max_steps 0", ["--max_steps 0"]),
        ("--lora_r 0", ["--lora_r 0", "1 or more"]),
        ("--lora_dropout 1", ["--lora_dropout 1", "below 1"]),
        ("--adam_beta2 1.0", ["--adam_beta2 1.0", "below 1"]),
        ("--learning_rate 0", ["--learning_rate 0", "more than 0"]),
        ("--learning_rate nan", ["--learning_rate nan", "finite"]),
        ("--lora_alpha inf", ["--lora_alpha inf", "finite"]),
        ("--warmup_ratio 1.1", ["--warmup_ratio 1.1", "from 0 to 1"]),
        ("--warmup_steps -1", ["--warmup_steps -1", "0 or more"]),
        ("--save_steps 2.5", ["--save_steps", "2.5", "a whole number"]),
        ("--seed -1", ["--seed -1", "4294967295"]),
        ("--dataloader_num_workers -1", ["--dataloader_num_workers -1"]),
        ("--dataloader_prefetch_factor 2", ["--dataloader_prefetch_factor", "--dataloader_num_workers"]),
        ("--eval_dataset_size 0", ["--eval_dataset_size 0"]),
        ("--eval_dataset_size 1.5", ["--eval_dataset_size 1.5", "fraction"]),
        ("--eval_dataset_size inf", ["--eval_dataset_size inf"]),
        ("--target_max_len 1", ["--target_max_len 1", "2 or more"]),
        ("--max_eval_samples 0", ["--max_eval_samples 0"]),
        ("--num_beam_groups 2", ["--num_beam_groups 2", "diverse beam search", "(1)"]),
        ("--diversity_penalty 0.5", ["--diversity_penalty 0.5", "(0.0)"]),
        ("--penalty_alpha 0.6", ["--penalty_alpha 0.6", "contrastive search", "(None)"]),
        ("--temperature 0", ["--temperature 0", "more than 0"]),
        ("--top_p 1.5", ["--top_p 1.5", "at most 1"]),
        ("--min_new_tokens 9 --max_new_tokens 8", ["--min_new_tokens 9", "--max_new_tokens 8"]),
        ("--device_map balanced", ["--device_map balanced", "auto"]),
        ("--model_name_or_path=", ["--model_name_or_path", "empty"]),
        ("--model_name_or_path ./nowhere", ["--model_name_or_path ./nowhere", "no such directory"]),
        ("--model_name_or_path /no/where", ["--model_name_or_path /no/where", "no such directory"]),
        ("--model_name_or_path ~/no-where", ["/no-where", "no such directory"]),
        ("--model_name_or_path path/to/your/llama/checkpoint", ["path/to/your/llama", "no such directory"]),
        ("--model_name_or_path qlora.py", ["qlora.py", "directory"]),
    ],
)
def test_refusals_name_what_is_wrong(argv, parts, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(ArgumentsError) as refused:
        parse(argv.split())
    for part in parts:
        assert part in str(refused.value), part


@pytest.mark.parametrize("name", ["overwrite_output_dir", "load_in_4bit", "lora_rank", "merge"])
def test_flags_of_other_versions_say_what_to_do_instead(name):
    for spelling in (f"--{name}", f"--{name.replace('_', '-')}"):
        with pytest.raises(ArgumentsError, match=spelling) as refused:
            parse([spelling, "1"])
        assert replaced_flags()[name] in str(refused.value)


def test_device_map_is_for_one_process(monkeypatch):
    assert parse(["--device_map", "auto"])[0].device_map == "auto"
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ArgumentsError, match="--device_map auto under a launcher"):
        parse(["--device_map", "auto"])


def test_plateau_scheduler_with_evaluations(training):
    argv = ("--lr_scheduler_type", "reduce_lr_on_plateau", "--eval_strategy", "steps")
    assert training(*argv).lr_scheduler_type == "reduce_lr_on_plateau"


def test_a_name_on_the_hub_and_a_directory_pass(tmp_path):
    for name in ("gpt2", "meta-llama/Llama-2-7b-hf", str(tmp_path)):
        assert parse(["--model_name_or_path", name])[0].model_name_or_path == name


def test_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    model, _, train, _ = parse(["--model_name_or_path", "~", "--output_dir", "~/out"])
    assert (model.model_name_or_path, train.output_dir) == (str(tmp_path), f"{tmp_path}/out")


def test_infinity_is_no_limit_that_is_kept_in_silence():
    with pytest.raises(ArgumentsError, match="--length_penalty inf"):
        parse(["--length_penalty", "inf"])
