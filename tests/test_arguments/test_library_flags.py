"""The flags of transformers: what is taken as meant, and what has no effect."""

import pytest

from arguments import settings as rules
from arguments.parser import parse
from arguments.settings import value_of
from common.errors import ModelError
from training.model.base import hub_options, load_config
from training.model.build import check_layer_names

EVALUATED = ["--eval_strategy", "steps", "--eval_steps", "1"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("False", False), ("3", 3), ("-1", -1), ("0.5", 0.5), ("1e-3", 0.001), ("cosine", "cosine")],
)
def test_values_written_as_text(text, value):
    assert value_of(text) == value and type(value_of(text)) is type(value)


@pytest.mark.parametrize(
    ("argv", "value"),
    [([], "no"), (["all"], "all"), (["non_padding"], "non_padding"), (["True"], "all"), (["no"], "no")],
)
def test_tokens_that_are_counted(make_args, argv, value):
    flags = ["--include_num_input_tokens_seen", *argv] if argv else []
    assert make_args(["--use_cpu", *flags])[1].include_num_input_tokens_seen == value
    assert make_args(["--use_cpu", "--include_num_input_tokens_seen"])[1].include_num_input_tokens_seen == "all"


def test_settings_may_stand_in_a_file(make_args, tmp_path):
    path = tmp_path / "accelerator.json"
    path.write_text('{"even_batches": "false"}')
    assert make_args(["--use_cpu", "--accelerator_config", str(path)])[1].accelerator_config.even_batches is False


def test_checkpointing_settings_keep_the_default_of_the_rest(make_args):
    real = make_args(["--use_cpu", "--gradient_checkpointing_kwargs", '{"every_n_layers": 2}'])[1]
    assert real.activation_checkpointing_kwargs == {"use_reentrant": False, "every_n_layers": 2}


@pytest.mark.parametrize(("metric", "greater"), [("perplexity", False), ("loss", False), ("token_f1", True)])
def test_which_is_the_better_metric(make_args, metric, greater):
    argv = ["--use_cpu", "--metric_for_best_model", f"eval_{metric}", "--predict_with_generate", *EVALUATED]
    assert make_args(argv)[1].greater_is_better is greater


def idle(*argv: str) -> dict[str, str]:
    """Flags that have no effect, with what they need."""
    training = parse(list(argv)).training
    rows = ((training.flags_set(names), needed) for names, needed, works in training.idle(on_cpu=True) if not works)
    return {", ".join(flags): needed for flags, needed in rows if flags}


def test_flags_without_effect_are_named(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    argv = [
        "--eval_steps",
        "5",
        "--run_name",
        "mine",
        "--ddp_timeout",
        "9",
        "--save_strategy",
        "no",
        "--save_steps",
        "3",
    ]
    assert idle(*argv) == {
        "--eval_steps 5": "--eval_strategy steps",
        "--save_steps 3": "--save_strategy steps",
        "--run_name mine": "a tracker (--report_to)",
        "--ddp_timeout 9": "a launcher, such as torchrun",
    }
    assert idle(*EVALUATED) == {}


def test_names_of_layers_are_looked_up_without_weights(make_base, monkeypatch):
    monkeypatch.delitem(rules.OPTIMIZER_PACKAGES, "galore_adamw")
    base = make_base()

    def check(*flags):
        model, _, training, _ = parse(["--model_name_or_path", str(base), "--lora_r", "4", *flags])
        options = hub_options(model, None)
        check_layer_names(load_config(str(base), options), training, str(base), options)

    galore = ("--full_finetune", "--bits", "16", "--optim", "galore_adamw", "--optim_target_modules")
    check("--lora_modules", "q_proj,down_proj")
    check(*galore, "all-linear")
    check(*galore, r".*\.mlp\..*")
    with pytest.raises(ModelError, match="--lora_modules q_proj,nosuch: no linear layer is called nosuch"):
        check("--lora_modules", "q_proj,nosuch")
    with pytest.raises(ModelError, match="--optim_target_modules mlp: .*model.layers.0"):
        check(*galore, "mlp")
