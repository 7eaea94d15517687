"""Fine-tune a causal language model with QLoRA: 4-bit base, LoRA adapters, on one GPU or none.

    python qlora.py --model_name_or_path Qwen/Qwen3-0.6B --dataset my.jsonl --max_steps 500 --output_dir output/mine
    python qlora.py …the same…                                # goes on from the last checkpoint
    python qlora.py …the same… --do_train False --do_predict  # writes output/mine/predictions.jsonl
    python qlora.py --help

Exit status: 0 done, 2 the request was wrong, 1 the run failed, 130/143 stopped by a signal after saving.
"""

import importlib
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arguments.parser import Arguments, check_installed, parse
from common.commands import exit_status
from common.launcher import rank
from data.sources.mixes import Names, parse_names

if TYPE_CHECKING:  # torch takes seconds to import, which neither --help nor a refusal waits for.
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Seq2SeqTrainingArguments

    from data.loading import DataModule
    from eval.mmlu.scoring import MMLUEvalCallback
    from training.loop.trainer import QLoRATrainer
    from training.model.build import Base
    from training.plan import Plan

# The public names, and where each is; `from qlora import X` imports X's module only then.
PUBLIC_NAMES = {
    "ModelArguments": "arguments.model",
    "DataArguments": "arguments.data",
    "TrainingArguments": "arguments.training",
    "GenerationArguments": "arguments.generation",
    "SavePeftModelCallback": "training.checkpoint.save",
    "smart_tokenizer_and_embedding_resize": "training.model.tokenizer",
    "DataCollatorForCausalLM": "data.batches.collator",
    "extract_unnatural_instructions_data": "data.formats.instructions",
    "ALPACA_PROMPT_DICT": "data.formats.instructions",
    "extract_alpaca_dataset": "data.formats.instructions",
    "get_last_checkpoint": "training.checkpoint.find",
    "MMLUEvalCallback": "eval.mmlu.scoring",
    "IGNORE_INDEX": "common.labels",
    "DEFAULT_PAD_TOKEN": "training.model.tokenizer",
}


def __getattr__(name: str) -> Any:
    if name not in PUBLIC_NAMES:
        raise AttributeError(f"module 'qlora' has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC_NAMES[name]), name)


def main(argv: list[str] | None = None) -> int:
    """Run one command line; gives the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    advice = "what is in --output_dir stays, and the same command uses it"
    return exit_status("qlora.py", lambda: run(argv), interrupted=advice)


def train() -> int:
    """The command line as a function."""
    return main()


def run(argv: list[str]) -> int:
    """Ask, read, train, measure, and say what came of it."""
    check_installed()
    arguments = parse(argv)
    names = parse_names(arguments.data)
    questions = read_mmlu(arguments)
    quiet()
    from transformers import set_seed

    from training.checkpoint.same_run import recorded_flags, with_data
    from training.loop.arguments import library_arguments
    from training.loop.memory import explaining_memory
    from training.model.build import build_model, read_base
    from training.model.counts import print_parameters
    from training.notes import print_data_changes, print_notes
    from training.plan import make_plan, prepare_output

    plan = make_plan(arguments)
    if plan.data.preview is not None:
        return show_rows(plan, names)
    settings = library_arguments(plan.training)
    flags = recorded_flags(plan.model, plan.data, plan.training, settings.optim.value, settings.world_size)
    print_notes(plan, flags)
    if not plan.has_work:
        return 0
    prepare_output(plan.training.output_dir)
    check_push(plan, settings)
    try_flags(plan, settings)
    base = read_base(plan.model, plan.data, plan.training, plan.generation.max_new_tokens, plan.checkpoint)
    module = prepare_data(plan, settings, names, base)
    flags = with_data(flags, module.prompt_format, module.digest, module.template_digest)
    print_data_changes(plan, flags)
    try_flags(plan, settings, rows=module.train)
    set_seed(plan.training.seed)
    model = build_model(plan.model, plan.training, base, plan.checkpoint)
    print_parameters(model, plan.training.bits)
    trainer, mmlu = make_trainer(plan, settings, model, base.tokenizer, module, questions, flags)
    with explaining_memory(plan.training):
        signum = train_and_save(plan, trainer, flags) if plan.training.do_train else None
        if signum is not None:
            return 128 + signum
        measure(plan, trainer, mmlu, module)
    finish(plan, trainer, argv, flags, names)
    return 0


# ---- The steps of `run` --------------------------------------------------------------------------------------------


def read_mmlu(arguments: Arguments) -> list[dict[str, str]]:
    """Read the questions of --do_mmlu_eval, and refuse them where they do not give what is to be the best."""
    training = arguments.training
    if not training.do_mmlu_eval:
        return []
    from eval.mmlu.metrics import check_best_metric
    from eval.mmlu.prompts import load_mmlu

    rows = load_mmlu(training.mmlu_dataset, training.mmlu_split, training.max_mmlu_samples, training.seed)
    check_best_metric(training.metric_for_best_model, rows, training.mmlu_split)
    return rows


def quiet() -> None:
    """Let the first process of a launcher speak for all, and leave out advice of libraries that does not help here."""
    if rank() != 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (open as long as the process)
    # On CPUs with AVX512-BF16 bitsandbytes asks for a package of kernels that compute in bfloat16 and have no backward;
    # `training.model.quantization.settle_4bit_layers` keeps 4-bit layers from using them.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def show_rows(plan: "Plan", names: Names) -> int:
    """Print the data report and rows as the model will see them."""
    from data.report.preview import preview
    from training.model.build import read_base

    base = read_base(plan.model, plan.data, plan.training, plan.generation.max_new_tokens, plan.checkpoint)
    module = load_data(plan, names, base)
    rows = next(rows for rows in (module.train, module.eval, module.predict) if rows is not None)
    print(f"\n{preview(rows, base.tokenizer, plan.data.preview)}")
    return 0


def load_data(plan: "Plan", names: Names, base: "Base") -> "DataModule":
    """Load, check and tokenize the data."""
    from data.loading import make_data_module
    from training.shortcuts.attention import row_layout

    token = plan.model.use_auth_token
    return make_data_module(
        base.tokenizer,
        plan.data,
        plan.training,
        names=names,
        token=token,
        context=base.context,
        layout=row_layout(base.config, plan.training),
    )


def check_push(plan: "Plan", settings: "Seq2SeqTrainingArguments") -> None:
    """Ask the hub for the repository that training is to push to."""
    if not plan.pushes:
        return
    from training.hub import check_push_access, hide_token

    hide_token(plan.training.hub_token)
    if settings.process_index == 0:
        check_push_access(plan.training)


def try_flags(plan: "Plan", settings: "Seq2SeqTrainingArguments", rows: "Dataset | None" = None) -> None:
    """Try on a toy what only torch can tell of the flags: the optimizer, and once there are rows the schedule."""
    from training.trial import planned_steps, try_out, try_schedule

    if not plan.training.do_train:
        return
    if rows is None:
        try_out(plan.training, settings)
    else:
        steps = planned_steps(settings, len(rows), plan.training.step_batching)
        try_schedule(plan.training, settings, steps)


def prepare_data(plan: "Plan", settings: "Seq2SeqTrainingArguments", names: Names, base: "Base") -> "DataModule":
    """Load the data, the first process before the others, which then find it done; write the report on it."""
    from common.files import write_json
    from common.outputs import DATA_REPORT

    with settings.main_process_first(desc="preparing the data"):
        module = load_data(plan, names, base)
    if plan.training.do_train and settings.process_index == 0:
        write_json(Path(plan.training.output_dir) / DATA_REPORT, module.report)
    return module


def make_trainer(
    plan: "Plan",
    settings: "Seq2SeqTrainingArguments",
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    module: "DataModule",
    questions: list[dict[str, str]],
    flags: dict[str, Any],
) -> tuple["QLoRATrainer", "MMLUEvalCallback | None"]:
    """Build the trainer with its callbacks; gives it and the MMLU callback, or None."""
    from dataclasses import replace

    from eval.steps import answer_metrics, end_ids
    from training.checkpoint.save import SavePeftModelCallback
    from training.loop.evaluation import EvaluationMetrics
    from training.loop.train import build_trainer, generation_config

    training = plan.training
    generation = generation_config(plan.generation, model, tokenizer, module.collator.text_marks)
    answers = partial(answer_metrics, rows=module.eval, collator=module.collator, ends=end_ids(generation))
    trainer = build_trainer(
        model,
        tokenizer,
        settings,
        generation,
        train=module.train,
        evaluated=module.eval,
        collator=module.batches_by(replace(module.collator, predict_with_generate=training.predict_with_generate)),
        step_collator=module.step_collator,
        trial=module.trial,
        largest=module.largest_micro_batch if training.do_train and training.checkpoints_activations is None else None,
        metrics=EvaluationMetrics(len(module.eval or ()), answers if training.predict_with_generate else None),
    )
    trainer.add_callback(SavePeftModelCallback(flags, training.save_total_limit))
    if not training.do_mmlu_eval:
        return trainer, None
    from eval.mmlu.scoring import MMLUEvalCallback

    mmlu = MMLUEvalCallback(trainer, questions, training.mmlu_split, training.mmlu_source_max_len)
    trainer.add_callback(mmlu)
    return trainer, mmlu


def train_and_save(plan: "Plan", trainer: "QLoRATrainer", flags: dict[str, Any]) -> int | None:
    """Train; save and mark the run completed, unless a signal (returned) stopped it."""
    from eval.report.metrics import forget_results, save_results
    from training.checkpoint.save import save_final
    from training.loop.train import train_model

    output_dir = plan.training.output_dir
    if trainer.is_world_process_zero():
        forget_results(output_dir)
    metrics, signum = train_model(trainer, plan.checkpoint)
    if signum is not None:
        step = trainer.state.global_step
        print(f"stopped after step {step}; the same command goes on from {output_dir}/checkpoint-{step}.")
        return signum
    save_final(trainer, output_dir, flags)
    if trainer.is_world_process_zero():
        save_results(output_dir, "train", metrics)
    return None


def measure(plan: "Plan", trainer: "QLoRATrainer", mmlu: "MMLUEvalCallback | None", module: "DataModule") -> None:
    """Evaluate, predict and compare, as asked."""
    from eval.report.metrics import forget_comparison, save_results
    from eval.steps import compare_models, evaluate, new_measurements, predict
    from training.loop.evaluation import EvaluationMetrics

    training, output_dir = plan.training, plan.training.output_dir
    measured = new_measurements(training.compare_base, plan.generation.max_new_tokens)
    results = {}
    if training.do_eval or training.do_mmlu_eval:
        results["eval"] = evaluate(trainer, measured, mmlu, training.do_eval, training.mmlu_dataset)
        if trainer.is_world_process_zero():
            save_results(output_dir, "eval", results["eval"])
    if training.do_predict:
        losses = EvaluationMetrics(len(module.predict))
        collator, batches = module.collator, module.batches_by(module.collator)
        results["predict"] = predict(trainer, measured, module.predict, collator, losses, output_dir, batches)
        if trainer.is_world_process_zero():
            save_results(output_dir, "predict", results["predict"])
    if not trainer.is_world_process_zero():
        return
    if training.compare_base:
        compare_models(measured, output_dir, training.seed)
    elif results:
        forget_comparison(output_dir, training.do_predict)


def finish(plan: "Plan", trainer: "QLoRATrainer", argv: list[str], flags: dict[str, Any], names: Names) -> None:
    """Write the model card, push it with the rest where asked to, and sum up."""
    from eval.report.card import card_facts, refresh_model_card, write_model_card
    from eval.report.summary import print_summary

    training = plan.training
    if trainer.is_world_process_zero():
        if training.do_train:
            write_model_card(card_facts(plan.model, plan.data, training, flags, argv, names.on_hub))
        elif plan.tuned and training.resume_from_checkpoint is None:  # which may name other weights than the card is of
            refresh_model_card(training.output_dir)
        if plan.pushes:
            from training.hub import push_output

            push_output(training.output_dir, trainer.hub_model_id, training.hub_revision)
        print_summary(plan.data, training, plan.tuned, argv)
    trainer.end()


# ---- Functions of published scripts, which hold every flag in one namespace ----------------------------------------


def get_accelerate_model(args: Any, checkpoint_dir: str | None) -> tuple[Any, Any]:
    """Return (model, tokenizer): the base at `args.bits` with its adapters, fresh or those of `checkpoint_dir`."""
    from training.model.build import build_model, read_base

    model, data, training, generation = Arguments.of(args)
    base = read_base(model, data, training, generation.max_new_tokens, checkpoint_dir)
    return build_model(model, training, base, checkpoint_dir), base.tokenizer


def make_data_module(tokenizer: Any, args: Any) -> dict[str, Any]:
    """Return train_dataset, eval_dataset, predict_dataset and data_collator for the flags in `args`."""
    from data.loading import make_data_module as make

    model, data, training, _ = Arguments.of(args)
    module = make(tokenizer, data, training, token=model.use_auth_token)
    sets = {"train_dataset": module.train, "eval_dataset": module.eval, "predict_dataset": module.predict}
    return sets | {"data_collator": module.collator}


def find_all_linear_names(args: Any, model: Any) -> list[str]:
    """Return the last parts of the names of the linear layers at `args.bits`, without the output head."""
    from training.model.lora import linear_names

    return linear_names(model, args.bits)


def print_trainable_parameters(args: Any, model: Any) -> None:
    """Print what trains, of how much, and in which dtypes; `args.bits` says how the base is held."""
    from training.model.counts import print_parameters

    print_parameters(model, args.bits)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # while training, `StopOnSignalCallback` saves first
    sys.exit(main())
