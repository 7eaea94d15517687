"""What a run leaves for people to read: metrics.json, the model card, and the summary at the end."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

from common.files import read_json, write_json, write_whole
from common.outputs import is_detail

METRICS = "metrics.json"
KINDS = ("eval_", "predict_", "mmlu_eval_", "mmlu_test_")  # what the names of metrics start with
MODEL_CARD = "README.md"
CARD_METRICS = "## How good it is\n| metric | value |\n|---|---|\n"
OLD_METRICS = re.compile(re.escape(CARD_METRICS) + r"(\|.*\n)*")
COMPARISON = "comparison.json"
BASE_PREDICTIONS = "predictions_base.jsonl"


def save_metrics(trainer: Any, split: str, metrics: dict[str, Any], args: Any) -> None:
    """Write `{split}_results.json` and add the metrics to metrics.json, which keeps those of earlier commands."""
    if not trainer.is_world_process_zero():
        return
    if split != "train":  # where training stood when it was evaluated, which is nowhere in a later command
        metrics.pop("epoch", None)
    write_json(Path(args.output_dir) / f"{split}_results.json", metrics)
    if split != "train":
        forget_comparison(split, args)
    earlier = read_metrics(args.output_dir)
    earlier = {name: value for name, value in earlier.items() if not is_stale(name, earlier, metrics, args)}
    write_json(Path(args.output_dir) / METRICS, {**earlier, **metrics})


def is_stale(name: str, earlier: dict[str, Any], metrics: dict[str, Any], args: Any) -> bool:
    """Whether an earlier command measured this, perhaps on other rows, and the new metrics are of the same kind."""
    if name == "eval_loss_before":  # of the training, and comparable where the rows are the same
        tokens = "eval_supervised_tokens"
        return not args.do_train and tokens in metrics and earlier.get(tokens) != metrics[tokens]
    kinds = [kind for kind in KINDS if any(new.startswith(kind) for new in metrics)]
    return name.removeprefix("base_").startswith(tuple(kinds))


def read_metrics(output_dir: str) -> dict[str, Any]:
    """The metrics so far; those that cannot be read any more are said and begun anew."""
    path = Path(output_dir) / METRICS
    try:
        return read_json(path) if path.is_file() else {}
    except ValueError as error:
        print(f"note: {path} cannot be read ({error}); it is written anew.")
        return {}


def forget_metrics(output_dir: str) -> None:
    """Remove the metrics of an earlier command, such as an evaluation of the base, before training begins."""
    for name in (METRICS, COMPARISON, BASE_PREDICTIONS):
        (Path(output_dir) / name).unlink(missing_ok=True)


def forget_comparison(split: str, args: Any) -> None:
    """Remove what an earlier command found of the base on rows that may be others than those of this one."""
    if not args.compare_base:
        if (Path(args.output_dir) / COMPARISON).exists():
            print(f"note: {COMPARISON} is removed: what it compares is measured anew, without --compare_base.")
        for name in (COMPARISON, BASE_PREDICTIONS) if split == "predict" else (COMPARISON,):
            (Path(args.output_dir) / name).unlink(missing_ok=True)


def public_command(command: list[str]) -> str:
    """The command line to show: without the value of a hub token."""
    line = shlex.join(command)
    return re.sub(r"(--hub[_-]token[= ])\S+", r"\1***", line)


def write_model_card(args: Any, command: list[str], datasets: list[str]) -> None:
    """Write README.md of the output directory: what the adapter is, how it was made and is loaded, how good it is.

    It replaces the template that PEFT leaves there. The hub takes only its own names for base model and data sets, so
    that a base in a local directory stands in the text alone.

    Args:
        args: every flag.
        command: the command line.
        datasets: names on the hub of data sets that were trained on.
    """
    from huggingface_hub import ModelCard, ModelCardData

    library = "transformers" if args.full_finetune else "peft"
    metadata = ModelCardData(
        base_model=hub_name(args.model_name_or_path),
        datasets=datasets or None,
        library_name=library,
        pipeline_tag="text-generation",
        tags=["qlora", library],
    )
    card = ModelCard(f"---\n{metadata.to_yaml()}\n---\n{card_text(args, command)}")
    # A path that is no Unicode, which Python holds with surrogates, is shown as escapes.
    write_whole(Path(args.output_dir) / MODEL_CARD, str(card).encode("utf-8", "backslashreplace"))


def hub_name(model: str) -> str | None:
    """The name of a base model on the hub, or None where it is a directory, or can be no such name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(model)
    except HFValidationError:
        return None
    return None if Path(model).is_dir() else model


def card_text(args: Any, command: list[str]) -> str:
    """The model card's Markdown."""
    kind = "Full fine-tune" if args.full_finetune else f"LoRA adapter (r = {args.lora_r}, alpha = {args.lora_alpha:g})"
    held = f"{args.bits} bits{f' ({args.quant_type})' if args.bits == 4 else ''}"
    form = (
        f" Questions were asked as `--prompt_format {args.prompt_format}` lays them out." if args.prompt_format else ""
    )
    local = "" if hub_name(args.model_name_or_path) else ", a local directory,"
    return f"""# {kind} of {code_span(args.model_name_or_path)}

Tuned on {code_span(args.dataset)} with the base{local} held in {held}.{form}

## How it was made
{code_block(f"python qlora.py {public_command(command)}")}

## How to load it
{code_block(loading_code(args), "python")}

{CARD_METRICS}{metrics_rows(args.output_dir)}"""


def longest_run(text: str) -> int:
    """Backticks that stand together in `text`, at most."""
    return max(map(len, re.findall("`+", text)), default=0)


def code_span(text: str) -> str:
    """`text` as code within a line of Markdown, whatever it holds.

    Source: https://spec.commonmark.org/0.31.2/#code-spans
    """
    text = text if text.isprintable() else repr(text)
    ticks = "`" * (longest_run(text) + 1)
    space = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def code_block(code: str, language: str = "") -> str:
    """`code` as a fenced block of Markdown, whatever it holds."""
    fence = "`" * max(3, longest_run(code) + 1)
    return f"{fence}{language}\n{code}\n{fence}"


def refresh_model_card(output_dir: str) -> None:
    """Bring the rows of the card's table up to date, for a command that measures what an earlier one has trained.

    Whatever stands around the table stays. A card whose table is not as it was written is left alone, which is said.
    """
    card = Path(output_dir) / MODEL_CARD
    if not card.is_file():
        return
    text = card.read_bytes().decode("utf-8", "surrogateescape")  # somebody else may have written a part of it
    if not OLD_METRICS.search(text):
        print(f"note: {card} has no table of metrics as this tool writes it, and stays as it is.")
        return
    new = OLD_METRICS.sub(lambda _: f"{CARD_METRICS}{metrics_rows(output_dir)}", text, count=1)
    if new != text:
        write_whole(card, new.encode("utf-8", "surrogateescape"))


def metrics_rows(output_dir: str) -> str:
    """metrics.json as rows of a Markdown table."""
    shown = {name: value for name, value in sorted(read_metrics(output_dir).items()) if not is_detail(name)}
    return "".join(f"| {name} | {format_value(value)} |\n" for name, value in shown.items())


def loading_code(args: Any) -> str:
    """Python that loads what was tuned, and its tokenizer."""
    output, base = (json.dumps(path, ensure_ascii=False) for path in (args.output_dir, args.model_name_or_path))
    imports = "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
    tokenizer = f"tokenizer = AutoTokenizer.from_pretrained({output})\n"
    if args.full_finetune:
        return f"{imports}\n{tokenizer}model = AutoModelForCausalLM.from_pretrained({output})"
    return (
        f"from peft import PeftModel\n{imports}\n{tokenizer}"
        f"model = AutoModelForCausalLM.from_pretrained({base})\n"
        "if len(tokenizer) > model.get_input_embeddings().num_embeddings:\n"
        "    model.resize_token_embeddings(len(tokenizer))\n"
        f"model = PeftModel.from_pretrained(model, {output})"
    )


def format_value(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def print_summary(args: Any, metrics: dict[str, Any], tuned: bool, command: list[str]) -> None:
    """Say what was made, where it is, how good it is, and which command comes next.

    Args:
        args: every flag; what this command did not do is not repeated.
        metrics: those of metrics.json.
        tuned: whether the output directory holds tuned weights.
        command: the command line.
    """
    print("\nsummary")
    if tuned:
        what = "weights" if args.full_finetune else "adapter"
        print(f"  {what}:     {args.output_dir}  ({metrics.get('train_steps', 0):,} steps)")
    if args.do_train and "train_loss_first" in metrics:
        print(f"  loss:        {metrics['train_loss_first']:.4f} at the start → {metrics['train_loss_last']:.4f}")
    if args.do_eval:
        before = f"{metrics['eval_loss_before']:.4f} before → " if tuned and "eval_loss_before" in metrics else ""
        print(f"  eval loss:   {before}{metrics['eval_loss']:.4f}  (perplexity {metrics['eval_perplexity']:.3g})")
    if args.do_mmlu_eval:
        for line in shown_mmlu(f"mmlu_{args.mmlu_split}_accuracy", metrics):
            print(line)
    if args.do_predict:
        if "predict_exact_match" in metrics:
            print(f"  answers:     {shown_answers(metrics)}")
        print(f"  predictions: {args.output_dir}/predictions.jsonl")
    if args.compare_base:
        print(f"  comparison:  {args.output_dir}/{COMPARISON}")
    print(f"  metrics:     {args.output_dir}/{METRICS}")
    print(f"  next:        {next_command(args, command)}")


def shown_mmlu(name: str, metrics: dict[str, Any]) -> list[str]:
    """The mean accuracy with its interval, and on a line of their own those of the paper's groups of subjects."""
    low, high = metrics[f"{name}_low"], metrics[f"{name}_high"]
    lines = [f"  MMLU:        {metrics[name]:.1%}, 95% interval {low:.1%} to {high:.1%}  ({name}, mean over subjects)"]
    start = f"{name}_group_"
    groups = [f"{key.removeprefix(start)} {metrics[key]:.1%}" for key in metrics if key.startswith(start)]
    return [*lines, f"               {', '.join(groups)}"] if groups else lines


def shown_answers(metrics: dict[str, Any]) -> str:
    """How good the predictions with a reference are, in one line."""
    names = {"exact_match": "exact match", "token_f1": "token F1", "rougeL": "ROUGE-L", "chrf": "chrF"}
    shown = [f"{label} {metrics[f'predict_{name}']:.1%}" for name, label in names.items()]
    return f"{', '.join(shown)} of {metrics['predict_references']:,}"


def next_command(args: Any, command: list[str]) -> str:
    """The command that would most likely be wanted next."""
    if args.do_predict:
        return f"python -m eval.generation {shlex.quote(args.output_dir)}/predictions.jsonl"
    # Without held-out rows every row of the data set was trained on: predicting them would prove nothing.
    questions = [] if args.do_eval or args.eval_dataset else ["--eval_dataset", "QUESTIONS.jsonl"]
    no_training = [] if "--do_train" in command and not args.do_train else ["--do_train", "False"]
    return f"python qlora.py {public_command([*command, *questions, *no_training, '--do_predict'])}"
