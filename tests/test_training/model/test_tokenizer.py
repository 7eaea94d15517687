"""Special tokens of real tokenizers, and embeddings that grow for a new one."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import qlora
from qlora import get_accelerate_model
from tests.conftest import tiny_config
from tests.support.flags import tokenizer_of
from tests.support.rounding import ROUNDING, ROUNDING_BF16, assert_near
from training.model.tokenizer import (
    align_model_with_tokenizer,
    pad_token_for,
    repair_special_tokens,
    restore_settings,
    smart_tokenizer_and_embedding_resize,
)

# Folder → (pad token, its id, BOS after the repair, EOS).
REAL = {
    "tokenizers/gpt2": ("[PAD]", 50257, "<|endoftext|>", "<|endoftext|>"),
    "tokenizers/gpt-neox-20b": ("<|padding|>", 1, "<|endoftext|>", "<|endoftext|>"),
    "tokenizers/llama-2-hf": ("<unk>", 0, "<s>", "</s>"),
    "tokenizers/mistral-7b-v0.1": ("<unk>", 0, "<s>", "</s>"),
    "tokenizers/qwen1.5": ("[PAD]", 151646, None, "<|endoftext|>"),
    "models/stories260K": ("<unk>", 0, "<s>", "</s>"),
}


def config_of(folder):
    from transformers import AutoConfig, GPTNeoXConfig

    if (folder / "config.json").is_file():
        return AutoConfig.from_pretrained(folder)
    return GPTNeoXConfig(bos_token_id=0, eos_token_id=0)


def new_model(rows: int, tied: bool = False, architecture: str = "llama"):
    from transformers import AutoModelForCausalLM

    config = tiny_config(architecture, rows)
    config.tie_word_embeddings = tied
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)


@pytest.fixture
def no_padding(tiny_tokenizer, tmp_path):
    """The tiny tokenizer as GPT-2's is: no pad token, unk is EOS, and none of the known names in the vocabulary."""
    from transformers import AutoTokenizer

    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    path = tmp_path / "tokenizer" / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"<pad>"', '"<other>"'), encoding="utf-8")
    settings = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>"}
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(settings))
    return AutoTokenizer.from_pretrained(tmp_path / "tokenizer")


# ---- Choosing a pad token ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", REAL)
def test_real_tokenizers_pad_with_something_that_is_not_eos(shared_data, folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_data / folder)
    repair_special_tokens(tokenizer, config_of(shared_data / folder))
    tokenizer.add_special_tokens({"pad_token": pad_token_for(tokenizer)})
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    found = (tokenizer.pad_token, tokenizer.pad_token_id, tokenizer.bos_token, tokenizer.eos_token)
    assert found == REAL[folder]


def test_pad_token_in_order_of_preference(tiny_tokenizer):
    assert pad_token_for(tiny_tokenizer) == "<pad>"  # declared
    tiny_tokenizer.pad_token = None
    assert pad_token_for(tiny_tokenizer) == "<pad>"  # known to the vocabulary
    tiny_tokenizer.pad_token = tiny_tokenizer.eos_token
    assert pad_token_for(tiny_tokenizer) == "<pad>"  # declared, but EOS


@pytest.mark.parametrize(
    "name", ["[PAD]", "<|pad|>", "<|padding|>", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>"]
)
def test_known_names_in_the_vocabulary_are_used(no_padding, name):
    no_padding.add_tokens([name])
    before = len(no_padding)
    assert pad_token_for(no_padding) == name
    no_padding.add_special_tokens({"pad_token": name})
    assert len(no_padding) == before


def test_unk_and_then_a_new_token(no_padding):
    assert pad_token_for(no_padding) == "[PAD]"  # unk is EOS
    no_padding.unk_token = "<unk>"
    assert pad_token_for(no_padding) == "<unk>"


# ---- Repairing -----------------------------------------------------------------------------------------------------


@pytest.fixture
def empty_llama(shared_data, tmp_path):
    """LLaMA's tokenizer as it was first converted, with empty special tokens, beside its config."""
    folder = tmp_path / "llama"
    shutil.copytree(shared_data / "tokenizers/llama-2-hf", folder, copy_function=shutil.copyfile)
    empty = {"bos_token": "", "eos_token": "", "unk_token": ""}
    folder.chmod(0o755)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**settings, **empty}))
    return folder


def test_llama_with_empty_special_tokens_is_repaired(empty_llama, make_args):
    from training.model.tokenizer import load_tokenizer

    options = {"cache_dir": None, "token": None, "trust_remote_code": False}
    tokenizer = load_tokenizer(str(empty_llama), None, config_of(empty_llama), options)
    found = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, pad_token_for(tokenizer))
    assert found == (1, 2, 0, "<unk>")
    assert tokenizer("Hi</s>").input_ids == [1, 6324, 2] and len(tokenizer) == 32000


def test_empty_texts_are_replaced_and_others_kept(tiny_tokenizer):
    config = tiny_config("llama", 384)
    tiny_tokenizer.bos_token = tiny_tokenizer.eos_token = tiny_tokenizer.unk_token = ""
    repair_special_tokens(tiny_tokenizer, config)
    assert (tiny_tokenizer.bos_token, tiny_tokenizer.eos_token, tiny_tokenizer.unk_token) == ("<s>", "</s>", "<unk>")
    tiny_tokenizer.eos_token = "<pad>"
    repair_special_tokens(tiny_tokenizer, config)
    assert tiny_tokenizer.eos_token == "<pad>"


def test_an_empty_unk_without_a_known_one_is_taken_away(no_padding):
    no_padding.unk_token = ""
    vocabulary = {t: i for t, i in no_padding.get_vocab().items() if t != "<unk>"}
    no_padding.get_vocab = lambda: vocabulary
    repair_special_tokens(no_padding, tiny_config("llama", 384))
    assert no_padding.unk_token is None and no_padding.eos_token_id == 1


def test_a_tokenizer_that_means_no_bos_keeps_none(tiny_tokenizer):
    tiny_tokenizer.bos_token = None
    repair_special_tokens(tiny_tokenizer, tiny_config("llama", 384))
    assert tiny_tokenizer.bos_token is None


@pytest.mark.parametrize(("ids", "eos"), [(1, "</s>"), ([1, 2], "</s>")])
def test_eos_from_the_config(tiny_tokenizer, ids, eos):
    config = tiny_config("llama", 384)
    config.eos_token_id, tiny_tokenizer.eos_token = ids, None
    repair_special_tokens(tiny_tokenizer, config)
    assert tiny_tokenizer.eos_token == eos


@pytest.mark.parametrize("ids", [None, [], -1, 5000])
def test_no_end_of_sequence_anywhere_is_an_error(tiny_tokenizer, ids):
    config = tiny_config("llama", 384)
    config.eos_token_id, tiny_tokenizer.eos_token = ids, None
    with pytest.raises(ValueError, match="end-of-sequence"):
        repair_special_tokens(tiny_tokenizer, config)


def test_generation_keeps_every_end_of_text(tiny_tokenizer):
    model = new_model(384)
    model.generation_config.eos_token_id = [1, 2]
    align_model_with_tokenizer(model, tiny_tokenizer)
    assert model.generation_config.eos_token_id == [1, 2]
    model.generation_config.eos_token_id = [2]
    align_model_with_tokenizer(model, tiny_tokenizer)
    assert model.generation_config.eos_token_id == 1
    assert (model.config.pad_token_id, model.generation_config.pad_token_id, model.config.bos_token_id) == (3, 3, 0)


# ---- What is saved -------------------------------------------------------------------------------------------------

SAVED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
CUT = {"direction": "Right", "max_length": 50, "strategy": "LongestFirst", "stride": 0}
PADDED = {
    "strategy": {"Fixed": 60}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 3, "pad_type_id": 0,
    "pad_token": "<pad>",
}  # fmt: skip


def differences(first: Path, second: Path) -> dict:
    """Name in a file → (value of the first, of the second), where they differ; a whole file that one lacks."""
    differing = {}
    for file in SAVED:
        texts = [
            (folder / file).read_text(encoding="utf-8") if (folder / file).is_file() else ""
            for folder in (first, second)
        ]
        if file.endswith(".json") and all(texts):
            old, new = map(json.loads, texts)
            names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
            differing |= {name: (old.get(name), new.get(name)) for name in names}
        elif texts[0] != texts[1]:
            differing[file] = tuple(texts)
    return differing


def plainly_saved(base: Path, folder: Path) -> Path:
    """What transformers itself makes of a tokenizer that is loaded and saved."""
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def test_a_run_saves_the_settings_of_the_base(make_base, command, tmp_path):
    """Sides, limits, and what tokenizer.json says of cutting and padding, all of which training does otherwise."""
    base = tmp_path / "base"
    shutil.copytree(make_base(), base)
    for name, changes in {
        "tokenizer.json": {"truncation": CUT, "padding": PADDED},
        "tokenizer_config.json": {"padding_side": "left", "truncation_side": "left", "model_max_length": 77},
    }.items():
        settings = json.loads((base / name).read_text(encoding="utf-8"))
        (base / name).write_text(json.dumps(settings | changes), encoding="utf-8")
    assert qlora.main(command(base, "--bits", "32", "--max_steps", "2", "--save_steps", "1", "--do_predict")) == 0
    plain = plainly_saved(base, tmp_path / "plain")
    assert json.loads((plain / "tokenizer.json").read_text())["truncation"] == CUT
    for folder in ("out", "out/checkpoint-1", "out/checkpoint-2"):
        assert differences(plain, tmp_path / folder) == {}
    shutil.rmtree(tmp_path / "out/checkpoint-2")
    (tmp_path / "out/completed").unlink()
    assert qlora.main(command(base, "--bits", "32", "--max_steps", "2", "--save_steps", "1")) == 0  # from a checkpoint
    assert differences(plain, tmp_path / "out") == {}


@pytest.mark.parametrize("folder", REAL)
def test_real_tokenizers_are_saved_with_a_pad_token_and_else_as_they_are(shared_data, make_args, tmp_path, folder):
    from transformers import AutoTokenizer

    base = tmp_path / "base"
    shutil.copytree(shared_data / folder, base, copy_function=shutil.copyfile)
    base.chmod(0o755)
    if not (base / "config.json").is_file():
        config_of(base).save_pretrained(base)
    argv = ["--model_name_or_path", str(base), "--use_cpu", "--source_max_len", "64"]
    tokenizer = tokenizer_of(argv)
    texts = ["Hi there", " 3", f"a{tokenizer.eos_token}b"]
    encoded = tokenizer(texts, padding=True, truncation=True, max_length=3).input_ids
    restore_settings(tokenizer)
    tokenizer.save_pretrained(tmp_path / "saved")
    changed = differences(plainly_saved(base, tmp_path / "plain"), tmp_path / "saved")
    added = {"pad_token"} if REAL[folder][0] != "[PAD]" else {"pad_token", "added_tokens"}
    assert changed.keys() - {"legacy"} <= added
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again(texts, padding=True, truncation=True, max_length=3).input_ids == encoded
    assert again.padding_side == AutoTokenizer.from_pretrained(base).padding_side


@pytest.mark.parametrize("legacy", [True, False])
def test_what_follows_a_special_token_stays(shared_data, make_args, tmp_path, legacy):
    """LLaMA's `legacy` puts a space behind each; transformers alone forgets it when it saves."""
    from transformers import AutoTokenizer

    base = tmp_path / "base"
    shutil.copytree(shared_data / "tokenizers/llama-2-hf", base, copy_function=shutil.copyfile)
    base.chmod(0o755)
    settings = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(settings | {"legacy": legacy}))
    tokenizer = tokenizer_of(["--model_name_or_path", str(base), "--use_cpu"])
    tokenizer.save_pretrained(tmp_path / "saved")
    for each in (tokenizer, AutoTokenizer.from_pretrained(tmp_path / "saved")):
        assert each.tokenize("<s>Hi") == ["<s>", "▁Hi" if legacy else "Hi"]


# ---- Growing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "gpt2"])
def test_new_rows_start_at_the_mean_of_the_old(no_padding, architecture, tied):
    old = len(no_padding)
    model = new_model(old, tied, architecture)
    tables = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    before = [table.detach().clone() for table in tables]
    assert smart_tokenizer_and_embedding_resize({"pad_token": "[PAD]"}, no_padding, model) is None
    assert no_padding.pad_token_id == old and model.embeddings_resized
    tables = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    assert (tables[0] is tables[1]) is tied
    for was, now in zip(before, tables, strict=True):
        assert now.shape[0] == old + 1 == model.config.vocab_size
        assert torch.equal(now[:old], was)
        assert_near(now[old], was.mean(dim=0))
    assert model(torch.tensor([[0, old]])).logits.shape[-1] == old + 1


def test_several_new_tokens_each_get_a_row(no_padding):
    model, old = new_model(len(no_padding)), len(no_padding)
    mean = model.get_input_embeddings().weight.mean(dim=0)
    smart_tokenizer_and_embedding_resize({"pad_token": "[PAD]", "bos_token": "[BOS]"}, no_padding, model)
    rows = model.get_input_embeddings().weight
    assert rows.shape[0] == old + 2 and {no_padding.pad_token_id, no_padding.bos_token_id} == {old, old + 1}
    assert_near(rows[old:], mean.expand(2, -1))


@pytest.mark.parametrize("spare", [1, 128])
def test_padded_tables_are_never_shrunk(no_padding, spare):
    rows = len(no_padding) + spare
    model = new_model(rows)
    before = model.get_input_embeddings().weight.detach().clone()
    smart_tokenizer_and_embedding_resize({"pad_token": "[PAD]"}, no_padding, model)
    assert not model.embeddings_resized and model.config.vocab_size == rows
    assert torch.equal(model.get_input_embeddings().weight, before)


# ---- With the base model and the adapter ---------------------------------------------------------------------------


@pytest.fixture
def base_without_padding(no_padding, tmp_path):
    """A function: tied → directory of a base model whose embeddings have no row for a pad token."""

    def make(tied: bool):
        new_model(len(no_padding), tied).save_pretrained(tmp_path / "base")
        no_padding.save_pretrained(tmp_path / "base")
        return tmp_path / "base"

    return make


@pytest.mark.parametrize("bits", ["4", "8", "16", "32"])
def test_quantized_models_grow_too(base_without_padding, args_for, bits):
    args = args_for(base_without_padding(False), "--bits", bits)
    model, tokenizer = get_accelerate_model(args, None)
    rows = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight
    assert rows.shape[0] == head.shape[0] == len(tokenizer) == tokenizer.pad_token_id + 1
    share = ROUNDING_BF16 if rows.dtype == torch.bfloat16 else ROUNDING
    assert_near(rows[-1], rows[:-1].float().mean(dim=0), share)
    assert not any(p.requires_grad for n, p in model.named_parameters() if "lora_" not in n)


@pytest.mark.parametrize("bits", ["4", "32"])
@pytest.mark.parametrize("tied", [False, True])
def test_saved_adapter_reloads_with_the_same_logits(base_without_padding, args_for, tmp_path, bits, tied):
    """What was added is saved with the adapter: through this tool, and through PEFT alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    base, out = base_without_padding(tied), tmp_path / "out"
    args = args_for(base, "--bits", bits)
    model, tokenizer = get_accelerate_model(args, None)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:  # as after training
                weight.normal_(std=0.1)
        new_row = model.get_input_embeddings().weight[-1]
        new_row += 1  # not what a fresh resize would give
    ids = torch.tensor([[0, 7, tokenizer.pad_token_id, 9]])
    expected = model(ids).logits.detach()
    model.save_pretrained(out, save_embedding_layers=model.embeddings_resized)
    tokenizer.save_pretrained(out)

    ours, reloaded = get_accelerate_model(args, str(out))
    assert reloaded.pad_token_id == tokenizer.pad_token_id
    assert torch.equal(ours(ids).logits, expected)

    quantization = {}
    if bits == "4":
        settings = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
        quantization["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, **settings)
    theirs = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, device_map={"": "cpu"}, **quantization)
    theirs.resize_token_embeddings(len(AutoTokenizer.from_pretrained(out)))
    # Not in evaluation, where bitsandbytes rounds to bfloat16 on a CPU with AVX512-BF16; nothing here drops out.
    theirs = PeftModel.from_pretrained(theirs, out).train()
    assert_near(theirs(ids).logits, expected)
