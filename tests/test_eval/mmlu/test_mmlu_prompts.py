"""MMLU prompts: read, sampled over subjects, cut from the left by whole examples, and the tokens that answer them."""

import collections
import json

import pytest

from common.errors import DataError
from eval.mmlu import prompts as mmlu_prompts
from eval.mmlu.prompts import encode_prompts, letter_tokens, load_mmlu, split_prompt

HEADER = "The following are multiple choice questions (with answers) about  art.\n\n"
EXAMPLES = [f"What is {n}?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: {'ABCD'[n]}\n\n" for n in range(3)]
QUESTION = "Which holds?\n\nA text of its own.\nA. one\nB. two\nC. three\nD. four\nAnswer:"
PROMPT = "".join([HEADER, *EXAMPLES, QUESTION])


@pytest.fixture
def prompts(tmp_path, monkeypatch):
    """Rows of three subjects, of 1, 3 and 8 questions, as the five-shot validation file."""
    rows = [
        {"subject": subject, "input": f"{HEADER}{subject} {n}?\nAnswer:", "output": "ABCD"[n % 4]}
        for subject, count in (("a", 1), ("b", 3), ("c", 8))
        for n in range(count)
    ]
    monkeypatch.setattr(mmlu_prompts, "MMLU_DIRECTORY", tmp_path)
    (tmp_path / "five_shot_mmlu_val.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def test_rows_of_a_named_set_and_of_a_file(prompts, tmp_path):
    assert load_mmlu("mmlu-fs", "eval") == prompts
    assert load_mmlu(str(tmp_path / "five_shot_mmlu_val.json"), "test") == prompts


@pytest.mark.parametrize("limit, counts", [(3, [1, 1, 1]), (6, [1, 2, 3]), (9, [1, 3, 5]), (99, [1, 3, 8])])
def test_a_sample_is_spread_over_the_subjects(prompts, limit, counts):
    sample = load_mmlu("mmlu-fs", "eval", limit, seed=1)
    found = collections.Counter(row["subject"] for row in sample)
    assert sum(found.values()) == sum(counts) and found["a"] == 1
    assert abs(found["b"] - counts[1]) <= 1 and abs(found["c"] - counts[2]) <= 1
    places = [prompts.index(row) for row in sample]
    assert places == sorted(places)


def test_a_sample_is_that_of_its_seed(prompts):
    samples = [load_mmlu("mmlu-fs", "eval", 5, seed=seed) for seed in (1, 1, 2, 3, 4)]
    assert samples[0] == samples[1]
    assert any(sample != samples[0] for sample in samples[2:])


@pytest.mark.parametrize(
    "line, said",
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[1]", "are texts"),
        ('{"subject": "s", "output": "A"}', "are texts"),
        ('{"subject": null, "input": "Answer:", "output": "A"}', "are texts"),
        ('{"subject": "s", "input": 5, "output": "A"}', "are texts"),
        ('{"subject": "s", "input": "Answer:", "output": "E"}', "'E' is none of A, B, C, D"),
        ('{"subject": "low", "input": "Answer:", "output": "A"}', "'low' is the name of another metric"),
        ('{"subject": "group_stem", "input": "Answer:", "output": "A"}', "'group_stem' is the name of another"),
        ('{"subject": "s", "input": "\\ud83d Answer:", "output": "A"}', "half a character"),
        ('{"subject": "s", "input": "Tell me. Answer: ", "output": "A"}', "must end in 'Answer:'"),
    ],
)
def test_bad_lines_are_named(prompts, tmp_path, line, said):
    with (tmp_path / "five_shot_mmlu_val.json").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=f"line 13.*: .*{said}"):
        load_mmlu("mmlu-fs", "eval")


def test_a_file_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "latin.json"
    path.write_bytes('{"subject": "é", "input": "Answer:", "output": "A"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match="byte 13 is not UTF-8"):
        load_mmlu(str(path), "eval")
    path.write_text("\n")
    with pytest.raises(DataError, match="is empty"):
        load_mmlu(str(path), "eval")


def test_only_a_line_feed_ends_a_line(prompts, tmp_path):
    path = tmp_path / "own.json"
    row = {"subject": "s", "input": "a\u0085b\u2028c Answer:", "output": "A"}
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert load_mmlu(str(path), "eval") == [row]


def test_missing_files_say_how_to_make_them(prompts):
    with pytest.raises(DataError, match="zero_shot_mmlu_test.json.*python data/mmlu/prepare.py"):
        load_mmlu("mmlu-zs", "test")
    with pytest.raises(DataError, match="nowhere.json: no such file"):
        load_mmlu("nowhere.json", "eval")


def test_a_prompt_in_parts():
    assert split_prompt(PROMPT) == [HEADER, *EXAMPLES, QUESTION]
    assert split_prompt(HEADER + QUESTION) == [HEADER, QUESTION]


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_prompt_that_fits_is_left_whole(tiny_tokenizer):
    """The tiny tokenizer has no token that joins the space with a letter: the prompt ends in that space."""
    [prompt] = encode_prompts(tiny_tokenizer, [PROMPT], letter_tokens(tiny_tokenizer), 10_000)
    assert prompt.ids == [tiny_tokenizer.bos_token_id, *ids_of(tiny_tokenizer, PROMPT + " ")]
    assert prompt.examples == HEADER + "".join(EXAMPLES)


@pytest.mark.parametrize("kept", [3, 2, 1, 0])
def test_whole_examples_are_cut_from_the_left(tiny_tokenizer, kept):
    text = "".join(EXAMPLES[3 - kept :]) + QUESTION + " "
    length = len(ids_of(tiny_tokenizer, text))
    longer = len(ids_of(tiny_tokenizer, (EXAMPLES[2 - kept] if kept < 3 else HEADER) + text))
    for limit in (1 + length, longer):  # with BOS
        [prompt] = encode_prompts(tiny_tokenizer, [PROMPT], letter_tokens(tiny_tokenizer), limit)
        assert tiny_tokenizer.decode(prompt.ids[1:]) == text and len(prompt.ids) <= limit
        assert prompt.cut


def test_a_tokenizer_without_bos_has_the_whole_limit():
    tokenizer = Words(lambda text: text.replace(" ", "| ").split("|"))
    text = HEADER + "x Answer:"
    letters, length = letter_tokens(tokenizer), len(ids_of(tokenizer, text))
    for limit, cut in [(length, False), (length - 1, True)]:
        [prompt] = encode_prompts(tokenizer, [text], letters, limit)
        assert prompt.cut == cut and (prompt.ids == ids_of(tokenizer, text)) != cut


def test_a_question_is_never_cut(tiny_tokenizer):
    [prompt] = encode_prompts(tiny_tokenizer, [PROMPT], letter_tokens(tiny_tokenizer), 3)
    assert tiny_tokenizer.decode(prompt.ids[1:]) == QUESTION + " "


def test_a_model_with_too_few_positions_is_refused(tiny_tokenizer):
    letters = letter_tokens(tiny_tokenizer)
    [prompt] = encode_prompts(tiny_tokenizer, [PROMPT], letters, 10_000, positions=200)
    assert len(prompt.ids) <= 200 and prompt.examples
    with pytest.raises(DataError, match="this model has 20 positions.*Which holds"):
        encode_prompts(tiny_tokenizer, [PROMPT], letters, 10_000, positions=20)


class Words:
    """A tokenizer whose tokens are what `split` gives, numbered as they come."""

    bos_token_id = None

    def __init__(self, split):
        self.split, self.ids = split, collections.defaultdict(lambda: len(self.ids))

    def __call__(self, texts, add_special_tokens, verbose=True):
        many = [texts] if isinstance(texts, str) else texts
        ids = [[self.ids[piece] for piece in self.split(text)] for text in many]
        return {"input_ids": ids[0] if isinstance(texts, str) else ids}


def test_letters_with_their_space_where_the_tokenizer_joins_it():
    tokenizer = Words(lambda text: text.replace(" ", "| ").split("|"))
    letters = letter_tokens(tokenizer)
    assert letters.lead == ()
    assert letters.ids == tuple(tokenizer.ids[f" {letter}"] for letter in "ABCD")


def test_a_space_of_its_own_leads_to_the_letter():
    """As "Answer:", " ", "A": the prompt then ends in the space, behind which the letter really stands."""
    tokenizer = Words(lambda text: text.replace(" ", "| |").split("|"))
    letters = letter_tokens(tokenizer)
    assert letters.lead == (tokenizer.ids[" "],)
    assert letters.ids == tuple(tokenizer.ids[letter] for letter in "ABCD")
    [prompt] = encode_prompts(tokenizer, ["x Answer:"], letters, 10)
    assert prompt.ids == [tokenizer.ids[piece] for piece in ("x", " ", "Answer:", " ")]


def test_some_letters_with_and_some_without_their_space():
    """As stories260K splits them: no one token leads to all four."""
    tokenizer = Words(lambda text: text.replace(" B", "|_B").replace(" ", "|_|").split("|"))
    letters = letter_tokens(tokenizer)
    assert letters.lead == () and not letters.alike
    assert letters.ids == tuple(tokenizer.ids[piece] for piece in ("A", "_B", "C", "D"))


@pytest.mark.parametrize(
    "split, said",
    [
        (lambda text: [text], "joins"),
        (
            lambda text: text.replace(" C", " ?").replace(" D", " ?").replace(" ", "| ").split("|"),
            "no token of its own",
        ),
    ],
)
def test_letters_that_are_not_four_tokens_are_refused(split, said):
    with pytest.raises(DataError, match=said):
        letter_tokens(Words(split))


@pytest.mark.parametrize("name", ["llama-2-hf", "gpt2", "mistral-7b-v0.1", "qwen1.5", "gpt-neox-20b"])
def test_letters_of_real_tokenizers(shared_data, name):
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder = shared_data / "tokenizers" / name
    if (folder / "config.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(folder)
    else:
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(str(folder / "tokenizer.json")))
    letters = letter_tokens(tokenizer)
    assert letters.lead == ()
    assert [token[1:] for token in tokenizer.convert_ids_to_tokens(letters.ids)] == list("ABCD")  # ▁A or ĠA
