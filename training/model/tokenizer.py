"""The tokenizer of a base model, with the special tokens that training needs.

    tokenizer = load_tokenizer("Qwen/Qwen3-0.6B", None, config, hub_options(model_arguments, None))

It is saved again as it was loaded.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from common.errors import ModelError
from training.model.files import cannot_load_tokenizer, directory_of, no_vocabulary_reason, vocabulary_reason
from training.model.sentencepiece import follow_model, model_file

DEFAULT_PAD_TOKEN = "[PAD]"
# Tokens that vocabularies hold for padding although the tokenizer does not declare them: GPT-NeoX, Llama 3.1, ….
PAD_TOKENS_IN_VOCABULARIES = (
    "<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>",
)  # fmt: skip


def load_tokenizer(
    name: str, checkpoint: str | None, config: PretrainedConfig, options: dict[str, Any]
) -> PreTrainedTokenizerBase:
    """Return the tokenizer saved with the checkpoint, or else the base model's, with special tokens and pad token.

    Args:
        name: of the base model, a directory or a name on the hub.
        options: see `training.model.base.hub_options`.

    Raises:
        ModelError: it cannot be read, or would encode otherwise than the model was trained with.
    """
    saved = checkpoint is not None and (Path(checkpoint) / "tokenizer_config.json").is_file()
    source = checkpoint if saved else name
    tokenizer = read_tokenizer(source, options)
    directory = directory_of(source, options["cache_dir"])
    model = model_file(directory) if directory is not None and tokenizer.is_fast else None
    try:
        if model is not None:
            follow_model(tokenizer, model)
        repair_special_tokens(tokenizer, config)
    except ValueError as error:
        raise ModelError(f"cannot use the tokenizer of {source}: {error}.") from error
    keep_settings(tokenizer)
    tokenizer.add_special_tokens({"pad_token": pad_token_for(tokenizer)})
    return tokenizer


def read_tokenizer(source: str, options: dict[str, Any]) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a directory or hub name as transformers reads it. Raises ModelError where it has none."""
    directory = directory_of(source, options["cache_dir"])
    if directory is not None and model_file(directory) is not None:
        # What cannot be read as SentencePiece the library takes for tiktoken's, and warns and advises accordingly.
        reason = vocabulary_reason(directory)
        if reason is not None:
            raise ModelError(f"cannot load the tokenizer of {source}: {reason}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except Exception as error:  # the library behind it, tokenizers, raises no other kind
        raise ModelError(cannot_load_tokenizer(source, error, options["cache_dir"])) from error
    directory, names = directory_of(source, options["cache_dir"]), set(tokenizer.vocab_files_names.values())
    reason = directory and no_vocabulary_reason(names and names | {"tekken.json"}, directory)
    if reason:  # some classes begin with an empty vocabulary then
        raise ModelError(f"cannot load the tokenizer of {source}: {reason}")
    return tokenizer


def repair_special_tokens(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """Set BOS, EOS and unk that the tokenizer lacks although the model has them.

    The first conversions of LLaMA were published with empty special tokens, and some tokenizers come as a bare
    vocabulary; the model config names the right ids. A tokenizer that names EOS but no BOS (Qwen) means it: its model
    was trained without.

    Raises:
        ValueError: neither the tokenizer nor the config names an end-of-sequence token.
    """
    if tokenizer.unk_token == "":  # the library looks up an unknown token as its unk token, here without end
        tokenizer.unk_token = "<unk>" if "<unk>" in tokenizer.get_vocab() else None
    bare = not tokenizer.eos_token
    if tokenizer.bos_token == "" or (bare and not tokenizer.bos_token):
        tokenizer.bos_token = token_of(tokenizer, config.bos_token_id)
    if bare:
        tokenizer.eos_token = token_of(tokenizer, config.eos_token_id)
    if not tokenizer.eos_token:
        raise ValueError(
            "neither the tokenizer nor the model config names an end-of-sequence token; name it in "
            "tokenizer_config.json, as eos_token"
        )


def keep_settings(tokenizer: PreTrainedTokenizerBase) -> None:
    """Note the settings of a tokenizer that is just loaded and that would not be saved again as they are.

    LLaMA's `legacy`, which decides what follows a special token, is read but not written by transformers 5.23.
    Truncation and padding of tokenizer.json are those of the last call of the tokenizer.
    """
    if hasattr(tokenizer, "legacy"):
        tokenizer.init_kwargs["legacy"] = tokenizer.legacy
    if tokenizer.is_fast:
        backend = tokenizer.backend_tokenizer
        tokenizer.loaded_settings = (backend.truncation, backend.padding)


def restore_settings(tokenizer: PreTrainedTokenizerBase) -> None:
    """Bring back the truncation and padding that `keep_settings` noted, before the tokenizer is saved."""
    if hasattr(tokenizer, "loaded_settings"):
        backend, (truncation, padding) = tokenizer.backend_tokenizer, tokenizer.loaded_settings
        backend.no_truncation()
        backend.no_padding()
        if truncation:
            backend.enable_truncation(**truncation)
        if padding:
            backend.enable_padding(**padding)


def token_of(tokenizer: PreTrainedTokenizerBase, token_id: int | list[int] | None) -> str | None:
    """Return the text of an id of the model config (of the first, where it lists several), or None."""
    first = token_id[0] if isinstance(token_id, list) and token_id else token_id
    return tokenizer.convert_ids_to_tokens(first) if isinstance(first, int) and 0 <= first < len(tokenizer) else None


def pad_token_for(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text of a pad token that is not EOS: declared, held by the vocabulary, unk, or a new `[PAD]`."""
    vocabulary = tokenizer.get_vocab()
    undeclared = [token for token in PAD_TOKENS_IN_VOCABULARIES if token in vocabulary]
    for token in (tokenizer.pad_token, *undeclared, tokenizer.unk_token):
        if token and token != tokenizer.eos_token:
            return token
    return DEFAULT_PAD_TOKEN


def smart_tokenizer_and_embedding_resize(
    special_tokens_dict: dict[str, str], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> None:
    """Add special tokens to `tokenizer` and grow the embeddings of `model` where they have no row for them.

    New rows, of the output head too, start at the mean of the old ones. Tables that are larger than the vocabulary
    (padded to a round number) are never shrunk. `model.embeddings_resized` says whether they grew, so that the new
    rows are saved with the adapter.
    """
    tokenizer.add_special_tokens(special_tokens_dict)
    old_rows = model.get_input_embeddings().weight.shape[0]
    model.embeddings_resized = len(tokenizer) > old_rows
    if not model.embeddings_resized:
        return
    print(f"note: embeddings grew from {old_rows} to {len(tokenizer)} rows; they are saved with the adapter.")
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    head = model.get_output_embeddings()
    tables = [model.get_input_embeddings().weight]
    tables += [] if head is None else [head.weight, getattr(head, "bias", None)]
    with torch.no_grad():
        for table in tables:
            if table is not None:  # (vocabulary, hidden), or (vocabulary,) for a bias
                table[old_rows:] = table[:old_rows].float().mean(dim=0).to(table.dtype)


def align_model_with_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give model and generation config the tokenizer's special ids, so that generation stops at EOS.

    A generation config that already lists the EOS among several ends of text keeps its list.
    """
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    if tokenizer.eos_token_id not in ends:
        model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.config.eos_token_id = tokenizer.eos_token_id
    if not model.generation_config.do_sample:  # settings that have no effect could not be saved again
        for name in ("temperature", "top_k", "top_p", "min_p", "typical_p"):
            setattr(model.generation_config, name, None)
    for config in (model.config, model.generation_config):
        config.pad_token_id = tokenizer.pad_token_id
        if tokenizer.bos_token_id is not None:
            config.bos_token_id = tokenizer.bos_token_id
