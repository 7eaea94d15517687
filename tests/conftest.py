"""What tests share: no network, a tiny tokenizer made on the spot, and the real data where it is there."""

import atexit
import gc
import importlib
import os
import shutil
import signal
import tempfile
from functools import partial
from pathlib import Path

# Before any test imports a library of the hub, which reads these once. Prepared rows of tests are not left behind.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="qlora-tests-")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

from tests.support.paths import REPOSITORY

atexit.register(shutil.rmtree, os.environ["HF_DATASETS_CACHE"], ignore_errors=True)
gc.disable()  # until `pytest_collection_finish`: a third of the time in which libraries are loaded goes into it
TINY_TEXT = [
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    "### Instruction:\nName the capital of France.\n\n### Response: The capital of France is Paris.",
    "The quick brown fox jumps over the lazy dog, 0123456789 times; is that so? Yes!",
]


@pytest.fixture(scope="session")
def _tiny_tokenizer_text() -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<s>", "</s>", "<unk>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TINY_TEXT, trainer)
    return tokenizer.to_str()


@pytest.fixture
def tiny_tokenizer(_tiny_tokenizer_text):
    """A new byte-level BPE tokenizer of at most 384 ids; <s>, </s>, <unk>, <pad> are 0, 1, 2, 3."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_tiny_tokenizer_text),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
    )


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository (or QLORA_SHARED_DATA); skips the test where it is absent."""
    path = Path(os.environ.get("QLORA_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"the real data is not there: {path} (set QLORA_SHARED_DATA)")
    return path


def pytest_collection_modifyitems(items: list) -> None:
    """Mark what reads the real data, so that `-m real_data` runs it alone."""
    for item in items:
        if "shared_data" in item.fixturenames:
            item.add_marker("real_data")


def pytest_collection_finish() -> None:
    """Leave what the tests import out of garbage collection, which would walk a million objects again and again."""
    gc.freeze()
    gc.enable()


ARCHITECTURES = ("llama", "qwen3", "gpt_neox", "gpt2", "gemma")
TRAINED = ("--do_eval", "--lora_dropout", "0.1")  # flags of the run that `trained` copies


def tiny_config(architecture: str, vocab_size: int):
    """A two-layer config of an architecture, with the special ids of `tiny_tokenizer`."""
    from transformers import CONFIG_MAPPING

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    if architecture == "gpt2":
        sizes = {"n_embd": 64, "n_inner": 128, "n_layer": 2, "n_head": 4, "n_positions": 2048}
    elif architecture in ("llama", "qwen3", "gemma"):
        sizes |= {"num_key_value_heads": 2, "head_dim": 16}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 3}
    return CONFIG_MAPPING[architecture](vocab_size=vocab_size, **sizes, **ids)


@pytest.fixture(scope="session")
def _libraries() -> None:
    """Load what a run needs, and leave it out of garbage collection too.

    Every training collects garbage twice (accelerate's `release_memory`), which takes longer than three steps of a
    tiny model where the libraries' objects are walked.
    """
    for module in ("training.loop.trainer", "training.model.build"):
        importlib.import_module(module)
    gc.freeze()


@pytest.fixture(scope="session")
def make_base(tmp_path_factory, _tiny_tokenizer_text, _libraries):
    """A function: architecture → directory of a tiny random base model with its tokenizer, made once."""
    made: dict[str, Path] = {}

    def make(architecture: str = "llama") -> Path:
        if architecture not in made:
            import torch
            from tokenizers import Tokenizer
            from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

            tokenizer = PreTrainedTokenizerFast(
                tokenizer_object=Tokenizer.from_str(_tiny_tokenizer_text),
                bos_token="<s>",
                eos_token="</s>",
                unk_token="<unk>",
                pad_token="<pad>",
            )
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(tiny_config(architecture, len(tokenizer)))
            made[architecture] = tmp_path_factory.mktemp("base") / architecture
            model.save_pretrained(made[architecture])
            tokenizer.save_pretrained(made[architecture])
        return made[architecture]

    return make


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory) -> Path:
    """24 alpaca rows of unequal lengths."""
    import json

    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [
        {
            "instruction": f"Say the number {n}{' please' * (n % 5)}.",
            "input": "aloud" * (n % 2),
            "output": f"The number is {n}." + " Yes!" * (n % 7),
        }
        for n in range(24)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def command_to(rows_file):
    """A function: directory to write to, base model directory and more flags → a quick command line."""

    def build(out: Path, base: Path, *flags: str) -> list[str]:
        return [
            *("--model_name_or_path", str(base), "--dataset", str(rows_file), "--output_dir", str(out)),
            *("--eval_dataset_size", "4", "--max_steps", "3", "--lora_r", "4", "--learning_rate", "0.01"),
            *("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2", "--disable_tqdm", "True"),
            *("--source_max_len", "200", "--target_max_len", "100", "--max_new_tokens", "6", *flags),
        ]

    return build


@pytest.fixture
def command(command_to, tmp_path):
    """A function: base model directory and more flags → a quick command line that writes to `tmp_path / "out"`."""
    return partial(command_to, tmp_path / "out")


@pytest.fixture(scope="session")
def _trained(command_to, make_base, tmp_path_factory) -> Path:
    import qlora

    out = tmp_path_factory.mktemp("trained") / "out"
    assert qlora.main(command_to(out, make_base(), *TRAINED)) == 0
    return out


@pytest.fixture
def trained(_trained, tmp_path) -> Path:
    """`tmp_path / "out"`, as `command(make_base(), *TRAINED)` leaves it, whose run is shared by the tests."""
    return shutil.copytree(_trained, tmp_path / "out")


@pytest.fixture(scope="session")
def make_args():
    """A function: command line → (every flag in one namespace, transformers' arguments, generation arguments)."""

    def parse_all(argv: list[str]):
        import argparse

        from arguments.parser import parse
        from training.loop.arguments import library_arguments

        model, data, training, generation = parse(argv)
        namespace = argparse.Namespace(**vars(model), **vars(data), **vars(training))
        return namespace, library_arguments(training), generation

    return parse_all


@pytest.fixture
def adapter_of():
    """A function: directory → {name: weight} of the adapter (or model) saved there."""

    def load(directory: Path) -> dict:
        from safetensors.torch import load_file

        name = "adapter_model" if (Path(directory) / "adapter_model.safetensors").is_file() else "model"
        return load_file(Path(directory) / f"{name}.safetensors")

    return load


@pytest.fixture
def args_for(make_args):
    """A function: base directory and flags → every flag in one namespace; on the CPU wherever the tests run."""

    def build(base, *flags):
        return make_args(["--model_name_or_path", str(base), "--lora_r", "4", "--use_cpu", *map(str, flags)])[0]

    return build


@pytest.fixture
def asked():
    """A function: base directory and flags → the typed flags; on the CPU wherever the tests run."""
    from arguments.parser import parse

    def build(base, *flags):
        return parse(["--model_name_or_path", str(base), "--lora_r", "4", "--use_cpu", *map(str, flags)])

    return build


@pytest.fixture
def load(args_for):
    """A function: base directory and flags → the model that would be trained."""
    from qlora import get_accelerate_model

    return lambda base, *flags: get_accelerate_model(args_for(base, *flags), None)[0]


@pytest.fixture
def add_callback(monkeypatch):
    """A function: callback → every trainer from now on has it too."""
    from training.loop import train as module

    def add(callback):
        build = module.build_trainer

        def build_with_it(*args, **kwargs):
            trainer = build(*args, **kwargs)
            trainer.add_callback(callback)
            return trainer

        monkeypatch.setattr(module, "build_trainer", build_with_it)

    return add


@pytest.fixture
def stop_after(add_callback):
    """A function: step → every run from now on gets SIGTERM when it finishes that step."""

    def stop(step: int) -> None:
        from transformers import TrainerCallback

        class Terminate(TrainerCallback):
            def on_step_begin(self, args, state, control, **kwargs):
                if state.global_step == step - 1:
                    os.kill(os.getpid(), signal.SIGTERM)

        add_callback(Terminate())

    return stop
