"""Rows as ids and labels: answers and their ends are supervised, BOS stands once, EOS is last, the counts add up."""

import itertools
import json
import random
import zlib

import pytest

from common.errors import DataError
from common.labels import IGNORE_INDEX
from data.batches.collator import DataCollatorForCausalLM
from data.tokens.encoder import NO_ANSWER, RowEncoder
from data.tokens.pairs import PairEncoder
from data.tokens.store import column, tokenize
from data.tokens.templates import ChatRenderer, choose_template
from tests.paths import FIXTURES

TEMPLATES = sorted(path.stem for path in (FIXTURES / "templates").glob("*.jinja"))
REAL_TOKENIZERS = ["gpt-neox-20b", "gpt2", "llama-2-hf", "mistral-7b-v0.1", "qwen1.5"]
TOKENIZERS = ["tiny", *(pytest.param(name, marks=pytest.mark.real_data) for name in REAL_TOKENIZERS)]
MARKS = ["<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<end_of_turn>"]
MARKS += ["<|end|>", "<|assistant|>"]
CHAT = [
    ("user", "What is 2+2?\n"),
    ("assistant", "It is 4."),
    ("user", "It is 4. Sure? 🙂"),
    ("assistant", "是的, 🙂!\n\nYes\tit is  4."),
]


def turns(*pairs, silent=()):
    return [
        {"role": role, "content": content, "supervised": role == "assistant" and number not in silent}
        for number, (role, content) in enumerate(pairs)
    ]


def encoder(tokenizer, source=512, target=512, train_on_source=False, template="default"):
    path = FIXTURES / "templates" / f"{template}.jinja"
    choose_template(tokenizer, str(path) if path.is_file() else template)
    return RowEncoder(PairEncoder(tokenizer, source, target), train_on_source)


def batch(*rows):
    """Columns of rows; a row is (input, output), a text that may be split, or a list of messages."""
    columns = {name: [] for name in ("input", "output", "messages", "tools", "splits", "file")}
    for number, row in enumerate(rows):
        pair = row if isinstance(row, tuple) else ("", row if isinstance(row, str) else "")
        messages = json.dumps(row) if isinstance(row, list) else None
        values = (*pair, messages, None, isinstance(row, str), f"f{number}")
        for name, value in zip(columns, values, strict=True):
            columns[name].append(value)
    return columns


def encode(made, *rows):
    columns = made(batch(*rows))
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    for row in rows:
        for name in ("input_ids", "labels"):
            row[name] = row[name].tolist()
        check(made, row)
    return rows


def check(made, row):
    """What holds for every row."""
    ids, labels, limit = row["input_ids"], row["labels"], made.pairs.limit
    counts = [row[name] for name in ("source_tokens", "source_cut", "target_tokens", "target_cut")]
    assert counts[0] - counts[1] + counts[2] - counts[3] == row["length"] == len(ids) == len(labels) <= limit
    assert min(counts) >= 0
    assert all(label in (token, IGNORE_INDEX) for token, label in zip(ids, labels, strict=True))
    assert row["supervised"] == sum(label != IGNORE_INDEX for label in labels)
    assert (row["dropped"] is None) == bool(ids)
    if ids and made.tokenizer.bos_token_id is not None:
        assert ids[0] == made.tokenizer.bos_token_id


def runs(row):
    """The supervised stretches of a row, as lists of ids."""
    pairs = zip(row["input_ids"], row["labels"], strict=True)
    grouped = itertools.groupby(pairs, key=lambda pair: pair[1] != IGNORE_INDEX)
    return [[token for token, _ in run] for supervised, run in grouped if supervised]


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


def templates_for(tokenizer):
    """Llama 2's template writes bos_token whether there is one or not."""
    return [name for name in ["default", *TEMPLATES] if tokenizer.bos_token or name != "llama-2-chat"]


# Conversations


@pytest.mark.parametrize("name", TOKENIZERS)
def test_supervised_tokens_are_the_answers_and_their_ends(name, request):
    tokenizer = request.getfixturevalue("tiny_tokenizer" if name == "tiny" else "tokenizers")
    tokenizer = tokenizer if name == "tiny" else tokenizer(name)
    for template in templates_for(tokenizer):
        made = encoder(tokenizer, template=template)
        text, spans = ChatRenderer(tokenizer).render(turns(*CHAT), None)
        (row,) = encode(made, turns(*CHAT))
        answers = [tokenizer.decode(run, clean_up_tokenization_spaces=False) for run in runs(row)]
        assert [answer.removesuffix(tokenizer.eos_token).strip() for answer in answers] == [
            text[start:end].removesuffix(tokenizer.eos_token).strip() for start, end, *_ in spans
        ], template
        assert [answer.count("It is 4.") for answer in answers] == [1, 0]
        assert row["labels"][-1] == row["input_ids"][-1] == tokenizer.eos_token_id
        # Llama 2 puts BOS before each question; none has it twice at the start.
        beginnings = 2 if template == "llama-2-chat" else 1
        if tokenizer.bos_token_id not in (None, tokenizer.eos_token_id):
            assert row["input_ids"].count(tokenizer.bos_token_id) == beginnings, template


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_prompt_is_encoded_as_generation_encodes_it(name, request):
    tokenizer = request.getfixturevalue("tiny_tokenizer" if name == "tiny" else "tokenizers")
    tokenizer = tokenizer if name == "tiny" else tokenizer(name)
    answers = ["是的", "\n\nYes", " Yes", "\tYes", "  Yes  ", "yes", "."]  # tokens would reach over a white border
    for template in templates_for(tokenizer):
        made = encoder(tokenizer, template=template)
        chats = [[*CHAT[:3], ("assistant", answer)] for answer in answers]
        for chat, row in zip(chats, encode(made, *(turns(*chat) for chat in chats)), strict=True):
            before = [{"role": role, "content": content} for role, content in CHAT[:3]]
            prompt = tokenizer.apply_chat_template(before, add_generation_prompt=True, return_dict=False)
            if tokenizer.bos_token_id is not None and prompt[0] != tokenizer.bos_token_id:
                prompt = [tokenizer.bos_token_id, *prompt]
            assert row["input_ids"][: row["prompt_length"]] == prompt, (template, chat[-1])
            assert row["labels"][row["prompt_length"]] != IGNORE_INDEX
            assert set(row["labels"][row["prompt_length"] :]).isdisjoint([IGNORE_INDEX])
            shown = tokenizer.decode(runs(row)[-1], clean_up_tokenization_spaces=False)
            assert chat[-1][1].strip() in shown


@pytest.mark.parametrize("template", ["default", "chatml", "llama-2-chat", "qwen3"])
def test_train_on_source_supervises_all_of_it(tiny_tokenizer, template):
    (row,) = encode(encoder(tiny_tokenizer, template=template), turns(*CHAT))
    (whole,) = encode(encoder(tiny_tokenizer, template=template, train_on_source=True), turns(*CHAT))
    assert whole["labels"] == whole["input_ids"] == row["input_ids"]
    assert whole["supervised"] == whole["length"]
    for name in ("prompt_length", "source_tokens", "target_tokens"):
        assert whole[name] == row[name]


def test_a_row_ends_with_its_last_supervised_answer(tiny_tokenizer):
    made = encoder(tiny_tokenizer)
    exact, longer, silent = encode(made, turns(*CHAT[:2]), turns(*CHAT[:3]), turns(*CHAT, silent=(3,)))
    others = {"source_tokens", "source_cut", *batch()}
    for row in (longer, silent):  # what stands behind the last answer is left out, and counted
        assert row["source_cut"] == row["source_tokens"] - exact["source_tokens"] > 0 == exact["source_cut"]
        assert {name: row[name] for name in row if name not in others} == {
            name: exact[name] for name in exact if name not in others
        }


def test_train_on_source_learns_the_turns_behind_the_last_answer_too(tiny_tokenizer):
    (row,) = encode(encoder(tiny_tokenizer, train_on_source=True), turns(*CHAT[:3]))
    assert row["source_cut"] == row["target_cut"] == 0
    assert list(row["labels"]) == list(row["input_ids"]) and row["supervised"] == row["length"]
    assert CHAT[2][1] in tiny_tokenizer.decode(row["input_ids"])
    (cut,) = encode(encoder(tiny_tokenizer, row["length"] - 2, 1, train_on_source=True), turns(*CHAT[:3]))
    assert cut["source_cut"] > 0 and cut["input_ids"][-1] == tiny_tokenizer.eos_token_id


def test_an_answer_of_weight_0_is_shown_and_not_learned(tiny_tokenizer):
    made = encoder(tiny_tokenizer)
    (row,) = encode(made, turns(*CHAT, silent=(1,)))
    assert [tiny_tokenizer.decode(run) for run in runs(row)] == [" 是的, 🙂!\n\nYes\tit is  4.</s>"]
    assert "It is 4.</s>\n" in tiny_tokenizer.decode(row["input_ids"])


def test_eos_follows_a_mark_that_is_another(tiny_tokenizer):
    (row,) = encode(encoder(tiny_tokenizer, template="chatml"), turns(*CHAT))
    first, last = (tiny_tokenizer.decode(run) for run in runs(row))
    assert first == "It is 4.<|im_end|>"
    assert last.endswith("4.<|im_end|></s>")
    (row,) = encode(encoder(tiny_tokenizer, template="phi-3"), turns(*CHAT))
    assert tiny_tokenizer.decode(row["input_ids"]).endswith("4.<|end|>\n</s>")
    assert tiny_tokenizer.decode(runs(row)[0]) == "It is 4.<|end|>"


@pytest.mark.parametrize("template", ["default", "chatml", "llama-2-chat", "phi-3", "qwen3"])
@pytest.mark.parametrize("train_on_source", [False, True])
def test_cut_conversations_keep_eos_and_whole_counts(tiny_tokenizer, template, train_on_source):
    (whole,) = encode(encoder(tiny_tokenizer, template=template), turns(*CHAT))
    spans, at = [], 0
    for supervised, run in itertools.groupby(whole["labels"], key=lambda label: label != IGNORE_INDEX):
        length = len(list(run))
        spans += [(at, at + length)] if supervised else []
        at += length
    (start, end), (second, _) = spans
    for limit in range(2, whole["length"] + 2):
        made = encoder(tiny_tokenizer, 1, limit - 1, train_on_source, template)
        (row,) = encode(made, turns(*CHAT))
        answers = sum(min(e, limit) - s for s, e in spans if s < limit - 1)
        if limit - 1 <= start:
            assert (row["dropped"], row["length"]) == (NO_ANSWER, 0)
            assert (row["source_cut"], row["target_cut"]) == (row["source_tokens"], row["target_tokens"])
            continue
        assert row["input_ids"][-1] == row["labels"][-1] == tiny_tokenizer.eos_token_id
        assert row["input_ids"][:-1] == whole["input_ids"][: row["length"] - 1]
        assert row["source_tokens"] == whole["source_tokens"]
        assert row["target_tokens"] == whole["target_tokens"]
        assert row["prompt_length"] == (start if limit - 1 <= second else second)
        if limit - 1 <= second:  # it ends with the first answer, never in the question
            assert end <= row["length"] <= min(end + 1, limit) or row["length"] == limit < end
        elif limit < whole["length"]:
            assert row["length"] == limit
            assert row["target_cut"] == whole["length"] - limit
            assert row["source_cut"] == 0
            assert row["target_tokens"] - row["target_cut"] == answers
        else:
            assert row["length"] == whole["length"]


def test_a_conversation_that_is_cut_asks_for_the_answer_that_is_left(tiny_tokenizer):
    """It would else be predicted at one question, and compared with the answer to another."""
    (whole,) = encode(encoder(tiny_tokenizer), turns(*CHAT))
    assert (whole["input"], whole["output"]) == ("", "")  # as they were given
    made = encoder(tiny_tokenizer, 1, whole["prompt_length"])
    cut, other = encode(made, turns(*CHAT), ("q", "a"))
    assert (cut["input"], cut["output"]) == (CHAT[0][1], CHAT[1][1])
    assert (other["input"], other["output"]) == ("q", "a")


def test_a_conversation_that_cannot_be_used_is_dropped_with_the_reason(tiny_tokenizer):
    made = encoder(tiny_tokenizer, 10, 10, template="gemma-2")
    rows = encode(made, turns(("system", "s"), *CHAT), turns(("user", "Why? " * 30), *CHAT[1:2]), turns(*CHAT[:2]))
    assert rows[0]["dropped"] == "the chat template refuses it: System role not supported (line 2 of the template)"
    assert [row["dropped"] for row in rows[1:]] == [NO_ANSWER, NO_ANSWER]
    assert [row["labels"] for row in rows] == [[], [], []]


def test_bos_that_is_eos(tokenizers):
    tokenizer = tokenizers("gpt2")
    end = tokenizer.eos_token_id
    (row,) = encode(encoder(tokenizer), turns(*CHAT))
    assert [i for i, token in enumerate(row["input_ids"]) if token == end] == [
        0,
        row["input_ids"].index(end, 1),
        row["length"] - 1,
    ]
    assert row["labels"][0] == IGNORE_INDEX
    assert row["labels"].count(end) == 2


def test_a_tokenizer_that_cannot_tell_places_is_refused(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(type(tiny_tokenizer), "is_fast", False)
    made = encoder(tiny_tokenizer)
    with pytest.raises(DataError, match="cannot tell where .*\ngive a model with a tokenizer.json"):
        made(batch(turns(*CHAT)))
    assert encode(made, ("a", "b"))[0]["dropped"] is None


# Pairs and texts

PAIRS_AT_A_BORDER = [
    ("1 + 2 =", " 3"),
    ("1 + 2 =", "3"),
    ("### Response: ", "The answer is 3."),
    ("### Response:", "Paris"),
    ("Question: hi\nAnswer: ", "  two spaces"),
    ("a\n", "\n\nb"),
    ("日本", "語 🙂"),
    ("foo", "bar"),
    ("", "Once upon a time"),
]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_pair_decodes_to_its_source_and_target(name, request):
    """SentencePiece puts a space before every text; one of its own between source and target is nobody's."""
    tokenizer = request.getfixturevalue("tiny_tokenizer" if name == "tiny" else "tokenizers")
    tokenizer = tokenizer if name == "tiny" else tokenizer(name)
    made = encoder(tokenizer)
    for (source, target), row in zip(PAIRS_AT_A_BORDER, encode(made, *PAIRS_AT_A_BORDER), strict=True):
        without_bos = row["input_ids"][tokenizer.bos_token_id is not None : -1]
        assert tokenizer.decode(without_bos, clean_up_tokenization_spaces=False) == source + target
        # The prompt is what a server would send.
        alone = tokenizer(source)["input_ids"] if source else []
        assert row["input_ids"][: row["prompt_length"]][-len(alone) :] == alone or not source


@pytest.mark.parametrize("name", ["llama-2-hf", "mistral-7b-v0.1"])
def test_an_answer_behind_a_space_has_one(name, tokenizers):
    """The prompt of `plain-turns` ends in a space, and its last token is that space."""
    tokenizer = tokenizers(name)
    (row,) = encode(encoder(tokenizer, template="plain-turns"), turns(*CHAT))
    assert "  是" not in tokenizer.decode(row["input_ids"], clean_up_tokenization_spaces=False)


def test_pairs_are_cut_counted_and_the_same_as_the_collators(tiny_tokenizer):
    pairs = [("What is it?", "It is so."), ("", "x"), ("long " * 30, "It is so."), ("q", "long " * 30)]
    made = encoder(tiny_tokenizer, 20, 12)
    rows = encode(made, *pairs)
    expected = made.pairs.encode(*zip(*pairs, strict=True))
    for row, (source, target) in zip(rows, expected, strict=True):
        assert row["input_ids"] == source + target
        assert row["labels"] == [IGNORE_INDEX] * len(source) + target
        assert row["prompt_length"] == len(source)
    whole = encode(encoder(tiny_tokenizer), *pairs)
    assert [row["source_cut"] for row in rows] == [0, 0, whole[2]["source_tokens"] - 20, 0]
    assert [row["target_cut"] for row in rows] == [0, 0, 0, whole[3]["target_tokens"] - 12]
    assert encode(encoder(tiny_tokenizer, train_on_source=True), *pairs)[0]["labels"] == whole[0]["input_ids"]


def test_a_pair_with_no_answer_token_left_is_dropped(tiny_tokenizer):
    made = encoder(tiny_tokenizer, 20, 1)
    row, eos = encode(made, ("What?", "It is so."), ("What?", "</s>"))
    assert row["dropped"] == eos["dropped"] == NO_ANSWER
    assert (row["source_cut"], row["target_cut"]) == (row["source_tokens"], row["target_tokens"])
    assert encode(encoder(tiny_tokenizer, 20, 2), ("What?", "It is so."))[0]["supervised"] == 2


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_long_text_is_split_and_nothing_is_lost(name, request):
    tokenizer = request.getfixturevalue("tiny_tokenizer" if name == "tiny" else "tokenizers")
    tokenizer = tokenizer if name == "tiny" else tokenizer(name)
    text = "".join(random.Random(0).choices(["The fox. ", "日本", "🙂", "\n\n", " 0123", "quick "], k=200))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    for limit in [7, 64, *range(len(ids) - 1, len(ids) + 4)]:
        rows = encode(encoder(tokenizer, limit - 3, 3), text)
        assert all(row["input_ids"][: len(bos)] == bos for row in rows)
        pieces = [row["input_ids"][len(bos) :] for row in rows]
        assert list(itertools.chain(*pieces)) == [*ids, tokenizer.eos_token_id]
        assert [run for row in rows for run in runs(row)] == pieces
        assert len(pieces[-1]) > 1, limit  # EOS alone is nothing to learn
        assert len(rows) == -(-(len(ids) + 1) // (limit - len(bos)))
        assert sum(row["target_tokens"] for row in rows) == len(ids) + 1


def test_pieces_stand_between_their_neighbours_with_the_other_columns(tiny_tokenizer):
    made = encoder(tiny_tokenizer, 8, 8)
    columns = made(batch(("q", "a"), "fox " * 30, turns(("user", "u"), ("assistant", "v"))))
    assert columns["file"] == ["f0"] + ["f1"] * (len(columns["file"]) - 2) + ["f2"]
    assert len(columns["file"]) > 4


# The cache


@pytest.fixture
def rows_of():
    """A function: pairs → a data set with the columns of `data.rows`."""
    import datasets

    def make(*pairs, file="f.jsonl", fields="{}", splits=False):
        rows = batch(*pairs) | {
            "fields": [fields] * len(pairs),
            "splits": [splits] * len(pairs),
            "place": list(range(1, len(pairs) + 1)),
        }
        rows["file"] = [file] * len(pairs)
        rows["key"] = [zlib.crc32(str(pair).encode()) for pair in pairs]
        strings = {name: datasets.Value("large_string") for name in ("input", "output", "messages", "tools", "fields")}
        others = {"splits": datasets.Value("bool"), "place": datasets.Value("int64"), "key": datasets.Value("int64")}
        features = datasets.Features(strings | others | {"file": datasets.Value("string")})
        return datasets.Dataset.from_dict({name: rows[name] for name in features}, features=features)

    return make


class Counted(RowEncoder):
    """A row encoder that counts the batches it is given."""

    calls = 0

    def __call__(self, rows):
        type(self).calls += 1
        return super().__call__(rows)


PAIRS = [(f"question {n}", f"answer {n} " * n) for n in range(12)]


@pytest.fixture
def cached(rows_of, tmp_path, monkeypatch, _tiny_tokenizer_text):
    """A function: changes → how many batches were encoded to get the rows."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    lengths = itertools.count(3)

    def get(pairs=PAIRS, source=64, target=32, train_on_source=False, template="default", text=None, **changed):
        backend = Tokenizer.from_str(text or _tiny_tokenizer_text)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
        made = encoder(tokenizer, source, target, train_on_source, template)
        monkeypatch.setattr(Counted, "calls", 0)
        tokenizer("a", truncation=True, max_length=next(lengths))  # settings of a call, which are not the tokenizer's
        rows, dropped = tokenize(rows_of(*pairs, **changed), Counted(made.pairs, train_on_source), tmp_path)
        assert len(rows) + len(dropped) == len(pairs)
        return Counted.calls

    return get


def test_the_same_rows_are_read_from_the_disk(cached):
    assert cached() == 1
    assert cached() == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"pairs": [*PAIRS[:-1], ("question", "another")]},
        {"pairs": PAIRS[::-1]},
        {"pairs": PAIRS[:-1]},
        {"file": "g.jsonl"},
        {"fields": '{"id": 1}'},
        {"splits": True},
        {"source": 63},
        {"target": 31},
        {"train_on_source": True},
        {"template": "chatml"},
    ],
)
def test_whatever_changes_the_ids_changes_the_key(cached, changed):
    cached()
    assert cached(**changed) == 1
    assert cached() == cached(**changed) == 0


def test_another_tokenizer_or_code_changes_the_key(cached, monkeypatch, _tiny_tokenizer_text):
    cached()
    state = json.loads(_tiny_tokenizer_text)
    state["model"]["merges"] = state["model"]["merges"][:-1]
    assert cached(text=json.dumps(state)) == 1
    monkeypatch.setattr("data.tokens.encoder.code_digest", lambda names: "changed")
    assert cached() == 1


def test_a_cut_short_write_leaves_nothing_to_trust(cached, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr("data.tokens.store.BATCH", 5)
        original = RowEncoder.__call__

        def fail(self, rows):
            if Counted.calls == 2:
                raise KeyboardInterrupt
            return original(self, rows)

        broken.setattr(RowEncoder, "__call__", fail)
        with pytest.raises(KeyboardInterrupt):
            cached()
    assert cached() == 1


@pytest.mark.parametrize("size", [0, 100, -100])
def test_a_damaged_file_is_made_anew(cached, tmp_path, size):
    assert cached() == 1
    [kept] = tmp_path.glob("tokens-*.arrow")
    kept.write_bytes(kept.read_bytes()[:size])
    assert cached() == 1
    assert cached() == 0


def test_a_full_disk_is_named(cached, monkeypatch):
    def full(self, rows):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RowEncoder, "__call__", full)
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\)"):
        cached()


def test_dropped_rows_stand_apart_with_their_place(rows_of, tiny_tokenizer, tmp_path):
    rows = rows_of(("a", "b"), turns(("user", "long " * 90), ("assistant", "x")), ("c", "d"))
    made = encoder(tiny_tokenizer, 30, 10)
    kept, dropped = tokenize(rows, made, tmp_path)
    assert [kept["place"][:], kept["input"][:]] == [[1, 3], ["a", "c"]]
    assert [dropped["place"][:], dropped["dropped"][:]] == [[2], [NO_ANSWER]]
    assert column(kept, "length").tolist() == kept["length"][:] == [len(ids) for ids in kept["input_ids"]]
    collated = DataCollatorForCausalLM(made.tokenizer, 64, 32, False, False)([kept[0], kept[1]])
    assert collated["input_ids"][0][: kept[0]["length"]].tolist() == kept[0]["input_ids"]
