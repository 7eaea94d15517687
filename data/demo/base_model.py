"""The demo's base model: a tokenizer and a small Llama, trained from scratch on the text, saved, and measured.

    make_base(documents, rows, Path("data/demo/base"), steps=1400, seed=0, threads=2)

`data/demo/prepare.py` calls it; what it measures goes to the log "prepare".
"""

import logging
import math
import platform
import random
import time
from collections.abc import Iterator
from pathlib import Path

import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data.demo.text import WORDINGS, Fact, fill

VOCABULARY = 1024
CONTEXT = 512  # tokens
SPECIAL_TOKENS = ["<pad>", "<s>", "</s>"]
BLOCKS_PER_STEP = 4  # of CONTEXT tokens each
PEAK_LEARNING_RATE = 2e-3
WARMUP_STEPS = 100

log = logging.getLogger("prepare")


def train_tokenizer(documents: list[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer that puts <s> in front, as Llama's does."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(documents, trainer)
    bos_id = backend.token_to_id("<s>")
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos_id)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return an untrained Llama: 4 layers of width 256, about 2.9 million parameters, which are 5.8 MB in bf16."""
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        **ids,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(**ids)
    return model


def batches(documents: list[str], tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[torch.Tensor]:
    """Yield (BLOCKS_PER_STEP, CONTEXT) tensors without end: <s> document </s>, in a new order each time."""
    rng = random.Random(seed)
    encoded = [ids + [tokenizer.eos_token_id] for ids in tokenizer(documents)["input_ids"]]
    size, buffer = BLOCKS_PER_STEP * CONTEXT, []
    while True:
        for ids in rng.sample(encoded, len(encoded)):
            buffer += ids
            if len(buffer) >= size:
                yield torch.tensor(buffer[:size]).view(BLOCKS_PER_STEP, CONTEXT)
                buffer = buffer[size:]


def learning_rate(step: int, steps: int) -> float:
    """Return the learning rate of a step: a linear warm-up, then half a cosine down to zero."""
    if step < WARMUP_STEPS:
        return PEAK_LEARNING_RATE * (step + 1) / WARMUP_STEPS
    return PEAK_LEARNING_RATE * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS))) / 2


def train(
    model: LlamaForCausalLM,
    documents: list[str],
    tokenizer: PreTrainedTokenizerFast,
    steps: int,
    seed: int,
) -> None:
    """Train on next-token prediction in fp32, logging the loss, the speed and the time left."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    stream, started, total, every = batches(documents, tokenizer, seed), time.monotonic(), 0.0, max(1, steps // 40)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        block = next(stream)
        loss = model(input_ids=block, labels=block, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        total += loss.item()
        if (step + 1) % every == 0:
            seconds = time.monotonic() - started
            log.info("step %4d of %d  loss %.4f  %5.0f tokens/s  %4.0f s gone, %4.0f s left", step + 1, steps,
                     total / every, (step + 1) * block.numel() / seconds, seconds,
                     seconds / (step + 1) * (steps - step - 1))  # fmt: skip
            total = 0.0


def value_is_greedy(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    pairs: list[tuple[str, str]],
) -> list[bool]:
    """Return, of each (opening, rest of the sentence), whether greedy decoding after the opening gives that rest."""
    openings = [tokenizer(opening)["input_ids"] for opening, _ in pairs]
    rests = [tokenizer(rest, add_special_tokens=False)["input_ids"] for _, rest in pairs]
    greedy = []
    for first in range(0, len(pairs), 64):
        chunk = list(zip(openings[first : first + 64], rests[first : first + 64], strict=True))
        batch = tokenizer.pad({"input_ids": [a + b for a, b in chunk]}, padding_side="right", return_tensors="pt")
        with torch.inference_mode():
            best = model(**batch).logits.argmax(-1)  # (batch, length)
        greedy += [best[i, len(a) - 1 : len(a) + len(b) - 1].tolist() == b for i, (a, b) in enumerate(chunk)]
    return greedy


def measure_knowledge(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    rows: list[Fact],
) -> dict[str, float]:
    """Return {kind: share of (country, wording) whose value the model completes right}, where the value is last."""
    model.eval()
    shares = {}
    for kind, wordings in WORDINGS.items():
        pairs = []
        for wording in wordings:
            opening, _, rest = wording.partition(" {value}")
            if rest == ".":
                pairs += [(fill(opening, row["country"], ""), f" {row[kind]}.") for row in rows]
        greedy = value_is_greedy(model, tokenizer, pairs)
        shares[kind] = sum(greedy) / len(greedy)
        log.info("completes %-9s right: %.4f of %d openings", kind, shares[kind], len(greedy))
    return shares


def make_base(documents: list[str], rows: list[Fact], folder: Path, steps: int, seed: int, threads: int) -> None:
    """Train tokenizer and model, save them in bf16, load them back and measure what the saved model knows."""
    torch.set_num_threads(threads)
    log_setting(threads, seed)
    transformers.set_seed(seed)
    tokenizer = train_tokenizer(documents)
    model = new_model(tokenizer)
    log.info("model: %d parameters, vocabulary %d", model.num_parameters(), len(tokenizer))
    train(model, documents, tokenizer, steps, seed)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    measure_knowledge(model, tokenizer, rows)
    size = sum(path.stat().st_size for path in folder.iterdir())
    log.info("base model: %d bytes in %s", size, ", ".join(sorted(path.name for path in folder.iterdir())))


def log_setting(threads: int, seed: int) -> None:
    """Say with what, and on what, the model is trained."""
    log.info("CPython %s, torch %s, transformers %s, tokenizers %s; %d CPU threads; seed %d", platform.python_version(),
             torch.__version__, transformers.__version__, tokenizers.__version__, threads, seed)  # fmt: skip
