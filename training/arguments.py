"""The command line: four dataclasses, their checks, and a parser that answers before torch is loaded.

    from training.arguments import check_command_line
    check_command_line(["--bits", "4", "--lerning_rate", "1e-4"])   # ArgumentsError: unknown flag … --learning_rate?

Every check raises `ArgumentsError`, whose text names the flags, what was found and what is allowed.
"""

import contextlib
import difflib
import importlib.metadata
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

BITS = (4, 8, 16, 32)
QUANT_TYPES = ("nf4", "fp4")
MMLU_SPLITS = ("eval", "test")
MMLU_DATASETS = ("mmlu-fs", "mmlu-zs")
SAMPLING_STRATEGIES = ("random", "sequential", "group_by_length", "batch_rebalance")
DEFAULT_OPTIM = "paged_adamw_32bit"
# Decoding methods that the pinned transformers dropped: the flag stays at its default, anything else is refused.
GONE_DECODING = {
    "num_beam_groups": "diverse beam search",
    "diversity_penalty": "diverse beam search",
    "penalty_alpha": "contrastive search",
}
# Packages that transformers probes for while its training arguments are imported; each costs seconds to load.
HEAVY_PACKAGES = {"torch", "accelerate", "peft", "bitsandbytes", "datasets", "sklearn", "scipy", "pandas"}

USAGE = "python qlora.py --model_name_or_path PATH_OR_NAME [--dataset PATH_OR_NAME] [--output_dir DIR] [flags]"
EPILOG = """examples:
  python qlora.py --model_name_or_path Qwen/Qwen3-0.6B --dataset my.jsonl --max_steps 500 --output_dir output/mine
  (the same command again goes on from the last checkpoint)
  python qlora.py … --do_train False --do_predict --output_dir output/mine     (predictions.jsonl)"""


class RequestError(ValueError):
    """What was asked for cannot be done; the message is for the user, the exit status is 2."""


class FailedRunError(RuntimeError):
    """The run could not be finished; the message is for the user, the exit status is 1."""


class ArgumentsError(RequestError):
    """A command line that cannot be served as written."""


def option(default: Any, text: str, **metadata: Any) -> Any:
    """A dataclass field with its help text (unit and choices included) and extra argparse metadata."""
    return field(default=default, metadata={"help": text, **metadata})


def bare_bool(default: bool | None, text: str, **metadata: Any) -> Any:
    """An optional boolean that may also be given bare: `--flag`, `--flag True`, `--flag False`."""
    return option(default, text, nargs="?", const=True, **metadata)


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ArgumentsError(message)


def require_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    require(value in allowed, f"--{name} {value}: allowed are {', '.join(map(str, allowed))}.")


def require_range(args: Any, allowed: str, test: Callable[[Any], bool], *names: str) -> None:
    """Refuse each named field that is set and fails `test`; `allowed` says the rule in words."""
    for name in names:
        value = getattr(args, name)
        require(value is None or test(value), f"--{name} {value}: must be {allowed}.")


@dataclass
class ModelArguments:
    """Which base model, and how it is fetched."""

    _argument_group_name = "base model"

    model_name_or_path: str = option(
        "EleutherAI/pythia-12b", "Base model: a local directory, or a name on the Hugging Face hub."
    )
    trust_remote_code: bool = option(False, "Run model code that comes with the checkpoint. Off unless you trust it.")
    use_auth_token: bool = option(
        False, "Send the stored Hugging Face token (gated models).", aliases=["--use_auth", "--use-auth"]
    )
    device_map: str | None = option(
        None,
        "Where layers go: unset = the whole model on one device; 'auto' = spread over the GPUs, --max_memory_MB each.",
    )

    def __post_init__(self):
        require(bool(self.model_name_or_path.strip()), "--model_name_or_path is empty: give a directory or a hub name.")
        if self.device_map is not None:
            require_choice("device_map", self.device_map, ("auto",))


@dataclass
class DataArguments:
    """Which rows are trained and evaluated on, and where they are cut."""

    _argument_group_name = "data"

    dataset: str = option(
        "alpaca", "Training data: a file (json, jsonl, gz of either, csv, tsv, parquet) or a name (see data/README.md)."
    )
    dataset_format: str | None = option(None, "Format of its records (see data/README.md); detected if not given.")
    eval_dataset: str | None = option(
        None, "File or name whose rows are evaluated and predicted, instead of rows held out of --dataset."
    )
    eval_dataset_size: float = option(
        1024, "Rows of --dataset to hold out for --do_eval and --do_predict: a count, or a fraction between 0 and 1."
    )
    max_train_samples: int | None = option(None, "Train on at most this many rows.")
    max_eval_samples: int | None = option(None, "Evaluate and predict at most this many rows.")
    source_max_len: int = option(1024, "Longest source (prompt), in tokens; the rest is cut.")
    target_max_len: int = option(256, "Longest target (answer), in tokens, its end-of-sequence token included.")

    def __post_init__(self):
        require_range(self, "1 or more", lambda n: n >= 1, "max_train_samples", "max_eval_samples", "source_max_len")
        require_range(self, "2 or more (one token and the end)", lambda n: n >= 2, "target_max_len")
        size = self.eval_dataset_size
        require(
            0 < size < 1 or (size >= 1 and size == int(size)),
            f"--eval_dataset_size {size:g}: must be a whole number of rows, or a fraction between 0 and 1.",
        )


@dataclass
class QLoRAArguments:
    """What this tool adds to, or sets differently in, `Seq2SeqTrainingArguments`; needs no torch.

    `training.trainer.TrainingArguments` joins it with transformers' class.
    """

    _argument_group_name = "training"

    cache_dir: str | None = option(None, "Where downloaded models and data are kept.")
    train_on_source: bool = option(False, "Supervise the source too, not only the target.")
    do_mmlu_eval: bool = option(False, "Score MMLU questions at each evaluation.")
    mmlu_split: str = option("eval", "MMLU split: eval or test.")
    mmlu_dataset: str = option("mmlu-fs", "MMLU prompts: mmlu-fs (five-shot) or mmlu-zs (zero-shot).")
    max_mmlu_samples: int | None = option(None, "Score at most this many MMLU questions.")
    mmlu_source_max_len: int = option(2048, "Longest MMLU prompt, in tokens; cut from the left.")
    full_finetune: bool = option(False, "Train every weight instead of adapters (with --bits 16 or 32).")
    adam8bit: bool = option(False, "Keep Adam's state in 8 bits (paged where there is a CUDA GPU).")
    double_quant: bool = option(True, "Quantize the quantization constants too (4 bits).")
    quant_type: str = option("nf4", "4-bit data type: nf4 or fp4.")
    bits: int = option(4, "Bits a base weight is held in: 4, 8, 16 or 32.")
    lora_r: int = option(64, "Rank of the LoRA matrices.")
    lora_alpha: float = option(16, "LoRA scale: the update is multiplied by alpha / r.")
    lora_dropout: float = option(0.0, "Dropout on the LoRA input, from 0 to below 1.")
    lora_modules: str = option(
        "all", "Layers that get LoRA: 'all' linear layers but the output head, or names like q_proj,v_proj."
    )
    max_memory_MB: int = option(80000, "GPU memory this run may use, in MB for each GPU.")
    group_by_length: bool = option(True, "Batch rows of similar length in tokens together (less padding).")
    warmup_ratio: float = option(0.03, "Share of the steps used to warm up; --warmup_steps, if given, wins.")

    # transformers' own flags, with the published defaults
    output_dir: str = option("./output", "Directory for checkpoints, the adapter, metrics and predictions.")
    report_to: str = option("none", "Trackers to report to: none, tensorboard, wandb, …")
    optim: str = option(DEFAULT_OPTIM, "Optimizer. Paged ones need CUDA and become their plain twin elsewhere.")
    per_device_train_batch_size: int = option(1, "Rows in a micro-batch.")
    gradient_accumulation_steps: int = option(16, "Micro-batches in an optimizer step.")
    max_steps: int = option(10000, "Optimizer steps to train; -1 = as many as --num_train_epochs gives.")
    weight_decay: float = option(0.0, "Weight decay of the optimizer.")
    learning_rate: float = option(2e-4, "Peak learning rate.")
    remove_unused_columns: bool = option(False, "Must stay False: the collator reads the text columns.")
    max_grad_norm: float = option(0.3, "Gradient norm above which gradients are scaled down; 0 = never.")
    do_train: bool = option(True, "Train. --do_train False evaluates or predicts with what --output_dir holds.")
    lr_scheduler_type: str = option("constant", "Learning rate schedule.")
    logging_steps: float = option(10, "Steps between two log lines.")
    logging_first_step: bool = option(True, "Log the first step by itself.")
    logging_nan_inf_filter: bool = option(False, "Hide losses that are not finite from the log.")
    save_strategy: str = option("steps", "When to save a checkpoint: no, steps, epoch, best.")
    save_steps: float = option(250, "Steps between two checkpoints; below 1, a share of all steps.")
    save_total_limit: int | None = option(40, "Checkpoints to keep; older ones are deleted.")
    eval_strategy: str = option(
        "no", "When to evaluate during training: no, steps, epoch.", aliases=["--evaluation_strategy"]
    )
    eval_on_start: bool | None = bare_bool(None, "Evaluate before the first step, too (default: with --do_eval).")
    tf32: bool | None = bare_bool(None, "Allow TF32 matrix products on NVIDIA Ampere or newer GPUs.")
    train_sampling_strategy: str | None = option(
        None,
        "Order of training rows: random, sequential, group_by_length, batch_rebalance (unset: see --group_by_length).",
    )
    # Left unset so that --gradient_checkpointing False is not overruled by the default of its new name.
    gradient_checkpointing: bool | None = bare_bool(
        None, "Recompute activations in the backward pass: less memory, more time (default: True)."
    )
    activation_checkpointing: bool | None = bare_bool(None, "Newer name of --gradient_checkpointing.")
    # Training never reads the cache, and generation has a flag of this name in GenerationArguments.
    use_cache: bool = field(default=False, init=False)

    def __post_init__(self):
        self.check_choices()
        self.check_ranges()
        self.check_pairs()
        self.resolve_aliases()

    def check_choices(self) -> None:
        require_choice("bits", self.bits, BITS)
        require_choice("quant_type", self.quant_type, QUANT_TYPES)
        require_choice("mmlu_split", self.mmlu_split, MMLU_SPLITS)
        require_choice("mmlu_dataset", self.mmlu_dataset, MMLU_DATASETS)
        if self.train_sampling_strategy is not None:
            require_choice("train_sampling_strategy", self.train_sampling_strategy, SAMPLING_STRATEGIES)

    def check_ranges(self) -> None:
        require_range(
            self, "1 or more", lambda n: n >= 1,
            "max_mmlu_samples", "mmlu_source_max_len", "lora_r", "max_memory_MB", "per_device_train_batch_size",
            "per_device_eval_batch_size", "gradient_accumulation_steps", "save_total_limit",
        )  # fmt: skip
        require_range(
            self, "more than 0", lambda x: x > 0, "lora_alpha", "learning_rate", "logging_steps", "save_steps"
        )
        require_range(self, "0 or more", lambda x: x >= 0, "weight_decay", "max_grad_norm", "warmup_steps")
        require_range(self, "from 0 to below 1", lambda x: 0 <= x < 1, "lora_dropout")
        require_range(self, "from 0 to 1", lambda x: 0 <= x <= 1, "warmup_ratio", "adam_beta1", "adam_beta2")
        require(
            self.max_steps == -1 or self.max_steps > 0,
            f"--max_steps {self.max_steps}: must be 1 or more, or -1 to train --num_train_epochs.",
        )
        require(
            self.max_steps > 0 or self.num_train_epochs > 0,
            f"--num_train_epochs {self.num_train_epochs}: must be more than 0 where --max_steps is -1.",
        )

    def check_pairs(self) -> None:
        require(
            not (self.full_finetune and self.bits in (4, 8)),
            f"--full_finetune with --bits {self.bits}: quantized weights cannot be trained. "
            "Use --bits 16 or 32 with --full_finetune, or leave --full_finetune out to train LoRA adapters.",
        )
        require(not (self.fp16 and self.bf16), "--fp16 with --bf16: choose one (bf16 where the GPU has it).")
        require(
            not self.adam8bit or self.optim in (DEFAULT_OPTIM, "paged_adamw_8bit", "adamw_bnb_8bit", "adamw_8bit"),
            f"--adam8bit with --optim {self.optim}: choose one.",
        )
        require(
            self.gradient_checkpointing is None or self.activation_checkpointing in (None, self.gradient_checkpointing),
            f"--gradient_checkpointing {self.gradient_checkpointing} with --activation_checkpointing "
            f"{self.activation_checkpointing}: they are one setting; give one of them.",
        )
        require(
            not self.remove_unused_columns,
            "--remove_unused_columns True would remove the text before it is tokenized: leave it False.",
        )
        require(
            self.do_train or self.do_eval or self.do_predict or self.do_mmlu_eval or self.eval_strategy != "no",
            "--do_train False without --do_eval, --do_predict or --do_mmlu_eval: nothing to do.",
        )
        if self.resume_from_checkpoint is not None:
            require(
                Path(self.resume_from_checkpoint).is_dir(),
                f"--resume_from_checkpoint {self.resume_from_checkpoint}: no such directory. "
                "Leave the flag out to go on from the last good checkpoint in --output_dir.",
            )

    def resolve_aliases(self) -> None:
        """Turn the published names into those of the pinned transformers."""
        if self.train_sampling_strategy is None:
            self.train_sampling_strategy = "group_by_length" if self.group_by_length else "random"
        if self.warmup_steps == 0:
            # Below 1 transformers reads warmup_steps as a share of the steps; exactly 1 would be one step.
            self.warmup_steps = min(self.warmup_ratio, math.nextafter(1.0, 0.0))
        if self.activation_checkpointing is None:
            self.activation_checkpointing = self.gradient_checkpointing is not False
        self.gradient_checkpointing = self.activation_checkpointing
        if self.activation_checkpointing_kwargs is None:
            self.activation_checkpointing_kwargs = self.gradient_checkpointing_kwargs or {"use_reentrant": False}
        self.gradient_checkpointing_kwargs = self.activation_checkpointing_kwargs
        if self.eval_strategy != "no":
            self.do_eval = True
        if self.eval_on_start is None:
            self.eval_on_start = bool(self.do_eval and self.do_train)
        # A prediction is a generated text; there is no other kind here.
        self.predict_with_generate = self.predict_with_generate or self.do_predict


@dataclass
class GenerationArguments:
    """How `--do_predict` writes text."""

    _argument_group_name = "generation"

    max_new_tokens: int = option(256, "Longest generated answer, in tokens.")
    min_new_tokens: int | None = option(None, "Shortest generated answer, in tokens.")
    do_sample: bool = option(False, "Sample instead of taking the likeliest token.")
    num_beams: int = option(1, "Beams; 1 = no beam search.")
    num_beam_groups: int = option(1, "Only 1: the pinned transformers has no diverse beam search.")
    penalty_alpha: float | None = option(None, "Only unset: the pinned transformers has no contrastive search.")
    use_cache: bool = option(True, "Keep keys and values of past tokens while generating.")
    temperature: float = option(1.0, "Sampling temperature.")
    top_k: int = option(50, "Sample among this many likeliest tokens; 0 = all.")
    top_p: float = option(1.0, "Sample among the likeliest tokens that make up this probability.")
    typical_p: float = option(1.0, "Sample among tokens of typical probability, up to this mass.")
    diversity_penalty: float = option(0.0, "Only 0: the pinned transformers has no diverse beam search.")
    repetition_penalty: float = option(1.0, "Penalty on tokens already written; 1 = none.")
    length_penalty: float = option(1.0, "Beam score exponent for length; above 0 favours longer answers.")
    no_repeat_ngram_size: int = option(0, "Never write the same n-gram of this size twice; 0 = allowed.")

    def __post_init__(self):
        for name, method in GONE_DECODING.items():
            default = next(f.default for f in fields(self) if f.name == name)
            require(
                getattr(self, name) == default,
                f"--{name} {getattr(self, name)}: {method} was removed from transformers; only the default "
                f"({default}) is left. Try --num_beams or --do_sample with --top_p.",
            )
        require_range(self, "1 or more", lambda n: n >= 1, "max_new_tokens", "num_beams")
        require_range(self, "0 or more", lambda n: n >= 0, "min_new_tokens", "top_k", "no_repeat_ngram_size")
        require_range(self, "more than 0", lambda x: x > 0, "temperature", "repetition_penalty")
        require_range(self, "more than 0 and at most 1", lambda x: 0 < x <= 1, "top_p", "typical_p")
        require(
            self.min_new_tokens is None or self.min_new_tokens <= self.max_new_tokens,
            f"--min_new_tokens {self.min_new_tokens} with --max_new_tokens {self.max_new_tokens}: "
            "the shortest answer is longer than the longest.",
        )

    def options(self) -> dict[str, Any]:
        """The settings that apply, as keyword arguments of `transformers.GenerationConfig`.

        Strict validation refuses a sampling setting while sampling is off and a beam setting without beams,
        so those that have no effect are left out; `unused` names the ones the user set.
        """
        dropped = set(GONE_DECODING) | (set() if self.do_sample else set(SAMPLING_OPTIONS))
        dropped |= set() if self.num_beams > 1 else {"length_penalty"}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in dropped}

    def unused(self) -> list[str]:
        """Flags that were set away from their default but have no effect on this run."""
        kept = self.options()
        return [f"--{f.name}" for f in fields(self) if f.name not in kept and getattr(self, f.name) != f.default]


SAMPLING_OPTIONS = ("temperature", "top_k", "top_p", "typical_p")


def make_parser(training_arguments: type) -> Any:
    """An `HfArgumentParser` of the four dataclasses that raises `ArgumentsError` instead of exiting."""
    from transformers.hf_argparser import HfArgumentParser

    class Parser(HfArgumentParser):
        def error(self, message: str):
            raise ArgumentsError(message)

    types = (ModelArguments, DataArguments, training_arguments, GenerationArguments)
    parser = Parser(types, prog="qlora.py", usage=USAGE, epilog=EPILOG, allow_abbrev=False)
    parser.formatter_class = help_formatter()
    restore_choices(parser, training_arguments)
    return parser


def help_formatter() -> type:
    import argparse

    class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        """Defaults behind each flag, the examples as they are written."""

    return Formatter


def restore_choices(parser: Any, training_arguments: type) -> None:
    """Give flags that `QLoRAArguments` redefines as plain strings the choices of transformers' enums."""
    parent = next(base for base in training_arguments.__mro__[1:] if is_dataclass(base) and base is not QLoRAArguments)
    hints = get_type_hints(parent)
    for action in parser._actions:
        for kind in get_args(hints.get(action.dest)):
            if isinstance(kind, type) and issubclass(kind, Enum) and action.type is str:
                action.choices = [member.value for member in kind]


def parse(training_arguments: type, argv: Sequence[str]) -> tuple[Any, ...]:
    """Parse `argv` into (model, data, training, generation) arguments.

    Raises:
        ArgumentsError: an unknown flag (the nearest one is named), a bad value, or a contradiction.
    """
    parser = make_parser(training_arguments)
    *parsed, extra = parser.parse_args_into_dataclasses(
        args=list(argv), return_remaining_strings=True, look_for_args_file=False
    )
    if extra:
        raise ArgumentsError(unknown_flag(extra[0], parser._option_string_actions))
    return tuple(parsed)


def unknown_flag(found: str, known: Sequence[str]) -> str:
    if not found.startswith("-"):
        return f"unexpected argument {found!r}: every value needs a flag in front of it, like --dataset {found}."
    name = found.split("=")[0]
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else "It is in none of the published recipes."
    return f"unknown flag {name}. {hint} All flags: python qlora.py --help"


@contextlib.contextmanager
def without_heavy_packages() -> Iterator[None]:
    """Import parts of transformers as if torch and its company were not installed, then forget them.

    `Seq2SeqTrainingArguments` takes 8 s to import because it pulls in torch, peft and bitsandbytes; with the
    availability probes answered "no", and past the package's own `__init__` (1 s), it takes 0.4 s. All that was
    imported that way is dropped again, so that the run itself gets the real modules.
    """
    package = importlib.util.module_from_spec(importlib.util.find_spec("transformers"))
    package.__version__ = importlib.metadata.version("transformers")
    sys.modules["transformers"] = package
    try:
        import_utils = importlib.import_module("transformers.utils.import_utils")
        real = import_utils._is_package_available

        def light(name: str, *args: Any, **kwargs: Any) -> tuple[bool, str]:
            found, version = real(name, *args, **kwargs)
            return found and name not in HEAVY_PACKAGES, version

        import_utils._is_package_available = light
        for probe in vars(import_utils).values():
            if hasattr(probe, "cache_clear"):
                probe.cache_clear()
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
            del sys.modules[name]


def check_command_line(argv: Sequence[str]) -> None:
    """Answer `--help` and refuse wrong requests within two seconds of the start, before torch is loaded.

    Raises:
        ArgumentsError: as `parse` does.
        SystemExit: with status 0 after `--help`.
    """
    if "transformers" in sys.modules:  # imported for real already: there is nothing to save
        return
    with without_heavy_packages():
        from transformers.training_args_seq2seq import Seq2SeqTrainingArguments

        @dataclass
        class LightTrainingArguments(QLoRAArguments, Seq2SeqTrainingArguments):
            def __post_init__(self):  # transformers' own checks need torch and follow in the full parse
                QLoRAArguments.__post_init__(self)

        parse(LightTrainingArguments, argv)
