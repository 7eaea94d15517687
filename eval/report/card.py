"""The model card: what an adapter is, how it was made and is loaded, and how good it is.

    write_model_card(card_facts(model, data, training, flags, argv, []))     # README.md of the output directory
    refresh_model_card("output/mine")                                        # its table alone

The second one is for a command that evaluates what an earlier one has trained.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from arguments.data import DataArguments
from arguments.declare import AFFECTS, affects
from arguments.model import ModelArguments
from arguments.training import TrainingArguments
from common.files import write_whole
from common.outputs import MODEL_CARD, is_detail
from eval.report.metrics import read_metrics

CARD_METRICS = "## How good it is\n| metric | value |\n|---|---|\n"
OLD_METRICS = re.compile(re.escape(CARD_METRICS) + r"(\|.*\n)*")


@dataclass(frozen=True)
class CardFacts:
    """What a card says of a run.

    Attributes:
        base: the base model, a directory or a name on the hub; dataset: the value of --dataset.
        kind: what was trained, such as "LoRA adapter (r = 64, alpha = 16)"; full_finetune: whether that is a model.
        precision: how the base was held, such as "4 bits (nf4)".
        prompt_format: how questions were laid out, None where there were none.
        command: the command line.
        hub_datasets: names on the hub of data sets that were trained on.
        settings: what each flag affects → the flags that do, with their values.
    """

    output_dir: str
    base: str
    dataset: str
    kind: str
    full_finetune: bool
    precision: str
    prompt_format: str | None
    command: Sequence[str]
    hub_datasets: Sequence[str]
    settings: Mapping[str, Mapping[str, Any]]


def card_facts(
    model: ModelArguments,
    data: DataArguments,
    training: TrainingArguments,
    flags: Mapping[str, Any],
    command: Sequence[str],
    hub_datasets: Sequence[str],
) -> CardFacts:
    """Return what the card says of a run with these flags; `flags` are those that its checkpoints record."""
    lora = f"LoRA adapter (r = {training.lora_r}, alpha = {training.lora_alpha:g})"
    decides = affects(model, data, training)
    return CardFacts(
        output_dir=training.output_dir,
        base=model.model_name_or_path,
        dataset=data.dataset,
        kind="Full fine-tune" if training.full_finetune else lora,
        full_finetune=training.full_finetune,
        precision=f"{training.bits} bits" + (f" ({training.quant_type})" if training.bits == 4 else ""),
        prompt_format=flags["prompt_format"],
        command=command,
        hub_datasets=hub_datasets,
        settings={what: {name: flags[name] for name in flags if decides.get(name) == what} for what in AFFECTS},
    )


def public_command(command: Sequence[str]) -> str:
    """Return the command line to show: without the value of a hub token."""
    return re.sub(r"(--hub[_-]token[= ])\S+", r"\1***", shlex.join(command))


def write_model_card(facts: CardFacts) -> None:
    """Write README.md of the output directory.

    It replaces the template that PEFT leaves there. The hub takes only its own names for base model and data sets, so
    that a base in a local directory stands in the text alone.
    """
    library = "transformers" if facts.full_finetune else "peft"
    metadata = ModelCardData(
        base_model=hub_name(facts.base),
        datasets=list(facts.hub_datasets) or None,
        library_name=library,
        pipeline_tag="text-generation",
        tags=["qlora", library],
    )
    card = ModelCard(f"---\n{metadata.to_yaml()}\n---\n{card_text(facts)}")
    # A path that is no Unicode, which Python holds with surrogates, is shown as escapes.
    write_whole(Path(facts.output_dir) / MODEL_CARD, str(card))


def hub_name(model: str) -> str | None:
    """Return the name of a base model on the hub, or None where it is a directory, or can be no such name."""
    try:
        validate_repo_id(model)
    except HFValidationError:
        return None
    return None if Path(model).is_dir() else model


def card_text(facts: CardFacts) -> str:
    """Return the card's Markdown."""
    form = facts.prompt_format
    layout = f" Questions were asked as `--prompt_format {form}` lays them out." if form else ""
    local = "" if hub_name(facts.base) else ", a local directory,"
    return f"""# {facts.kind} of {code_span(facts.base)}

Tuned on {code_span(facts.dataset)} with the base{local} held in {facts.precision}.{layout}

## How it was made
{code_block(f"python qlora.py {public_command(facts.command)}")}

| what it decides | settings |
|---|---|
{settings_rows(facts.settings)}
## How to load it
{code_block(loading_code(facts.output_dir, facts.base, facts.full_finetune), "python")}

{CARD_METRICS}{metrics_rows(facts.output_dir)}"""


def settings_rows(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the rows of a table: what flags affect, and their names and values."""
    texts = {
        affects: ", ".join(f"{name} {value}" for name, value in flags.items() if value is not None)
        for affects, flags in settings.items()
        if flags
    }
    return "".join(
        f"| {AFFECTS[affects]} | {code_span(text).replace('|', chr(92) + '|')} |\n" for affects, text in texts.items()
    )


def longest_run(text: str) -> int:
    """Return how many backticks stand together in `text`, at most."""
    return max(map(len, re.findall("`+", text)), default=0)


def code_span(text: str) -> str:
    """Return `text` as code within a line of Markdown, whatever it holds.

    Source: https://spec.commonmark.org/0.31.2/#code-spans
    """
    text = text if text.isprintable() else repr(text)
    ticks = "`" * (longest_run(text) + 1)
    space = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def code_block(code: str, language: str = "") -> str:
    """Return `code` as a fenced block of Markdown, whatever it holds."""
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
    """Return what was measured as rows of a Markdown table."""
    metrics = {name: value for name, value in sorted(read_metrics(output_dir).items()) if not is_detail(name)}
    return "".join(f"| {name} | {format_value(value)} |\n" for name, value in metrics.items())


def format_value(value: Any) -> str:
    """Return a number as people read it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def loading_code(output_dir: str, base: str, full_finetune: bool) -> str:
    """Return Python that loads what was tuned, and its tokenizer."""
    output, base = (json.dumps(path, ensure_ascii=False) for path in (output_dir, base))
    imports = "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
    tokenizer = f"tokenizer = AutoTokenizer.from_pretrained({output})\n"
    if full_finetune:
        return f"{imports}\n{tokenizer}model = AutoModelForCausalLM.from_pretrained({output})"
    return (
        f"from peft import PeftModel\n{imports}\n{tokenizer}"
        f"model = AutoModelForCausalLM.from_pretrained({base})\n"
        "if len(tokenizer) > model.get_input_embeddings().num_embeddings:\n"
        "    model.resize_token_embeddings(len(tokenizer))\n"
        f"model = PeftModel.from_pretrained(model, {output})"
    )
