"""What is said of unknown flags: the near one, or what another tool's flag is here."""

import re
import tomllib

import pytest

from arguments.parser import flags_of, make_parser
from arguments.unknown import OTHER_TOOLS, edit_distance, replaced_flags, unknown_flag


@pytest.fixture(scope="module")
def known() -> dict:
    """Each spelling of a flag → its argparse action."""
    return dict(flags_of(make_parser()))


@pytest.fixture
def hint(known):
    """A function: flag → what is said of it, without the last sentence."""

    def say(flag: str) -> str:
        said = unknown_flag(flag, known)
        assert said.endswith(" All flags: python qlora.py --help")
        return said.removesuffix(" All flags: python qlora.py --help")

    return say


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lerning_rate", "learning_rate"),
        ("learnign_rate", "learning_rate"),
        ("learningrate", "learning_rate"),
        ("LearningRate", "learning_rate"),
        ("learning-rates", "learning_rate"),
        ("bist", "bits"),
        ("sed", "seed"),
        ("optm", "optim"),
        ("doublequant", "double_quant"),
        ("use_aut", "use_auth"),
        ("output_dirr", "output_dir"),
        ("outputdir", "output_dir"),
        ("save_step", "save_steps"),
        ("max_memory_mb", "max_memory_MB"),
        ("lora_dropuot", "lora_dropout"),
        ("temprature", "temperature"),
        ("num_train_epoch", "num_train_epochs"),
        ("eval_data_set", "eval_dataset"),
        ("top_n", "top_k or --top_p"),
        ("save_strat", "save_strategy"),  # as argparse would take it
        ("learn", "learning_rate"),
        ("load_best", "load_best_model_at_end"),
        ("target_len", "target_max_len"),
        ("best_model", "load_best_model_at_end or --metric_for_best_model"),
    ],
)
def test_a_slip_is_answered_with_the_flag_that_is_near(hint, typed, meant):
    assert hint(f"--{typed}") == f"unknown flag --{typed}. Did you mean --{meant}?"


STRANGERS = [
    "x", "k", "foo", "zzzzz", "fp8", "reward", "momentum", "hidden_size", "num_layers", "vocab_size",
    "use_cpu_offload", "quantbit", "no_eval_steps", "image_size", "early_exit", "max_depth", "learning_style",
    "batch_norm", "weight_sharing", "do_nothing", "output_attentions", "save_everything_twice",
    "gradient_boosting", "evaluation_of_the_model",
]  # fmt: skip


@pytest.mark.parametrize("typed", STRANGERS)
def test_a_stranger_is_answered_with_no_flag(hint, typed):
    assert hint(f"--{typed}") == f"unknown flag --{typed}. Nothing here has a similar name."


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("merge", "merge_and_unload of PEFT"),
        ("merge-and-unload", "merge_and_unload of PEFT"),
        ("early_stopping_patience", "--load_best_model_at_end"),
        ("lora_target", "use --lora_modules"),
        ("finetuning_type=lora", "--full_finetune"),
        ("template", "--prompt_format"),
        ("cutoff_len", "use --source_max_len and --target_max_len"),
        ("quantization_bit", "use --bits"),
        ("flash_attn", "as transformers chooses"),
        ("attn_implementation", "as transformers chooses"),
        ("use_peft", "adapters are trained"),
        ("sample_packing", "use --packing"),
        ("train_on_inputs", "--train_on_source"),
        ("lora.rank", "use --lora_r"),
        ("train.epochs", "use --max_steps -1 --num_train_epochs"),
        ("no_gradient_checkpointing", "use --gradient_checkpointing False"),
        ("no_do_eval", "use --do_eval False"),
        ("no_bf16", "use --bf16 False"),
    ],
)
def test_flags_of_other_tools_are_answered_with_what_to_do(hint, typed, said):
    answer = hint(f"--{typed}")
    assert answer.startswith(f"no flag --{typed.partition('=')[0]} here: ") and said in answer


@pytest.mark.parametrize(
    ("typed", "theirs", "ours"),
    [("lora_rnk", "lora_rank", "--lora_r"), ("lora_target_module", "lora_target_modules", "--lora_modules")],
)
def test_slips_in_flags_of_other_tools_too(hint, typed, theirs, ours):
    assert hint(f"--{typed}") == f"unknown flag --{typed}. For --{theirs} of other tools: use {ours}."


def test_arguments_without_dashes(known, hint):
    """As torchtune and Hydra take them."""
    said = unknown_flag("lora_r=8", known)
    assert said == "unexpected argument 'lora_r=8': a flag begins with two dashes, as in --lora_r=8."
    assert hint("epochs=1") == "no flag epochs here: use --max_steps -1 --num_train_epochs."
    said = unknown_flag("rows.jsonl", known)
    assert said.endswith("'rows.jsonl': every value needs a flag in front of it, like --dataset rows.jsonl.")


def test_the_table_of_other_tools_names_what_there_is(known):
    flags = {flag.removeprefix("--").replace("-", "_") for flag in known}
    advice = tomllib.loads(OTHER_TOOLS.read_text(encoding="utf-8"))
    assert not flags & replaced_flags().keys()
    assert len(replaced_flags()) == sum(len(names.split()) for names in advice.values()) > 400  # none is there twice
    for instead in advice:
        assert set(re.findall(r"--(\w+)", instead)) <= flags, instead


def test_every_flag_of_other_tools_is_answered_in_both_spellings(hint):
    for name, instead in replaced_flags().items():
        for spelling in (name, name.replace("_", "-")):
            assert hint(f"--{spelling}=1") == f"no flag --{spelling} here: {instead}."


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [("", "", 0), ("", "ab", 2), ("a", "a", 0), ("bits", "bist", 1), ("seed", "merge", 4), ("ca", "abc", 3)],
)
def test_edit_distance(first, second, distance):
    assert edit_distance(first, second) == edit_distance(second, first) == distance
