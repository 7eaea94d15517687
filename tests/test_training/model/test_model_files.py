"""What a run says of a base model whose files are not there, not whole or not of the kind that is read."""

import json
import shutil

import httpx2  # with which huggingface_hub asks
import pytest

from common.errors import ModelError
from tests.conftest import tiny_config
from training.model.base import load_config, read_weights

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:9e556afd44213b6bd1be2b850ebbbd98\nsize 499723\n"
SHARD, INDEX = "model-00002-of-00003.safetensors", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def sharded(make_base, tmp_path_factory):
    """The tiny base model in three files of weights and their index."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("sharded") / "base"
    AutoModelForCausalLM.from_pretrained(make_base()).save_pretrained(folder, max_shard_size="250KB")
    assert (folder / SHARD).is_file()
    return folder


OPTIONS = {"cache_dir": None, "token": None, "trust_remote_code": False}


@pytest.fixture
def refuse(tmp_path):
    """A function: base model, and files with new content (None: gone) → why it is refused."""

    def run(base, changes: dict) -> str:
        folder = tmp_path / "base"
        shutil.copytree(base, folder)
        for name, content in changes.items():
            path = folder / name
            if content is None:
                path.unlink()
            else:
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        with pytest.raises(ModelError) as refused:
            config = load_config(str(folder), OPTIONS)
            read_weights(str(folder), 32, config=config, use_safetensors=True, **OPTIONS)
        assert str(folder) in str(refused.value)
        return str(refused.value)

    return run


# ---- Weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "part"),
    [
        (None, f"it holds neither model.safetensors nor {INDEX}."),
        ("pytorch_model.bin", "pickles (*.bin), which can run any code and are not read. If you trust them"),
        ("pytorch_model.bin.index.json", "but pickles (*.bin), which can run any code. If you trust them"),
        ("model-q4_k.gguf", "but GGUF files, made for llama.cpp. Give the model that they were made from"),
        ("consolidated.00.pth", "but files in the layout of its authors (consolidated.*)"),
        ("rwkv.pth", "but pickles (*.pth)"),
        ("tf_model.h5", "but TensorFlow's files (*.h5)"),
        ("flax_model.msgpack", "but Flax's files (*.msgpack)"),
        ("adapter_model.safetensors", "but a LoRA adapter. Give the base model"),
        ("final/model.safetensors", "There are weights in "),
    ],
)
def test_weights_in_another_form(refuse, make_base, file, part):
    assert part in refuse(make_base(), {"model.safetensors": None} | ({file: b"x"} if file else {}))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (POINTER, "model.safetensors is a pointer of Git LFS, not the file itself. Fetch it: `git lfs pull`"),
        (b"", "model.safetensors (0 bytes) is damaged or no safetensors file"),
        (b"<!DOCTYPE html><p>Sign in", "model.safetensors (25 bytes) is damaged or no safetensors file"),
    ],
)
def test_weights_that_are_none(refuse, make_base, content, part):
    assert part in refuse(make_base(), {"model.safetensors": content})


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({SHARD: None}, f"1 of 3 files of its weights are missing: {SHARD}"),
        ({SHARD: b"abc"}, f"{SHARD} (3 bytes) is damaged or no safetensors file"),
        ({INDEX: None}, f"{INDEX} is missing, which says what is in model-00001-of-00003.safetensors"),
        ({INDEX: b"{"}, f"{INDEX} is not JSON"),
        ({INDEX: {"metadata": {}}}, f"{INDEX} does not say which weight is where (KeyError: 'weight_map')"),
    ],
)
def test_weights_in_several_files(refuse, sharded, changes, part):
    assert part in refuse(sharded, changes)


# ---- Config --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "part"),
    [
        (POINTER, "config.json is a pointer of Git LFS"),
        (b"", "config.json is not JSON (Expecting value"),
        (b"\xff\xfe\x00", "config.json is not JSON ("),
        ([1], "config.json must hold a JSON object, and holds a list"),
        ({}, "Should have a `model_type` key in its config.json"),
        ({"model_type": "llama9"}, "its model type llama9 is not known to transformers 5"),
        ({"model_type": "vit"}, "ViT is no causal language model of transformers 5"),
    ],
)
def test_configs_of_no_language_model(refuse, make_base, config, part):
    assert part in refuse(make_base(), {"config.json": config})


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ({"hidden_size": None}, "Field 'hidden_size' expected int, got NoneType"),
        ({"hidden_size": "64"}, "Field 'hidden_size' expected int, got str"),
        ({"num_attention_heads": 5}, "The hidden size (64) is not a multiple of the number of attention heads (5)"),
        ({"hidden_act": "nosuch"}, "KeyError: 'nosuch'"),
        ({"dtype": "float99"}, "has no attribute 'float99'"),
        ({"vocab_size": 100}, " is (384, 64), by config.json (100, 64)"),
        ({"quantization_config": "nf4"}, "'str' object has no attribute"),
    ],
)
def test_settings_that_are_impossible_or_of_other_weights(refuse, make_base, setting, part):
    config = json.loads((make_base() / "config.json").read_text())
    assert part in refuse(make_base(), {"config.json": config | setting})


def test_the_directory_that_may_be_meant(tmp_path, make_base):
    snapshot = tmp_path / "models--some--model" / "snapshots" / "abc"
    shutil.copytree(make_base(), snapshot)
    for folder in (snapshot.parent, snapshot.parent.parent):
        with pytest.raises(ModelError, match=f"it has no config.json; there is one in {snapshot}\\."):
            load_config(str(folder), OPTIONS)


# ---- The hub -------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that answers as the real one does about a gated and a private model, and one of pickles."""
    import huggingface_hub
    from huggingface_hub.utils._http import default_client_factory

    config = json.dumps(tiny_config("llama", 384).to_dict()).encode()
    commit = {"X-Repo-Commit": "a" * 40, "ETag": '"1"'}
    files = [{"rfilename": "config.json"}, {"rfilename": "pytorch_model.bin"}]
    errors = {"gated": (403, "GatedRepo"), "private": (401, "RepoNotFound")}

    def answer(request: httpx2.Request) -> httpx2.Response:
        status, code = next((errors[name] for name in errors if f"/{name}" in request.url.path), (404, "EntryNotFound"))
        if request.url.path == "/api/models/org/pickles":
            return httpx2.Response(200, json={"id": "org/pickles", "sha": "a" * 40, "siblings": files})
        if request.url.path.startswith("/org/pickles/resolve") and request.url.path.endswith("/config.json"):
            return httpx2.Response(200, content=config, headers=commit)
        return httpx2.Response(status, headers={"X-Error-Code": code, "X-Error-Message": code} | commit)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("DISABLE_SAFETENSORS_CONVERSION", "1")  # which asks another host
    huggingface_hub.set_client_factory(lambda: httpx2.Client(transport=httpx2.MockTransport(answer)))
    yield tmp_path / "cache"
    huggingface_hub.set_client_factory(default_client_factory)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("org/gated", "it is gated: ask for access on https://huggingface.co/org/gated, and log in once with `hf auth"),
        ("org/private", "there is no such directory here, and no https://huggingface.co/org/private, or a private one"),
        ("not a name", "it is neither a directory here nor like a name on the hub"),
        (
            "org/pickles",
            "https://huggingface.co/org/pickles holds no *.safetensors, or does not answer. Pickles, which",
        ),
    ],
)
def test_answers_of_the_hub(hub, name, part):
    options = OPTIONS | {"cache_dir": str(hub)}
    with pytest.raises(ModelError, match="cannot load the base model") as refused:
        config = load_config(name, options)
        read_weights(name, 32, config=config, use_safetensors=True, **options)
    assert part in str(refused.value)


def test_a_model_of_which_the_cache_has_a_part(hub, monkeypatch):
    """The library would advise not to ask for safetensors."""
    import huggingface_hub

    options = OPTIONS | {"cache_dir": str(hub)}
    config = load_config("org/pickles", options)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set, and the cache does not hold all of it") as refused:
        read_weights("org/pickles", 32, config=config, use_safetensors=True, **options)
    assert "hf download org/pickles" in str(refused.value) and "use_safetensors" not in str(refused.value)


def test_a_token_that_is_not_there(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._headers.get_token", lambda: None)
    options = OPTIONS | {"cache_dir": str(hub), "token": True}
    with pytest.raises(ModelError, match="--use_auth_token asks for a stored token, and there is none: log in once"):
        load_config("org/gated", options)
