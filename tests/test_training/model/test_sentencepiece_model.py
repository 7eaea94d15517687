"""Tokenizers of a `tokenizer.model` alone: they encode as SentencePiece does, or are refused before weights load."""

import base64
import json
import shutil
import sys
from pathlib import Path

import pytest

import qlora
from tests.conftest import TINY_TEXT, tiny_config
from tests.support import flags
from training.model.sentencepiece import follow_model, model_file, model_reason

# Spaces at every place, and what a small vocabulary has no piece for.
TEXTS = [
    "Hello world", "two  spaces", "  before", " one before", "behind  ", "a\nb", "a\n\n  b", "\t", "x\ty", "   ", "",
    "1 + 2 = 3", "日本 é ﬁ", "🙂", "«ça va?»", "▁a", "A.B,C",
]  # fmt: skip
# What SentencePiece calls its settings: LLaMA's, T5's, and each of them without one.
LLAMA = {
    "model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False, "add_dummy_prefix": True,
}  # fmt: skip
SETTINGS = {
    "llama": LLAMA,
    "without the space in front": LLAMA | {"add_dummy_prefix": False},
    "without bytes": LLAMA | {"byte_fallback": False},
    "unigram": LLAMA | {"model_type": "unigram"},
    "t5": {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc"},
    "bpe, normalized": {"model_type": "bpe", "normalization_rule_name": "nmt_nfkc", "add_dummy_prefix": False},
    "chat": LLAMA | {"user_defined_symbols": ["<|im_start|>", "<|im_end|>"], "control_symbols": ["<ctl>"]},
}


@pytest.fixture(scope="module")
def make_model(tmp_path_factory):
    """A function: settings → a SentencePiece model that is trained on a few lines, made once."""
    from sentencepiece import SentencePieceTrainer

    folder = tmp_path_factory.mktemp("sentencepiece")

    def make(name: str) -> Path:
        path = folder / f"{name}.model"
        if not path.is_file():
            text = [*TINY_TEXT, *(f"Row {n}: {n} times  {n} is {n * n}." for n in range(60))]
            SentencePieceTrainer.train(
                sentence_iterator=iter(text), model_prefix=str(path.with_suffix("")), vocab_size=360,
                hard_vocab_limit=False, minloglevel=2, num_threads=1, **SETTINGS[name],
            )  # fmt: skip
        return path

    return make


@pytest.fixture
def base_of(tmp_path):
    """A function: files and their content → a directory of these and a config.json, without weights."""

    def build(files: dict, vocab_size: int = 384, folder: str = "base") -> Path:
        tiny_config("llama", vocab_size).save_pretrained(tmp_path / folder)
        for name, content in files.items():
            path = tmp_path / folder / name
            path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return tmp_path / folder

    return build


@pytest.fixture
def tokenizer_of():
    """A function: directory → its tokenizer, as a run loads it."""
    return lambda base: flags.tokenizer_of(["--model_name_or_path", str(base), "--use_cpu"])


def ids_of(tokenizer, texts=TEXTS) -> list[list[int]]:
    return [tokenizer(text, add_special_tokens=False).input_ids for text in texts]


# ---- What it encodes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
def test_a_bare_model_encodes_as_sentencepiece_does(make_model, base_of, tokenizer_of, tmp_path, name):
    """Also what is saved and read again, which is all that others have of it."""
    from sentencepiece import SentencePieceProcessor
    from transformers import AutoTokenizer

    path = make_model(name)
    tokenizer = tokenizer_of(base_of({"tokenizer.model": path.read_bytes()}))
    processor = SentencePieceProcessor(model_file=str(path))
    expected = [processor.encode(text) for text in TEXTS]
    assert ids_of(tokenizer) == expected
    tokenizer.save_pretrained(tmp_path / "saved")
    assert ids_of(AutoTokenizer.from_pretrained(tmp_path / "saved")) == expected
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (1, 2, 0)
    texts = [text for text in TEXTS if processor.unk_id() not in processor.encode(text) and "▁" not in text]
    assert [tokenizer.decode(tokenizer(t).input_ids) for t in texts] == [
        processor.decode(processor.encode(t)) for t in texts
    ]


def test_symbols_of_a_chat_are_one_token(make_model, base_of, tokenizer_of):
    tokenizer = tokenizer_of(base_of({"tokenizer.model": make_model("chat").read_bytes()}))
    tokens = tokenizer.tokenize("<|im_start|>Yes!<|im_end|>")
    assert (tokens[0], tokens[-1]) == ("<|im_start|>", "<|im_end|>") and len(tokens) > 3


@pytest.mark.parametrize("folder", ["llama-2-hf", "mistral-7b-v0.1"])
def test_real_models_encode_as_their_published_conversions(shared_data, base_of, tokenizer_of, folder):
    """config.json and tokenizer.model alone give what the published tokenizer.json gives."""
    from tokenizers import Tokenizer

    source = shared_data / "tokenizers" / folder
    tokenizer = tokenizer_of(base_of({"tokenizer.model": (source / "tokenizer.model").read_bytes()}, 32000))
    published = Tokenizer.from_file(str(source / "tokenizer.json"))
    assert ids_of(tokenizer) == [published.encode(text, add_special_tokens=False).ids for text in TEXTS]
    named = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.pad_token)
    assert len(tokenizer) == 32000 and named == ("<s>", "</s>", "<unk>", "<unk>")


def test_a_class_of_its_own_prepares_the_text(shared_data, base_of, tokenizer_of):
    """With LLaMA's tokenizer_config.json the class decides about spaces in front, and the scores about the merges."""
    from transformers import AutoTokenizer

    source = shared_data / "tokenizers/llama-2-hf"
    names = ("tokenizer.model", "tokenizer_config.json")
    bare = tokenizer_of(base_of({name: (source / name).read_bytes() for name in names}, 32000))
    assert type(bare).__name__ == "LlamaTokenizer"
    assert ids_of(bare) == ids_of(AutoTokenizer.from_pretrained(source))


def test_what_still_encodes_otherwise_is_refused(make_model, base_of):
    from transformers import AutoTokenizer

    path = base_of({"tokenizer.model": make_model("llama").read_bytes()}) / "tokenizer.model"
    other = AutoTokenizer.from_pretrained(
        base_of({"tokenizer.model": make_model("unigram").read_bytes()}, folder="other")
    )
    with pytest.raises(ValueError, match=r"transformers makes \[.*\] of 'two  spaces .*, SentencePiece \["):
        follow_model(other, path)


def test_a_run_trains_on_it_and_saves_it(make_model, tmp_path, command, adapter_of):
    import torch
    from sentencepiece import SentencePieceProcessor
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = make_model("llama")
    torch.manual_seed(0)
    processor = SentencePieceProcessor(model_file=str(path))
    AutoModelForCausalLM.from_config(tiny_config("llama", len(processor))).save_pretrained(tmp_path / "base")
    shutil.copy(path, tmp_path / "base" / "tokenizer.model")
    assert qlora.main(command(tmp_path / "base", "--bits", "32", "--max_steps", "1")) == 0
    assert ids_of(AutoTokenizer.from_pretrained(tmp_path / "out")) == [processor.encode(text) for text in TEXTS]
    assert any("lora_B" in name for name in adapter_of(tmp_path / "out"))


# ---- What cannot be read -------------------------------------------------------------------------------------------

TIKTOKEN = b"".join(base64.b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256))
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:9e556afd44213b6bd1be2b850ebbbd98\nsize 499723\n"
LLAMA_CONFIG = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


@pytest.fixture
def refuse(base_of, command, capfd):
    """A function: vocabulary files → the one message of a run on them, which ends before weights are looked for."""

    def run(files: dict) -> str:
        assert qlora.main(command(base_of(files))) == 2
        said = capfd.readouterr().err
        assert said.startswith("qlora.py: error: ") and said.count("error:") == 1
        assert "pip install tiktoken" not in said and "*.safetensors" not in said and str(base_of(files)) in said
        return said

    return run


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        ({}, ["it holds no vocabulary", "tokenizer.json"]),
        ({"tokenizer_config.json": LLAMA_CONFIG}, ["no vocabulary", "(tekken.json, tokenizer.json, tokenizer.model)"]),
        ({"tokenizer_config.json": LLAMA_CONFIG, "vocab.json": {"a": 0}}, ["it holds no vocabulary in a form"]),
        ({"tokenizer.model": TIKTOKEN}, ["a vocabulary for tiktoken", "Llama 3", "Hugging Face form"]),
        ({"tokenizer.model": b"abc"}, ["tokenizer.model (3 bytes) is damaged or no SentencePiece model"]),
        ({"tokenizer.model": b""}, ["tokenizer.model is empty"]),
        ({"tokenizer.model": POINTER}, ["tokenizer.model is a pointer of Git LFS", "git lfs pull"]),
        ({"tokenizer.json": POINTER}, ["tokenizer.json is a pointer of Git LFS"]),
        ({"tokenizer.json": b"{"}, ["tokenizer.json is not JSON (Expecting property name"]),
        ({"tokenizer.json": {}}, ["KeyError: 'added_tokens'", "damaged, do not belong", "tokenizers 0."]),
        ({"tokenizer.json": b"[]"}, ["tokenizer.json must hold a JSON object, and holds a list"]),
        ({"tokenizer_config.json": b"[]"}, ["tokenizer_config.json must hold a JSON object"]),
        ({"vocab.json": {"a": 0}}, ["vocab.json is there without merges.txt"]),
        ({"merges.txt": b"a b\n"}, ["merges.txt is there without vocab.json"]),
        ({"vocab.json": {"a": 0}, "merges.txt": b"\xff\xfe\n"}, ["valid UTF-8", "fetch them again"]),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_vocabularies_that_cannot_be_read(refuse, files, parts):
    if "vocab.json" in files or "merges.txt" in files:
        files = {"tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"}} | files
    said = refuse(files)
    for part in parts:
        assert part in said, part


def test_a_damaged_model_is_named(refuse, make_model):
    content = make_model("llama").read_bytes()
    assert "is damaged or no SentencePiece model: fetch it again" in refuse(
        {"tokenizer.model": content[: len(content) // 2]}
    )


@pytest.mark.parametrize(
    ("module", "package"), [("sentencepiece", "sentencepiece"), ("google.protobuf.message", "protobuf")]
)
def test_the_package_that_is_missing_is_named(refuse, make_model, monkeypatch, module, package):
    content = make_model("llama").read_bytes()
    monkeypatch.setitem(sys.modules, module, None)  # an import of it fails, as if it were not installed
    said = refuse({"tokenizer.model": content})
    assert f"tokenizer.model is a SentencePiece model, and the package {package} that reads it is not installed" in said
    assert f"pip install {package}" in said and "requirements.txt" in said
    pinned = (Path(qlora.__file__).parent / "requirements.txt").read_text(encoding="utf-8")
    assert f"\n{package}==" in pinned


def test_tiktoken_is_left_to_the_package_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "tokenizer.model").write_bytes(TIKTOKEN)
    assert model_reason(tmp_path / "tokenizer.model") is not None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert model_reason(tmp_path / "tokenizer.model") is None


@pytest.mark.parametrize("beside", ["tokenizer.json", "tekken.json"])
def test_what_goes_before_a_model(tmp_path, beside):
    (tmp_path / "tokenizer.model").write_bytes(b"abc")
    assert model_file(tmp_path) == tmp_path / "tokenizer.model"
    (tmp_path / beside).write_text("{}")
    assert model_file(tmp_path) is None
