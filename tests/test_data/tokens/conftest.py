"""What tests of tokens share."""

import pytest

from tests.support.token_rows import MARKS


@pytest.fixture(scope="module")
def tokenizers(shared_data):
    """A function: name → a tokenizer with EOS, loaded once."""
    from transformers import AutoTokenizer

    made = {}

    def load(name):
        if name not in made:
            made[name] = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / name)
            if made[name].eos_token_id is None:  # a bare tokenizer.json names no special tokens
                made[name].add_special_tokens({"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"})
            made[name].add_tokens(MARKS, special_tokens=True)
        return made[name]

    return load
