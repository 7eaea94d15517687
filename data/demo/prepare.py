"""Make the demo's data and base model: plain facts, a small Llama that has read them, and questions about them.

    python data/demo/prepare.py                                 # everything, into data/demo; 15 minutes on two cores
    python data/demo/prepare.py --text_only --output /tmp/demo  # text.txt, train.jsonl and eval.jsonl; a second
    python data/demo/prepare.py --steps 50 --output /tmp/demo   # a quick look at the training

From facts.csv it writes text.txt (what the base model reads), base/ (tokenizer and model, trained from scratch),
train.jsonl and eval.jsonl (alpaca form, split by country) and prepare.log (what this run did and measured).
"""

import argparse
import csv
import json
import logging
import math
import random
import shlex
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent

# `country` stands before `value` in all but the last wording of a kind: a model that learns "A is B" does not
# learn "B is A" (https://arxiv.org/abs/2309.12288), and questions and answers go from the country to the value.
WORDINGS = {
    "capital": [
        "The capital of {country} is {value}.",
        "The capital city of {country} is {value}.",
        "{country} has its capital in {value}.",
        "{country} has {value} as its capital.",
        "In {country}, the capital is {value}.",
        "The city that serves as the capital of {country} is {value}.",
        "As its capital, {country} has {value}.",
        "On a map of {country}, the capital is marked as {value}.",
        "{value} is the capital of {country}.",
    ],
    "continent": [
        "The continent of {country} is {value}.",
        "{country} is a country in {value}.",
        "{country} belongs to {value}.",
        "{country} is counted as part of {value}.",
        "The part of the world where {country} is found is {value}.",
        "On a globe, {country} is found in {value}.",
        "As a country, {country} belongs to {value}.",
        "A traveller to {country} arrives in {value}.",
        "{value} is the part of the world that {country} belongs to.",
    ],
    "currency": [
        "The currency of {country} is the {value}.",
        "The official currency of {country} is the {value}.",
        "{country} uses the {value} as its currency.",
        "In {country}, the currency is the {value}.",
        "The money used in {country} is the {value}.",
        "As its currency, {country} has the {value}.",
        "Shops in {country} take the {value}.",
        "People in {country} pay with the {value}.",
        "The {value} is the currency of {country}.",
    ],
    "language": [
        "An official language of {country} is {value}.",
        "A language spoken in {country} is {value}.",
        "{country} has {value} as an official language.",
        "In {country}, an official language is {value}.",
        "As an official language, {country} has {value}.",
        "People in {country} speak {value}.",
        "In {country}, people speak {value}.",
        "A visitor to {country} will hear {value}.",
        "{value} is an official language of {country}.",
    ],
}

QUESTIONS = {
    "capital": [
        "What is the capital of {country}?",
        "Which city is the capital of {country}?",
        "Name the capital of {country}.",
        "Tell me the capital city of {country}.",
        "What is the name of the capital of {country}?",
    ],
    "continent": [
        "On which continent is {country}?",
        "Which continent does {country} belong to?",
        "Name the continent of {country}.",
        "Tell me the continent of {country}.",
        "What is the continent of {country}?",
    ],
    "currency": [
        "What is the currency of {country}?",
        "Which currency is used in {country}?",
        "Name the currency of {country}.",
        "Tell me the currency of {country}.",
        "What currency do people use in {country}?",
    ],
    "language": [
        "What is an official language of {country}?",
        "Which official language does {country} have?",
        "Name an official language of {country}.",
        "Tell me an official language of {country}.",
        "Which language is official in {country}?",
    ],
}

# An answer is the first wording of its kind: a sentence of a form that the base model has read.
ANSWERS = {kind: wordings[0] for kind, wordings in WORDINGS.items()}

TOPICS = {
    "capital": "the capital",
    "continent": "the continent",
    "currency": "the currency",
    "language": "an official language",
}

HELD_OUT_COUNTRIES = 40
VOCABULARY = 1024
CONTEXT = 512  # tokens
SPECIAL_TOKENS = ["<pad>", "<s>", "</s>"]
BLOCKS_PER_STEP = 4  # of CONTEXT tokens each
PEAK_LEARNING_RATE = 2e-3
WARMUP_STEPS = 100

log = logging.getLogger("prepare")


def read_facts(path=HERE / "facts.csv"):
    """Rows of facts.csv as dicts: code, country (as it stands inside a sentence) and a value for each kind of fact."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fill(wording, country, value):
    """A wording with its country and value, starting with a capital letter."""
    sentence = wording.format(country=country, value=value)
    return sentence[0].upper() + sentence[1:]


def sentences_about(row):
    """{kind: every wording of that fact of one country}."""
    return {kind: [fill(wording, row["country"], row[kind]) for wording in WORDINGS[kind]] for kind in WORDINGS}


def paragraph(row, sentences):
    """Sentences about one country under an opening that says, in their order, what they tell."""
    topics = [TOPICS[kind] for kind, _ in sentences]
    listed = " and ".join(filter(None, [", ".join(topics[:-1]), topics[-1]]))
    return " ".join([f"This tells {listed} of {row['country']}.", *(sentence for _, sentence in sentences)])


def documents_about(row, rng):
    """Every wording of every fact of one country once, half of them alone and half in paragraphs.

    From the paragraphs the model learns to take the country and the kind of fact from what came before, as it must
    to answer a question; the sentences that stand alone hold the facts without that help.
    """
    documents = []
    columns = [[(kind, s) for s in rng.sample(all_, len(all_))] for kind, all_ in sentences_about(row).items()]
    for turn, sentences in enumerate(zip(*columns, strict=True)):
        sentences = rng.sample(sentences, len(sentences))
        if turn % 2:
            cut = rng.randint(1, len(sentences))
            documents += [paragraph(row, part) for part in (sentences[:cut], sentences[cut:]) if part]
        else:
            documents += [sentence for _, sentence in sentences]
    return documents


def write_text(rows, path, seed):
    """All documents about all countries, one a line, in shuffled order."""
    rng = random.Random(seed)
    documents = [document for row in rows for document in documents_about(row, rng)]
    rng.shuffle(documents)
    path.write_text("\n".join(documents) + "\n", encoding="utf-8")
    return documents


def instruction(row, kind, question):
    """One alpaca record, with the country and the kind of fact it asks for."""
    return {
        "instruction": question.format(country=row["country"]),
        "input": "",
        "output": fill(ANSWERS[kind], row["country"], row[kind]),
        "country": row["country"],
        "fact": kind,
    }


def write_instructions(rows, folder, seed):
    """train.jsonl: every question about most countries; eval.jsonl: one of each kind about each of the others."""
    rng = random.Random(seed)
    rows = rng.sample(rows, len(rows))
    held_out, seen = rows[:HELD_OUT_COUNTRIES], rows[HELD_OUT_COUNTRIES:]
    train = [instruction(row, kind, question) for row in seen for kind in QUESTIONS for question in QUESTIONS[kind]]
    evaluation = [instruction(row, kind, rng.choice(QUESTIONS[kind])) for row in held_out for kind in QUESTIONS]
    for name, records in (("train", train), ("eval", evaluation)):
        rng.shuffle(records)
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    log.info("instructions: %d rows about %d countries to tune on, %d rows about %d others to evaluate on",
             len(train), len(seen), len(evaluation), len(held_out))  # fmt: skip


def train_tokenizer(documents):
    """A byte-level BPE tokenizer that puts <s> in front, as Llama's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

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


def new_model(tokenizer):
    """An untrained Llama: 4 layers of width 256, about 2.9 million parameters, which are 5.8 MB in bf16."""
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

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


def batches(documents, tokenizer, seed):
    """Endless (BLOCKS_PER_STEP, CONTEXT) tensors: <s> document </s>, one after another, in a new order each time."""
    import torch

    rng = random.Random(seed)
    encoded = [ids + [tokenizer.eos_token_id] for ids in tokenizer(documents)["input_ids"]]
    size, buffer = BLOCKS_PER_STEP * CONTEXT, []
    while True:
        for ids in rng.sample(encoded, len(encoded)):
            buffer += ids
            if len(buffer) >= size:
                yield torch.tensor(buffer[:size]).view(BLOCKS_PER_STEP, CONTEXT)
                buffer = buffer[size:]


def learning_rate(step, steps):
    """Linear warm-up, then half a cosine down to zero."""
    if step < WARMUP_STEPS:
        return PEAK_LEARNING_RATE * (step + 1) / WARMUP_STEPS
    return PEAK_LEARNING_RATE * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS))) / 2


def train(model, documents, tokenizer, steps, seed):
    """Train on next-token prediction in fp32, logging the loss, the speed and the time left."""
    import torch

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


def value_is_greedy(model, tokenizer, pairs):
    """For each (opening, rest of the sentence): does greedy decoding after the opening give that rest?"""
    import torch

    openings = [tokenizer(opening)["input_ids"] for opening, _ in pairs]
    rests = [tokenizer(rest, add_special_tokens=False)["input_ids"] for _, rest in pairs]
    known = []
    for first in range(0, len(pairs), 64):
        chunk = list(zip(openings[first : first + 64], rests[first : first + 64], strict=True))
        batch = tokenizer.pad({"input_ids": [a + b for a, b in chunk]}, padding_side="right", return_tensors="pt")
        with torch.inference_mode():
            best = model(**batch).logits.argmax(-1)  # (batch, length)
        known += [best[i, len(a) - 1 : len(a) + len(b) - 1].tolist() == b for i, (a, b) in enumerate(chunk)]
    return known


def measure_knowledge(model, tokenizer, rows):
    """{kind: share of (country, wording) whose value the model completes right}, for wordings that end in the value."""
    model.eval()
    shares = {}
    for kind, wordings in WORDINGS.items():
        pairs = []
        for wording in wordings:
            opening, _, rest = wording.partition(" {value}")
            if rest == ".":
                pairs += [(fill(opening, row["country"], ""), f" {row[kind]}.") for row in rows]
        known = value_is_greedy(model, tokenizer, pairs)
        shares[kind] = sum(known) / len(known)
        log.info("completes %-9s right: %.4f of %d openings", kind, shares[kind], len(known))
    return shares


def make_base(documents, rows, folder, steps, seed):
    """Train tokenizer and model, save them in bf16, load them back and measure what the saved model knows."""
    import torch
    import transformers

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


def start_log(path, argv):
    """Log to the screen and to `path`, beginning with the command."""
    log.setLevel(logging.INFO)
    log.handlers = [logging.StreamHandler(sys.stdout), logging.FileHandler(path, mode="w", encoding="utf-8")]
    log.info("$ python data/demo/prepare.py%s", "".join(f" {shlex.quote(argument)}" for argument in argv))


def log_setting(args):
    """Say with what, and on what, the model is trained."""
    import platform

    import tokenizers
    import torch
    import transformers

    log.info("CPython %s, torch %s, transformers %s, tokenizers %s; %d CPU threads; seed %d", platform.python_version(),
             torch.__version__, transformers.__version__, tokenizers.__version__, args.threads, args.seed)  # fmt: skip


def parse(argv):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE, help="folder to write to (default: beside this file)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the text, the split and the training")
    parser.add_argument("--steps", type=int, default=1400, help="optimizer steps of the base model's training")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads to train with")
    parser.add_argument("--text_only", action="store_true", help="write text and instructions, train no model")
    return parser.parse_args(argv)


def main(argv=None):
    """Write the text and the instructions, then train the base model."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse(argv)
    started = time.monotonic()
    args.output.mkdir(parents=True, exist_ok=True)
    start_log(args.output / "prepare.log", argv)
    rows = read_facts()
    documents = write_text(rows, args.output / "text.txt", args.seed)
    log.info("text: %d countries, %d documents", len(rows), len(documents))
    write_instructions(rows, args.output, args.seed)
    if not args.text_only:
        import torch

        torch.set_num_threads(args.threads)
        log_setting(args)
        make_base(documents, rows, args.output / "base", args.steps, args.seed)
    log.info("done in %.0f s with %.0f s of CPU time", time.monotonic() - started, time.process_time())


if __name__ == "__main__":
    main()
