"""What tests share: no network, a tiny tokenizer made on the spot, and the real data where it is there."""

import os
from pathlib import Path

# Before any test imports a library of the hub, which reads these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest  # noqa: E402

REPOSITORY = Path(__file__).resolve().parent.parent
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
