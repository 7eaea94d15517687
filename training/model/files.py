"""Why a base model or its tokenizer does not load, in words.

    raise ModelError(cannot_load_model(name, error, cache_dir)) from error

The libraries report what they tried last, and advise what does not help here ("install tiktoken", "do not set
use_safetensors"). These functions look at what the hub answered and at the files themselves. A reason is what was
found and what to try, or None.
"""

import json
import re
import shlex
from collections.abc import Collection, Iterator
from importlib.metadata import version
from pathlib import Path

from common.outputs import CONFIG
from training.model.sentencepiece import model_file, model_reason

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
WEIGHTS_INDEX = "model.safetensors.index.json"
JSON_FILES = (CONFIG, WEIGHTS_INDEX, "tokenizer.json", "tokenizer_config.json", "vocab.json")
# Weights in forms that are not read, and what to give instead.
OTHER_WEIGHTS = {
    "pytorch_model*.bin*": "pickles (*.bin), which can run any code.",
    "*.gguf": "GGUF files, made for llama.cpp. Give the model that they were made from.",
    "consolidated*": "files in the layout of its authors (consolidated.*). Give the model's Hugging Face form.",
    "*.pth": "pickles (*.pth), which can run any code. Give the model's Hugging Face form.",
    "tf_model*.h5": "TensorFlow's files (*.h5). Give a form of the model with *.safetensors.",
    "flax_model*.msgpack": "Flax's files (*.msgpack). Give a form of the model with *.safetensors.",
    "adapter_model.*": "a LoRA adapter. Give the base model that it belongs to.",
}
VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "tekken.json", "tiktoken.model")


def error_text(error: BaseException) -> str:
    """Return the first line of an error, the next too behind a colon, and the kind of error before a bare key."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines[:1] and lines[0].endswith(":") else 1]).rstrip(" :.")
    return f"{type(error).__name__}: {text}" if not text or isinstance(error, KeyError | AttributeError) else text


def cannot_load_model(name: str, error: Exception, cache_dir: str | None) -> str:
    """Return the message about a base model, or a tuned one, whose config or weights gave `error`."""
    directory = directory_of(name, cache_dir)
    reason = hub_reason(name, error) or code_reason(error)
    if directory is not None:
        reason = reason or pointer_reason(directory) or json_reason(directory)
    if Path(name).is_dir():  # the hub's cache may hold a part of them
        reason = reason or weights_reason(Path(name))
    reason = reason or model_type_reason(error)
    return f"cannot load the base model {name}: {reason or unexplained(error)}"


def cannot_load_tokenizer(name: str, error: Exception, cache_dir: str | None) -> str:
    """Return the message about a tokenizer that gave `error`."""
    directory = directory_of(name, cache_dir)
    reason = hub_reason(name, error) or code_reason(error)
    if directory is not None:
        reason = reason or vocabulary_reason(directory)
    return f"cannot load the tokenizer of {name}: {reason or unexplained(error)}"


def unexplained(error: Exception) -> str:
    """Return what to say of an error for which no reason was found."""
    return (
        f"{error_text(error)}.\nIts files are damaged, do not belong together, or are of a later release than "
        f"transformers {version('transformers')} with tokenizers {version('tokenizers')}: fetch them again."
    )


def directory_of(name: str, cache_dir: str | None) -> Path | None:
    """Return where the files of a model are: a local directory, its snapshot in the hub's cache, or nowhere."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if Path(name).is_dir():
        return Path(name)
    try:
        config = try_to_load_from_cache(name, CONFIG, cache_dir=cache_dir)
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


# ---- The hub, and code that comes with a model ---------------------------------------------------------------------


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from, or while handling."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def hub_reason(name: str, error: Exception) -> str | None:
    """Return what the hub, or the want of it, has to do with `error`."""
    from huggingface_hub import constants, errors

    if Path(name).is_dir():
        return None
    page, login = f"{constants.ENDPOINT}/{name}", "log in once with `hf auth login`"
    silent = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else f"{constants.ENDPOINT} does not answer"
    no_answer = (
        f"it is no directory here, {silent}, and the cache does not hold all of it.\n"
        f"Where there is a network: hf download {name} --local-dir DIR; then give --model_name_or_path DIR."
    )
    # The library says so too where it could not ask.
    if re.search(r"use_safetensors|file named pytorch_model\.bin", str(error)) and not constants.is_offline_mode():
        return (
            f"{page} holds no *.safetensors, or does not answer. Pickles, which can run any code, are not read. "
            f"{convert_pickles(name)}"
        )
    reasons = {  # the first that fits: some are kinds of others
        errors.LocalTokenNotFoundError: f"--use_auth_token asks for a stored token, and there is none: {login}.",
        errors.GatedRepoError: f"it is gated: ask for access on {page}, and {login}.",
        errors.RepositoryNotFoundError: f"there is no such directory here, and no {page}, or a private one: {login}.",
        errors.HFValidationError: "it is neither a directory here nor like a name on the hub, such as Qwen/Qwen3-0.6B.",
        errors.LocalEntryNotFoundError: no_answer,
        errors.HfHubHTTPError: no_answer,
        ConnectionError: no_answer,
    }
    fitting = (reason for kind, reason in reasons.items() if any(isinstance(cause, kind) for cause in causes(error)))
    offline = "use_safetensors" in str(error) and constants.is_offline_mode()
    return next(fitting, no_answer if offline else None)


def code_reason(error: Exception) -> str | None:
    """Return that code which comes with the model would have to run, where that is so."""
    if "custom code" in str(error) or "trust_remote_code" in str(error):
        return (
            f"{error_text(error)}.\nIts code would run on this machine: read it, and add --trust_remote_code if you "
            "trust it."
        )
    return None


# ---- Config and weights --------------------------------------------------------------------------------------------


def model_type_reason(error: Exception) -> str | None:
    """Return what is wrong with the kind of model that config.json names."""
    release = f"transformers {version('transformers')}"
    unknown = re.search(r"has model type `(.+?)` but Transformers does not recognize", str(error))
    if unknown:
        return (
            f"its model type {unknown[1]} is not known to {release}. Check model_type in its config.json; a later "
            "release may know it."
        )
    other = re.search(r"Unrecognized configuration class <class '[\w.]+\.(\w+)Config'>", str(error))
    if other:
        return (
            f"{other[1]} is no causal language model of {release} (AutoModelForCausalLM). Give a model that continues "
            "text, such as Qwen/Qwen3-0.6B."
        )
    return None


def pointer_reason(directory: Path) -> str | None:
    """Return whether a file of the model is what Git leaves in the place of a large file."""
    for path in sorted(directory.glob("*.*")):
        if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(LFS_POINTER):
            return (
                f"{path.name} is a pointer of Git LFS, not the file itself. Fetch it: `git lfs pull` in {directory}, "
                "or `hf download`."
            )
    return None


def json_reason(directory: Path) -> str | None:
    """Return whether one of the JSON files of a model is none."""
    for path in (directory / name for name in JSON_FILES if (directory / name).is_file()):
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            return f"{path.name} is not JSON ({error_text(error)}): fetch it again."
        if not isinstance(value, dict):
            return f"{path.name} must hold a JSON object, and holds a {type(value).__name__}: fetch it again."
    return None


def weights_reason(directory: Path) -> str | None:
    """Return what is wrong with the weights in a directory: none that are read, missing shards, a damaged file."""
    from safetensors import SafetensorError, safe_open

    index = directory / WEIGHTS_INDEX
    files = sorted(directory.glob("model*.safetensors"))
    if not files and not index.is_file():
        return no_weights_reason(directory)
    if index.is_file():
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (KeyError, TypeError, AttributeError) as error:
            return f"{WEIGHTS_INDEX} does not say which weight is where ({error_text(error)}): fetch it again."
        missing = sorted(shard for shard in shards if not (directory / shard).is_file())
        if missing:
            return f"{len(missing)} of {len(shards)} files of its weights are missing: {missing[0]}, …. Fetch them."
    elif not (directory / "model.safetensors").is_file():
        return f"{WEIGHTS_INDEX} is missing, which says what is in {files[0].name} and the others: fetch it."
    for path in files:
        try:
            with safe_open(path, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            return (
                f"{path.name} ({path.stat().st_size:,} bytes) is damaged or no safetensors file ({error_text(error)}): "
                "fetch it again."
            )
    return None


def no_weights_reason(directory: Path) -> str:
    """Return what a directory holds that has no weights in a form that is read."""
    here = f"it holds neither model.safetensors nor {WEIGHTS_INDEX}"
    for pattern, kind in OTHER_WEIGHTS.items():
        if any(directory.glob(pattern)):
            return f"{here}, but {kind}" + (f" {convert_pickles(str(directory))}" if ".bin" in pattern else "")
    below = next((path.parent for path in sorted(directory.glob("*/model*.safetensors"))), None)
    return f"{here}. " + (f"There are weights in {below}." if below else "Fetch the model's weights.")


def convert_pickles(name: str) -> str:
    """Return how to turn pickled weights into safetensors."""
    code = (
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
        f'[C.from_pretrained({json.dumps(name)}).save_pretrained("DIR") for C in (M, T)]'
    )
    return f"If you trust them, convert them once: python -c {shlex.quote(code)}"


# ---- The tokenizer -------------------------------------------------------------------------------------------------


def vocabulary_reason(directory: Path) -> str | None:
    """Return what is wrong with the vocabulary files in a directory, as far as they show it."""
    reason = pointer_reason(directory) or json_reason(directory) or no_vocabulary_reason(VOCABULARY_FILES, directory)
    model = model_file(directory)
    if reason is not None or model is not None:
        return reason or model_reason(model)
    if (directory / "tokenizer.json").is_file():
        return None
    for file, other in (("vocab.json", "merges.txt"), ("merges.txt", "vocab.json")):
        if (directory / file).is_file() and not (directory / other).is_file():
            return f"{file} is there without {other}: copy that one, or tokenizer.json, of the original model there."
    return None


def no_vocabulary_reason(names: Collection[str], directory: Path) -> str | None:
    """Return whether a directory has none of the files that a vocabulary is read from; without names, none is."""
    if not names or any(path.name in names or path.suffix == ".model" for path in directory.iterdir()):
        return None
    return (
        f"it holds no vocabulary in a form that its tokenizer reads ({', '.join(sorted(names))}). Copy the tokenizer's "
        "files of the original model there."
    )
