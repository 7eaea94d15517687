"""The flags of transformers: settings, pairs and notes; the trial of schedule and optimizer; pushing to the hub."""

import dataclasses
import inspect
import json
import re
import threading
from argparse import Namespace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch
from accelerate.utils import GradientAccumulationPlugin
from transformers import optimization, trainer_optimizer, training_args
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_pt_utils import AcceleratorConfig
from transformers.trainer_utils import SchedulerType

import qlora
from arguments import settings as rules
from arguments.checks import TRACKERS
from arguments.declare import ArgumentsError
from arguments.evaluation import ANSWER_METRICS, LOSSES
from arguments.parser import parse
from arguments.settings import value_of
from data.loading import make_data_module
from eval.metrics.text import text_metrics
from training.loop.arguments import library_arguments
from training.loop.evaluation import EvaluationMetrics
from training.loop.train import build_trainer, generation_config
from training.model.base import hub_options, load_config
from training.model.build import build_model, check_layer_names, read_base
from training.model.device import ModelError, machine_notes
from training.trial import planned_steps, try_out, try_schedule

SCHEDULES = [kind.value for kind in SchedulerType]
OPTIMIZERS = [kind.value for kind in training_args.OptimizerNames]
EVALUATED = ["--eval_strategy", "steps", "--eval_steps", "1"]


def refusal(make_args, *argv: str) -> str:
    with pytest.raises(ArgumentsError) as refused:
        machine_notes(parse(["--use_cpu", *argv]).training)
    return str(refused.value)


# ---- The tables say what the libraries take ------------------------------------------------------------------------


def parameters(function) -> set[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name for name, value in inspect.signature(function).parameters.items() if value.kind in kinds}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_settings_of_schedules_are_those_of_their_functions(kind):
    makers = {"reduce_lr_on_plateau": torch.optim.lr_scheduler.ReduceLROnPlateau, "greedy": optimization.GreedyLR}
    maker = makers.get(kind) or optimization.TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(kind)]
    given = {"self", "optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    assert rules.SCHEDULES[kind].keys() == parameters(maker) - given


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_settings_of_optimizers_are_those_that_the_library_reads(kind):
    source = inspect.getsource(trainer_optimizer._OPTIMIZER_HANDLERS[kind])
    read = set(re.findall(r'optim_args(?:\.get|\.pop)?[(\[]"(\w+)"', source))
    read |= {name for names in re.findall(r"for key in \((.*?)\)", source) for name in re.findall(r'"(\w+)"', names)}
    read |= set(re.findall(r'"(\w+)" in ctx\.optim_args', source))
    if "ademamix" not in kind:  # one function reads those of ademamix alone, for all of bitsandbytes
        read -= rules.ADEMAMIX.keys() if "bitsandbytes" in source else set()
    read -= {"weight_decay", "block_size", "kahan_sum", "decouple_lr"}
    assert rules.OPTIMIZERS.get(kind, {}).keys() == (set() if kind in rules.UPDATING_IN_BACKWARD else read)


def test_settings_in_json_are_those_of_their_classes():
    assert rules.ACCELERATOR.keys() == {f.name for f in dataclasses.fields(AcceleratorConfig)}
    assert rules.ACCUMULATION.keys() == {f.name for f in dataclasses.fields(GradientAccumulationPlugin)}
    of_torch = parameters(torch.utils.checkpoint.checkpoint) - {"function", "context_fn"}  # a function is no JSON
    assert rules.CHECKPOINTING.keys() == of_torch | {"preserve_rng_state", "every_n_layers", "offload"}
    source = inspect.getsource(training_args.TrainingArguments._process_fsdp_args)
    read = re.findall(r'self\.fsdp_config(?:\.get\(|\.setdefault\(|\[)"(\w+)"', source)
    assert rules.FSDP.keys() == set(read)


def test_trackers_are_those_of_the_library():
    turned_on_by_itself = {"kubeflow"}
    assert TRACKERS.keys() - {"none", "all"} == INTEGRATION_TO_CALLBACK.keys() - turned_on_by_itself


def test_best_metrics_are_those_that_are_measured(shared):
    answers = text_metrics(["a"], ["a"], tokens=[1], stopped=[True], prefix="eval")
    assert {f"eval_{name}" for name in ANSWER_METRICS} == answers.keys() - {"eval_references"}
    trainer = shared.trainer("--do_eval")
    assert {f"eval_{name}" for name in LOSSES} < trainer.evaluate().keys()


# ---- Refused before torch ------------------------------------------------------------------------------------------


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
    assert "--fsdp without GPUs" in refusal(make_args, "--fsdp", "--bits", "16")
    assert "has no 'nosuch'" in refusal(make_args, "--fsdp", "--bits", "16", "--fsdp_config", '{"fsdp_nosuch": 1}')
    assert "--ddp_backend nccl" in refusal(make_args, "--ddp_backend", "nccl")
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


def test_what_needs_a_gpu(make_args, monkeypatch):
    for module in ("checks", "training"):
        monkeypatch.setattr(f"arguments.{module}.require_package", lambda *names: None)
    message = refusal(make_args, "--gradient_checkpointing_kwargs", '{"offload": true}')
    assert "--activation_checkpointing_kwargs with offload" in message
    assert "--use_liger_kernel without a GPU" in refusal(make_args, "--use_liger_kernel")
    assert "--fp16_full_eval without a CUDA GPU" in refusal(make_args, "--fp16_full_eval", "--bits", "16")


# ---- Taken as meant ------------------------------------------------------------------------------------------------


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


# ---- The trial, and that what passes it trains ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(make_base, rows_file, tmp_path_factory):
    """A tiny model with an adapter and its rows, loaded once: `trainer(flags)` makes a trainer of it."""
    out = tmp_path_factory.mktemp("out")
    plain = ["--model_name_or_path", str(make_base()), "--dataset", str(rows_file), "--output_dir", str(out)]
    plain += ["--bits", "32", "--lora_r", "64", "--use_cpu", "--disable_tqdm", "--source_max_len", "64"]
    plain += ["--target_max_len", "32", "--max_steps", "2", "--per_device_train_batch_size", "2"]
    plain += ["--save_strategy", "no"]
    plain += ["--gradient_accumulation_steps", "1", "--logging_strategy", "no", "--eval_dataset_size", "4"]
    plain += ["--gradient_checkpointing", "False"]
    arguments = parse([*plain, "--do_eval"])
    base = read_base(arguments.model, arguments.data, arguments.training, 8, None)
    model = build_model(arguments.model, arguments.training, base, None)
    module = make_data_module(base.tokenizer, arguments.data, arguments.training)

    def trainer(*flags: str):
        asked = parse([*plain, *flags])
        generation = generation_config(asked.generation, model, base.tokenizer, ())
        batching = module.step_collator if asked.training.step_batching else None
        rows = {"train": module.train, "evaluated": module.eval, "collator": module.collator}
        settings = library_arguments(asked.training)
        metrics = EvaluationMetrics(len(module.eval))
        how = {"step_collator": batching, "packing": False, "metrics": metrics}
        return build_trainer(model, base.tokenizer, settings, generation, **rows, **how)

    return Namespace(plain=plain, model=model, trainer=trainer)


def settings_of(argv):
    """Our flags of training, and transformers' of them."""
    training = parse(argv).training
    return training, library_arguments(training)


def assert_trains(shared, *flags: str) -> None:
    trainer = shared.trainer(*flags)
    weights = {
        name: weight.detach().clone() for name, weight in shared.model.named_parameters() if weight.requires_grad
    }
    trainer.train()
    assert trainer.state.global_step == trainer.args.max_steps
    moved = [not torch.equal(weight, dict(shared.model.named_parameters())[name]) for name, weight in weights.items()]
    assert any(moved) and all(weight.isfinite().all() for weight in shared.model.parameters())


SETTINGS = {
    "cosine_with_min_lr": {"min_lr": 1e-5},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1, "warmup_lr_rate": 0.5},
    "cosine_with_restarts": {"num_cycles": 2},
    "warmup_stable_decay": {"num_decay_steps": 1},
    "polynomial": {"power": 2},
    "reduce_lr_on_plateau": {"patience": 0},
    "greedy": {"min_lr": 1e-5},
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_each_schedule_trains(kind, shared, make_args):
    flags = ["--lr_scheduler_type", kind, *(EVALUATED if kind in rules.FOLLOWING_SCHEDULES else [])]
    flags += ["--lr_scheduler_kwargs", json.dumps(SETTINGS[kind])] if kind in SETTINGS else []
    try_schedule(*settings_of([*shared.plain, *flags]), steps=2)
    assert_trains(shared, *flags)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_each_optimizer_trains_or_is_refused(kind, shared, make_args):
    try:
        try_out(*settings_of([*shared.plain, "--optim", kind]))
    except ArgumentsError as refused:
        assert f"--optim {kind}" in str(refused)
        missing = rules.OPTIMIZER_PACKAGES.keys() | set(rules.UPDATING_IN_BACKWARD)
        assert kind in missing, refused
    else:
        steps = "7" if kind == "schedule_free_radam" else "2"  # RAdam's first five change nothing
        assert_trains(shared, "--optim", kind, "--max_steps", steps)


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--optim", "sgd", "--optim_args", "nesterov=true"], ["--optim sgd --optim_args nesterov=true", "momentum"]),
        (["--torch_compile_backend", "nosuch"], ["--torch_compile_backend nosuch", "NOSUCH"]),
        (["--torch_compile_backend", "eager", "--torch_compile_mode", "nosuch"], None),  # eager reads no mode
    ],
)
def test_what_cannot_be_made_is_refused(make_args, argv, parts):
    args = settings_of(["--use_cpu", *argv])
    if parts is None:
        return try_out(*args)
    with pytest.raises(ArgumentsError) as refused:
        try_out(*args)
    for part in parts:
        assert part in str(refused.value), part


@pytest.mark.parametrize(
    ("kind", "settings", "more", "parts"),
    [
        (
            "cosine_with_min_lr",
            {"min_lr": 1},
            [],
            ["cosine_with_min_lr", "at step 4 of 100 is 0.00046", "to --learning_rate 0.0002"],
        ),
        ("polynomial", {"lr_end": 1}, [], ["polynomial", '{"lr_end": 1}', "smaller than initial"]),
        ("polynomial", {}, ["--warmup_steps", "100"], ["polynomial", "step 100 of 100", "division by zero"]),
        ("warmup_stable_decay", {"num_decay_steps": 98}, [], ["warmup_stable_decay", "101 steps", "has 100"]),
        ("greedy", {}, EVALUATED, ["greedy", "to 0.001 at least", "--learning_rate is 0.0002", "min_lr"]),
    ],
)
def test_impossible_learning_rates_are_refused(make_args, kind, settings, more, parts):
    args = settings_of(["--use_cpu", "--lr_scheduler_type", kind, "--lr_scheduler_kwargs", json.dumps(settings), *more])
    with pytest.raises(ArgumentsError) as refused:
        try_schedule(*args, steps=100)
    for part in parts:
        assert part in str(refused.value), part


@pytest.mark.parametrize("drop_last", ["True", "False"])
@pytest.mark.parametrize("grouped", ["True", "False"])
@pytest.mark.parametrize(("rows", "accumulation", "epochs"), [(2, 2, 1), (3, 4, 2), (1, 1, 0.3), (20, 4, 1.5)])
def test_planned_steps_are_those_that_are_trained(shared, make_args, drop_last, grouped, rows, accumulation, epochs):
    flags = ["--max_steps", "-1", "--num_train_epochs", str(epochs), "--per_device_train_batch_size", str(rows)]
    flags += ["--gradient_accumulation_steps", str(accumulation), "--dataloader_drop_last", drop_last]
    flags += ["--group_by_length", grouped]
    trainer = shared.trainer(*flags)
    batches = trainer.get_train_dataloader()
    if len(batches):  # else the run says that not one step can be trained
        *_, total = trainer.set_initial_training_values(trainer.args, batches)
        training, settings = settings_of([*shared.plain, *flags])
        assert planned_steps(settings, len(trainer.train_dataset), training.step_batching) == total


# ---- Pushing to the hub --------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """A hub of one repository on this machine; `hub.status` is what it answers, `hub.requests` what it was asked."""
    from huggingface_hub import constants

    state = Namespace(status=200, requests=[], files={})

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or self.chunks()
            state.requests.append((self.path, self.headers.get("Authorization"), body))
            reply = {"id": "me/out", "url": f"{constants.ENDPOINT}/me/out", "errors": [], "warnings": []}
            reply |= {"commitOid": "0" * 40, "commitUrl": f"{constants.ENDPOINT}/me/out/commit/0"}
            if "preupload" in self.path:
                names = [file["path"] for file in json.loads(body)["files"]]
                reply["files"] = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            content = json.dumps(reply).encode()
            self.send_response(state.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def chunks(self) -> bytes:
            body = b""
            while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
                body += self.rfile.read(size)
                self.rfile.readline()
            return body

        def log_message(self, *args):
            pass

        do_GET = do_POST = answer

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("HF_TOKEN_PATH", "/nowhere")
    yield state
    server.shutdown()
    server.server_close()


def committed(hub) -> dict[str, dict[str, str]]:
    """Commit message → {file: content} of what the hub was sent."""
    import base64

    commits = {}
    for path, _, body in hub.requests:
        if "/commit/" in path:
            lines = [json.loads(line) for line in body.splitlines()]
            files = {line["value"]["path"]: line["value"]["content"] for line in lines if line["key"] == "file"}
            commits[lines[0]["value"]["summary"]] = {name: base64.b64decode(text) for name, text in files.items()}
    return commits


def test_a_run_is_pushed_with_its_card_and_without_token_and_rows(hub, make_base, command, tmp_path, capsys):
    flags = ["--push_to_hub", "--hub_token", "hf_secret", "--save_steps", "2", "--do_predict"]
    assert qlora.main(command(make_base(), *flags)) == 0
    assert "pushed" in capsys.readouterr().out
    # The library may ask for a public list without a token; everything else carries it.
    assert {token for path, token, _ in hub.requests if "agent-harnesses" not in path} == {"Bearer hf_secret"}
    commits = committed(hub)
    end = commits["End of training"]
    assert end["README.md"] == (tmp_path / "out" / "README.md").read_bytes()
    assert end["adapter_model.safetensors"] == (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
    assert not [name for name in end if name.endswith("jsonl") or "checkpoint" in name]
    assert not [name for files in commits.values() for name, content in files.items() if b"hf_secret" in content]
    sent = len(hub.requests)
    assert qlora.main(command(make_base(), *flags, "--do_train", "False")) == 0
    assert "--push_to_hub: nothing is pushed without training" in capsys.readouterr().out and len(hub.requests) == sent


@pytest.mark.parametrize("status", [401, 403])
def test_a_hub_that_refuses_is_told_before_the_model_loads(hub, status, make_base, command, capsys, monkeypatch):
    monkeypatch.setattr("training.model.build.load_base_model", lambda *args: pytest.fail("the base model was loaded"))
    hub.status = status
    assert qlora.main(command(make_base(), "--push_to_hub", "--hub_token", "hf_secret")) == 2
    message = capsys.readouterr().err
    assert "--push_to_hub: out at http" in message and str(status) in message and "hf_secret" not in message


def test_a_hub_that_is_not_there(hub, make_base, command, capsys, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr("training.model.build.load_base_model", lambda *args: pytest.fail("the base model was loaded"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the port of a service that nobody runs
    assert qlora.main(command(make_base(), "--push_to_hub", "--hub_token", "hf_secret")) == 2
    assert "--push_to_hub: out at http://127.0.0.1:9 cannot be pushed to" in capsys.readouterr().err


def test_a_push_needs_a_token_and_a_name(hub, make_args, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "there is no token" in refusal(make_args, "--push_to_hub")
    message = refusal(make_args, "--push_to_hub", "--hub_model_id", "a/b/c")
    assert "--hub_model_id a/b/c" in message and "OWNER/NAME" in message
    assert not hub.requests
