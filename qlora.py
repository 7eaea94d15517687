"""Fine-tune a causal language model with QLoRA: 4-bit base, LoRA adapters, on one GPU or none.

    python qlora.py --model_name_or_path Qwen/Qwen3-0.6B --dataset my.jsonl --max_steps 500 --output_dir output/mine
    python qlora.py …the same…                                # goes on from the last checkpoint
    python qlora.py …the same… --do_train False --do_predict  # writes output/mine/predictions.jsonl
    python qlora.py --help

Exit status: 0 done, 2 the request was wrong, 1 the run failed, 130/143 stopped by a signal after saving.
"""

import argparse
import importlib
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from arguments.parser import check_installed
from arguments.training import check_command_line, parse
from common.errors import DataError, FailedRunError, RequestError
from data.sources.mixes import check_sources, hub_names

# The public names, and where each is; `from qlora import X` imports X's module only then.
PUBLIC_NAMES = {
    "ModelArguments": "arguments.model",
    "DataArguments": "arguments.data",
    "TrainingArguments": "training.loop.trainer",
    "GenerationArguments": "arguments.generation",
    "find_all_linear_names": "training.model.build",
    "SavePeftModelCallback": "training.checkpoint.checkpoint",
    "get_accelerate_model": "training.model.build",
    "print_trainable_parameters": "training.model.build",
    "smart_tokenizer_and_embedding_resize": "training.model.tokenizer",
    "DataCollatorForCausalLM": "data.batches.collator",
    "extract_unnatural_instructions_data": "data.formats.registry",
    "ALPACA_PROMPT_DICT": "data.formats.registry",
    "extract_alpaca_dataset": "data.formats.registry",
    "make_data_module": "data.loading",
    "get_last_checkpoint": "training.checkpoint.checkpoint",
    "MMLUEvalCallback": "eval.mmlu.scoring",
    "IGNORE_INDEX": "data.batches.collator",
    "DEFAULT_PAD_TOKEN": "training.model.tokenizer",
}


def __getattr__(name: str) -> Any:
    if name not in PUBLIC_NAMES:
        raise AttributeError(f"module 'qlora' has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC_NAMES[name]), name)


def main(argv: list[str] | None = None) -> int:
    """Run one command line; gives the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        check_request(argv)
        quiet_other_processes()
        quiet_libraries()
        return run(argv)
    except (RequestError, DataError) as error:
        print(f"qlora.py: error: {error}", file=sys.stderr)
        return 2
    except FailedRunError as error:
        print(f"qlora.py: failed: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"qlora.py: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("qlora.py: interrupted; what is in --output_dir stays, and the same command uses it", file=sys.stderr)
        return 130


def check_request(argv: list[str]) -> None:
    """Answer `--help` and refuse wrong flags and missing data files before torch is loaded, which takes seconds."""
    check_installed()
    parsed = check_command_line(argv)
    if parsed is not None:
        check_sources(parsed[1])
        check_mmlu(parsed[2])


def run(argv: list[str]) -> int:
    """Parse, build, train, evaluate, predict, and say what came of it."""
    from transformers import set_seed

    from eval.report.report import save_metrics
    from eval.steps import compare_models, evaluate, measure_evaluated_answers, new_measurements, predict
    from training.checkpoint.checkpoint import saved_prompt_format
    from training.loop.failures import explaining_memory
    from training.loop.trainer import TrainingArguments, build_trainer
    from training.model.build import get_accelerate_model, get_tokenizer, print_trainable_parameters
    from training.trial import planned_steps, try_out, try_schedule

    model_args, data_args, training_args, generation_args = parse(TrainingArguments, argv)
    check_sources(data_args)
    check_mmlu(training_args)
    args = argparse.Namespace(**vars(model_args), **vars(data_args), **vars(training_args))
    if args.preview is not None:
        return show_rows(args)
    checkpoint, completed = find_start(training_args)
    vars(args).update(vars(training_args))  # which may train no more
    args.prompt_format = saved_prompt_format(args, checkpoint)
    args.max_new_tokens = generation_args.max_new_tokens
    check_comparison(args, checkpoint)
    check_output(args, checkpoint)
    say_what_differs(args, training_args, generation_args, checkpoint)
    if completed and not (args.do_eval or args.do_predict or args.do_mmlu_eval):
        return 0  # there is nothing left to do, and that was said
    check_push(training_args)
    if args.do_train:
        try_out(training_args)
    tokenizer = get_tokenizer(args, checkpoint)
    data_module = prepare_data(args, training_args, tokenizer, checkpoint)  # before the model, which takes longer
    if args.do_train:
        try_schedule(training_args, planned_steps(training_args, len(data_module["train_dataset"])))
    set_seed(args.seed)
    model, tokenizer = get_accelerate_model(args, checkpoint, tokenizer)
    print_trainable_parameters(args, model)
    trainer = build_trainer(model, tokenizer, training_args, generation_args, data_module)
    mmlu = add_callbacks(trainer, args)
    measure_evaluated_answers(trainer, data_module["data_collator"])
    with explaining_memory(training_args):
        if args.do_train:
            signum = train_and_save(trainer, args, checkpoint)
            if signum is not None:
                return 128 + signum
        measured = new_measurements(args)
        if args.do_eval or args.do_mmlu_eval:
            save_metrics(trainer, "eval", evaluate(trainer, args, mmlu, measured), args)
        if args.do_predict:
            save_metrics(trainer, "predict", predict(trainer, args, data_module, measured), args)
    compare_models(trainer, args, measured)
    finish(trainer, args, argv, tuned=args.do_train or checkpoint is not None)
    return 0


def show_rows(args: Any) -> int:
    """Print the data report and rows as the model will see them."""
    from data.loading import make_data_module
    from data.report.preview import preview
    from training.checkpoint.checkpoint import get_last_checkpoint, saved_prompt_format
    from training.model.build import get_tokenizer

    checkpoint = args.resume_from_checkpoint or get_last_checkpoint(args.output_dir)[0]
    tokenizer = get_tokenizer(args, checkpoint)  # which may have a chat template
    args.prompt_format = saved_prompt_format(args, checkpoint)
    module = make_data_module(tokenizer, args)
    rows = next(
        module[f"{use}_dataset"] for use in ("train", "eval", "predict") if module[f"{use}_dataset"] is not None
    )
    print(f"\n{preview(rows, tokenizer, args.preview)}")
    return 0


def prepare_data(args: Any, training_args: Any, tokenizer: Any, checkpoint: str | None) -> dict[str, Any]:
    """Load, check and tokenize the data, the first process before the others, which then find it done; report on it."""
    from data.loading import make_data_module
    from data.report.text import write_report
    from training.checkpoint.checkpoint import check_same_data

    with training_args.main_process_first(desc="preparing the data"):
        module = make_data_module(tokenizer, args)
    args.data_digest, args.template_digest = module["digest"], module["template"]
    args.prompt_format = module["prompt_format"]
    if checkpoint is not None:
        check_same_data(args, checkpoint)
    if args.do_train and training_args.process_index == 0:
        write_report(module["report"], args.output_dir)
    return module


def train() -> int:
    """The command line as a function."""
    return main()


def quiet_other_processes() -> None:
    """Under a launcher the first process speaks for all."""
    if int(os.environ.get("RANK", "0")) != 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (open as long as the process)


def quiet_libraries() -> None:
    """Leave out advice of libraries that does not help here."""
    # On CPUs with AVX512-BF16 bitsandbytes asks for a package of kernels that compute in bfloat16 and have no backward;
    # `training.model.build.base.settle_4bit_layers` keeps 4-bit layers from using them.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def find_start(training_args: Any) -> tuple[str | None, bool]:
    """What to go on from: the checkpoint asked for, the last whole one, or nothing; a completed run trains no more."""
    from training.checkpoint.checkpoint import check_resumable, get_last_checkpoint

    if training_args.resume_from_checkpoint is not None:
        return check_resumable(training_args.resume_from_checkpoint), False
    checkpoint, completed = get_last_checkpoint(training_args.output_dir)
    if completed and training_args.do_train:
        training_args.do_train = training_args.eval_on_start = False
        print(
            f"{training_args.output_dir} holds a completed run: it is not trained further, and what follows uses its "
            "tuned weights. To train anew, give another --output_dir or remove this one."
        )
    elif checkpoint is not None and not completed:
        print(f"{'going on from' if training_args.do_train else 'using'} {checkpoint}")
    elif checkpoint is None and not training_args.do_train:
        print(f"note: {training_args.output_dir} holds no tuned weights: this is the base model as it is.")
    return checkpoint, completed


def check_comparison(args: Any, checkpoint: str | None) -> None:
    if args.compare_base and not args.do_train and checkpoint is None:
        raise RequestError(
            f"--compare_base: {args.output_dir} holds no tuned weights to compare the base with. Give the --output_dir "
            "of a run that was trained, or leave --do_train False out."
        )


def check_output(args: Any, checkpoint: str | None) -> None:
    """Refuse an output directory that cannot be written, and a checkpoint that cannot be trained on."""
    from training.checkpoint.checkpoint import CheckpointError, check_optimizer

    probe = Path(args.output_dir) / ".writable"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"--output_dir {args.output_dir} cannot be written: {error.strerror}.") from error
    if args.do_train and checkpoint is not None:
        check_optimizer(checkpoint)


def check_push(training_args: Any) -> None:
    """Ask the hub for the repository that training is to push to; nothing is pushed without training."""
    from training.hub import check_push_access, hide_token

    if not training_args.push_to_hub:
        return
    if not training_args.do_train:
        training_args.push_to_hub = False
        print(
            f"note: --push_to_hub: nothing is pushed without training; see `hf upload NAME {training_args.output_dir}`."
        )
        return
    hide_token(training_args)
    if training_args.process_index == 0:
        check_push_access(training_args)


def say_what_differs(args: Any, training_args: Any, generation_args: Any, checkpoint: str | None) -> None:
    """Name settings that have no effect, and what differs from the command that made the weights that are used."""
    from arguments.evaluation import unused_mmlu_flags
    from arguments.library_flags import unused_library_flags
    from training.checkpoint.checkpoint import changed_flags, were_held_out

    wants_rows = args.do_eval or args.do_predict
    if args.eval_dataset is not None and not wants_rows:
        print(f"note: --eval_dataset {args.eval_dataset}: no effect without --do_eval or --do_predict.")
    if args.evaluation_generates and not args.do_eval:
        print("note: --predict_with_generate: no effect without --do_eval or --eval_strategy.")
    for note in unused_library_flags(training_args):
        print(f"note: {note}.")
    if unused_mmlu_flags(args):
        print(f"note: {', '.join(unused_mmlu_flags(args))}: no effect without --do_mmlu_eval.")
    if (args.do_predict or args.evaluation_generates) and generation_args.unused():
        print(f"note: {', '.join(generation_args.unused())}: no effect without --do_sample or --num_beams above 1.")
    if checkpoint is None:
        return
    changed = changed_flags(args, checkpoint)
    if changed:
        print(f"note: other flags than {checkpoint} was made with: {'; '.join(changed)}")
    if wants_rows and not were_held_out(args, checkpoint):
        print(
            "WARNING: rows that are evaluated now were trained on: the training did not hold the same rows out. Give "
            "rows that it has not seen with --eval_dataset FILE."
        )


def check_mmlu(args: Any) -> None:
    """Refuse --do_mmlu_eval where its questions are not there, are none, or do not give what is to be the best."""
    if args.do_mmlu_eval:
        from eval.mmlu.prompts import check_best_metric, load_mmlu

        rows = load_mmlu(args.mmlu_dataset, args.mmlu_split, args.max_mmlu_samples, args.seed)
        check_best_metric(args.metric_for_best_model, rows, args.mmlu_split)


def add_callbacks(trainer: Any, args: Any) -> Any:
    """Attach saving and, where asked for, MMLU; gives the MMLU callback or None."""
    from training.checkpoint.checkpoint import SavePeftModelCallback

    trainer.add_callback(SavePeftModelCallback(args))
    if not args.do_mmlu_eval:
        return None
    from eval.mmlu.scoring import MMLUEvalCallback

    mmlu = MMLUEvalCallback(trainer, args)
    trainer.add_callback(mmlu)
    return mmlu


def train_and_save(trainer: Any, args: Any, checkpoint: str | None) -> int | None:
    """Train; save and mark the run completed, unless a signal (returned) stopped it."""
    from eval.report.report import forget_metrics, save_metrics
    from training.checkpoint.checkpoint import COMPLETED, save_final
    from training.loop.trainer import train_model

    if trainer.is_world_process_zero():  # what said that an earlier run was done, and how good it was
        (Path(args.output_dir) / COMPLETED).unlink(missing_ok=True)
        forget_metrics(args.output_dir)
    metrics, signum = train_model(trainer, checkpoint)
    if signum is not None:
        step = trainer.state.global_step
        print(f"stopped after step {step}; the same command goes on from {args.output_dir}/checkpoint-{step}.")
        return signum
    save_final(trainer, args)
    save_metrics(trainer, "train", metrics, args)
    return None


def finish(trainer: Any, args: Any, argv: list[str], tuned: bool) -> None:
    """Write the model card, push it with the rest where asked to, and sum up."""
    from eval.report.report import print_summary, read_metrics, refresh_model_card, write_model_card
    from training.hub import push_output

    if trainer.is_world_process_zero():
        if args.do_train:
            write_model_card(args, argv, hub_names(args.dataset))
        elif tuned and args.resume_from_checkpoint is None:  # which may name other weights than the card is of
            refresh_model_card(args.output_dir)
        if trainer.args.push_to_hub:
            push_output(trainer.args, trainer.hub_model_id)
        print_summary(args, read_metrics(args.output_dir), tuned, argv)
    trainer.end()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # while training, `StopOnSignalCallback` saves first
    sys.exit(main())
