"""Tokenizers that exist only as a SentencePiece model, `tokenizer.model`, without the `tokenizer.json` made from it.

    follow_model(AutoTokenizer.from_pretrained(directory), model_file(directory))

The libraries that read such a model are imported where one is there.
"""

import importlib.util
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentencepiece.sentencepiece_model_pb2 import ModelProto, NormalizerSpec
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")  # a token in base64, and its rank
SPACE = "▁"  # what stands for a space in a piece
PROBES = ("Hello world, 1 + 2 = 3!", "two  spaces and\nlines, \t tabs ", "déjà vu: «ça va?»")


def model_file(directory: Path) -> Path | None:
    """Return the `*.model` that a directory's tokenizer is made from, where nothing else goes before it."""
    if any((directory / name).is_file() for name in ("tokenizer.json", "tekken.json")):
        return None
    return next(iter(sorted(directory.glob("*.model"))), None)


def is_tiktoken(path: Path) -> bool:
    """Return whether a file is a vocabulary for tiktoken."""
    with path.open("rb") as file:
        return TIKTOKEN_LINE.match(file.readline(1024)) is not None


def model_reason(path: Path) -> str | None:
    """Return why a `*.model` cannot be read as the SentencePiece model that its name promises, or None."""
    if is_tiktoken(path):
        if importlib.util.find_spec("tiktoken") is not None:
            return None
        return (
            f"{path.name} is no SentencePiece model but a vocabulary for tiktoken, the original form of Llama 3's. "
            "Give the model's Hugging Face form: its tokenizer.json has the special tokens too."
        )
    try:
        read_model(path)
    except ImportError as error:
        package = "sentencepiece" if error.name == "sentencepiece" else "protobuf"
        return (
            f"{path.name} is a SentencePiece model, and the package {package} that reads it is not installed: "
            f"pip install {package}, in the version of requirements.txt."
        )
    except ValueError as error:
        return f"{path} {error}: fetch it again."
    return None


def read_model(path: Path) -> "ModelProto":
    """Return the pieces, scores and settings of a SentencePiece model, as its `ModelProto`.

    Raises:
        ImportError: sentencepiece or protobuf is not installed.
        ValueError: it is damaged.
    """
    from sentencepiece import sentencepiece_model_pb2  # isort: skip (first, so that its absence is named)
    from google.protobuf.message import DecodeError

    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError(f"({path.stat().st_size:,} bytes) is damaged or no SentencePiece model") from error
    if not model.pieces:
        raise ValueError("is empty")
    return model


def follow_model(tokenizer: "PreTrainedTokenizerFast", path: Path) -> None:
    """Make the fast tokenizer that transformers has built from a SentencePiece model encode as SentencePiece does.

    transformers 5.23 takes the order of BPE's merges from the ids of the pieces, where SentencePiece has scores (in
    LLaMA's model, runs of spaces have the first ids and the last scores); and where no class of its own says how the
    text is prepared, it leaves out the space that most models put in front, so that no text starts as in training.
    A file for tiktoken stays as it was read.

    Raises:
        ValueError: it encodes otherwise all the same.
    """
    from transformers import TokenizersBackend

    if is_tiktoken(path):
        return
    model, backend = read_model(path), tokenizer.backend_tokenizer
    order_merges(backend, model)
    if type(tokenizer) is TokenizersBackend:
        prepare_text(backend, model.normalizer_spec)
    check_encoding(tokenizer, path)


def order_merges(backend: "Tokenizer", model: "ModelProto") -> None:
    """Put the merges of a BPE tokenizer into the order of the scores of a SentencePiece model."""
    from tokenizers import Tokenizer
    from transformers.tokenization_utils_base import generate_merges

    state = json.loads(backend.to_str())
    if state["model"]["type"] == "BPE":
        scores = {piece.piece: piece.score for piece in model.pieces}
        state["model"]["merges"] = generate_merges(state["model"]["vocab"], scores)
        backend.model = Tokenizer.from_str(json.dumps(state)).model


def prepare_text(backend: "Tokenizer", settings: "NormalizerSpec") -> None:
    """Give `backend` the normalizer and decoder that a SentencePiece model's own settings describe."""
    from tokenizers import Regex, decoders, normalizers

    before = [normalizers.Precompiled(settings.precompiled_charsmap)] if settings.precompiled_charsmap else []
    if settings.remove_extra_whitespaces:
        before += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    after = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if settings.add_dummy_prefix:
        before += [normalizers.Prepend(SPACE)]
        after += [decoders.Strip(" ", left=1)]
    backend.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", SPACE)])
    backend.decoder = decoders.Sequence(after)


def check_encoding(tokenizer: "PreTrainedTokenizerFast", path: Path) -> None:
    """Compare the pieces of a few texts with SentencePiece's own.

    Raises:
        ValueError: they differ.
    """
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(path))
    for text in PROBES:
        expected = processor.id_to_piece(processor.encode(text))
        pieces = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False).input_ids)
        if pieces != expected:
            raise ValueError(
                f"transformers makes {pieces} of {text!r}, SentencePiece {expected}. Give a form of the model with "
                "tokenizer.json"
            )
