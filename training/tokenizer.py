"""The tokenizer of a base model, with the special tokens that training needs."""

from typing import Any

DEFAULT_PAD_TOKEN = "[PAD]"
# Tokens that vocabularies hold for padding although the tokenizer does not declare them: GPT-NeoX, Llama 3.1, ….
PAD_TOKENS_IN_VOCABULARIES = (
    "<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>",
)  # fmt: skip


def repair_special_tokens(tokenizer: Any, config: Any) -> None:
    """Set BOS and EOS that the tokenizer lacks, or holds as an empty text, to those of the model config.

    The first conversions of LLaMA were published with empty special tokens, and some tokenizers come as a bare
    vocabulary; the model config names the right ids.

    Raises:
        ValueError: neither the tokenizer nor the config names an end-of-sequence token.
    """
    for name in ("bos_token", "eos_token"):
        token_id = getattr(config, f"{name}_id", None)
        if getattr(tokenizer, name) or not isinstance(token_id, int) or not 0 <= token_id < len(tokenizer):
            continue
        setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(token_id))
    if not tokenizer.eos_token:
        raise ValueError("neither the tokenizer nor the model config names an end-of-sequence token")


def pad_token_for(tokenizer: Any) -> str:
    """The text of a pad token that is not EOS: the declared one, one the vocabulary holds, unk, or a new `[PAD]`."""
    vocabulary = tokenizer.get_vocab()
    undeclared = [token for token in PAD_TOKENS_IN_VOCABULARIES if token in vocabulary]
    for token in (tokenizer.pad_token, *undeclared, tokenizer.unk_token):
        if token and token != tokenizer.eos_token:
            return token
    return DEFAULT_PAD_TOKEN


def smart_tokenizer_and_embedding_resize(special_tokens_dict: dict[str, str], tokenizer: Any, model: Any) -> None:
    """Add special tokens to `tokenizer` and grow the embeddings of `model` where they have no row for them.

    New rows, of the output head too, start at the mean of the old ones. Tables that are larger than the vocabulary
    (padded to a round number) are never shrunk. `model.embeddings_resized` says whether they grew, so that the new
    rows are saved with the adapter.
    """
    import torch

    tokenizer.add_special_tokens(special_tokens_dict)
    old_rows = model.get_input_embeddings().weight.shape[0]
    model.embeddings_resized = len(tokenizer) > old_rows
    if not model.embeddings_resized:
        return
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    head = model.get_output_embeddings()
    tables = [model.get_input_embeddings().weight]
    tables += [] if head is None else [head.weight, getattr(head, "bias", None)]
    with torch.no_grad():
        for table in tables:
            if table is not None:  # (vocabulary, hidden), or (vocabulary,) for a bias
                table[old_rows:] = table[:old_rows].float().mean(dim=0).to(table.dtype)


def align_model_with_tokenizer(model: Any, tokenizer: Any) -> None:
    """Give model and generation config the tokenizer's special ids, so that generation stops at EOS.

    A generation config that already lists the EOS among several ends of text keeps its list.
    """
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    if tokenizer.eos_token_id not in ends:
        model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.config.eos_token_id = tokenizer.eos_token_id
    for config in (model.config, model.generation_config):
        config.pad_token_id = tokenizer.pad_token_id
        if tokenizer.bos_token_id is not None:
            config.bos_token_id = tokenizer.bos_token_id
