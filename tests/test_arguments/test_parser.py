"""The start of the real command: refusals and help before torch is loaded; and what is said of unknown flags."""

import os
import re
import subprocess
import sys
import tomllib

import pytest

import qlora
from arguments.parser import NEEDED_MODULES, flags_of, make_parser
from arguments.unknown import OTHER_TOOLS, edit_distance, replaced_flags, unknown_flag
from tests.support.paths import REPOSITORY


def start(*argv: str) -> subprocess.CompletedProcess:
    """`python qlora.py …` as people run it."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "qlora.py", *argv]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)


def run_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--lerning_rate", "1e-4"], ["--lerning_rate", "--learning_rate"]),
        (["--bits", "4", "--full_finetune"], ["--bits 4", "--full_finetune"]),
        (["--model_name_or_path", "./nowhere"], ["--model_name_or_path ./nowhere"]),
        (["--load_best_model_at_end"], ["--load_best_model_at_end"]),
    ],
)
def test_command_refuses_in_one_message(argv, parts):
    done = start(*argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("qlora.py: error: ") and "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr


def test_command_helps():
    done = start("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("--lora_r", "--evaluation_strategy", "--max_new_tokens", "examples:", "(default: 64)"):
        assert text in done.stdout


def test_the_request_is_read_before_anything_heavy_loads():
    printed = run_python(
        """
import sys
from arguments.parser import check_installed, parse
from common.errors import RequestError
from data.sources.mixes import check_sources
for argv in (["--lerning_rate", "1"], ["--full_finetune"], ["--dataset", "no.json"], ["--help"], []):
    try:
        check_installed()
        check_sources(parse(argv).data)
        assert not argv, "not refused"
    except (RequestError, SystemExit):
        pass
    heavy = {"torch", "peft", "bitsandbytes", "datasets", "accelerate", "transformers"} & sys.modules.keys()
    assert not heavy, (argv, heavy)
print("done")
"""
    )
    assert printed.rstrip().endswith("done")


@pytest.mark.parametrize("module", ["accelerate", "jinja2"])
def test_a_package_that_is_not_installed_is_named_first(monkeypatch, capsys, module):
    """transformers would say "Could not import module 'set_seed'"."""
    monkeypatch.setitem(sys.modules, module, None)
    assert qlora.main(["--model_name_or_path", "nowhere", "--dataset", "nothing"]) == 2
    said = f"qlora.py: error: not installed: {module}. Run: pip install -r requirements.txt\n"
    assert capsys.readouterr() == ("", said)


def test_every_module_that_is_needed_is_pinned():
    pinned = re.findall(r"^([\w-]+)==", (REPOSITORY / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(NEEDED_MODULES) <= set(pinned)


# ---- Unknown flags -------------------------------------------------------------------------------------------------


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
