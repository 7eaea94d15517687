"""The MMLU prompt files: exact bytes from small CSV files, what is refused, and the real data where it is there."""

import csv
import hashlib
import json
import os
from collections import Counter

import pytest

from data.mmlu import prepare
from data.mmlu.prompts import LETTERS, Question, format_prompt
from data.mmlu.sources import read_folder
from eval.mmlu.prompts import LetterTokens, encode_prompts, letter_tokens

SPLITS = ("dev", "val", "test")
HUB_SPLITS = {"dev": "dev", "val": "validation", "test": "test"}
# One question with all that a CSV field can hold, and plain ones.
ODD = ['Who said "I came, I saw"?\n\r\n1) one ', "Caesar’s son", "Ovid, the poet", 'a "friend"', " \u0085him\t", "D"]
ROWS = {
    "world_religions": {
        "dev": [[f"Example {n}?", "one", "two", "three", "four", LETTERS[n % 4]] for n in range(6)],
        "val": [ODD, ["Which?", "w", "x", "y", "z", "B"]],
        "test": [["Who?", "p", "q", "r", "s", "C"]],
    },
    "anatomy": {
        "dev": [[f"Bone {n}?", "a", "b", "c", "d", "A"] for n in range(5)],
        "val": [["Where?", "here", "there", "up", "down", "A"]],
        "test": [["Which bone?", "hip", "rib", "jaw", "toe", "D"], ["Where?", "in", "on", "by", "at", "A"]],
    },
}
FILES = {f"{shots}_shot_mmlu_{split}.json" for shots in ("zero", "five") for split in ("val", "test")}


def write_rows(folder, rows=ROWS):
    for subject, splits in rows.items():
        for split, listed in splits.items():
            path = folder / split / f"{subject}_{split}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(listed)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_rows(tmp_path / "csv")


@pytest.fixture
def tokenizer(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.fixture
def run(tmp_path, capsys):
    """A function: flags → (exit status, stdout, stderr); files go to `tmp_path / "out"`."""

    def call(*flags):
        status = prepare.main(["--output", str(tmp_path / "out"), *map(str, flags)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def refused(run, tmp_path):
    """A function: flags → the message; nothing is written."""

    def call(*flags):
        status, out, err = run(*flags)
        assert (status, out) == (2, "")
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
        assert err.count("\n") == 1, err
        return err

    return call


def read_bytes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_zero_shot_bytes(folder, run, tmp_path):
    status, out, _ = run("--csv", folder, "--shots", "zero")
    written = read_bytes(tmp_path / "out")
    assert status == 0 and set(written) == {"zero_shot_mmlu_val.json", "zero_shot_mmlu_test.json"}
    head = "The following are multiple choice questions (with answers) about "
    assert written["zero_shot_mmlu_val.json"].decode("ascii") == (
        rf'{{"subject": "anatomy", "input": "{head} anatomy.\n\nWhere?\nA. here\nB. there\nC. up\nD. down\nAnswer:", '
        '"output": "A"}\n'
        rf'{{"subject": "world_religions", "input": "{head} world religions.\n\n'
        r"Who said \"I came, I saw\"?\n\r\n1) one \nA. Caesar\u2019s son\nB. Ovid, the poet\nC. a \"friend\"\n"
        r'D.  \u0085him\t\nAnswer:", "output": "D"}'
        "\n"
        rf'{{"subject": "world_religions", "input": "{head} world religions.\n\nWhich?\nA. w\nB. x\nC. y\nD. z'
        r'\nAnswer:", "output": "B"}'
        "\n"
    )
    assert "2 of 57 subjects" in out and "--mmlu_dataset mmlu-zs" in out
    assert prepare.blob_id(written["zero_shot_mmlu_val.json"]) in out


def test_five_shot_bytes(folder, tokenizer, run, tmp_path):
    status, _, err = run("--csv", folder, "--tokenizer", tokenizer)
    written = read_bytes(tmp_path / "out")
    assert status == 0 and set(written) == FILES
    shown = "".join(rf"Example {n}?\nA. one\nB. two\nC. three\nD. four\nAnswer: {'ABCD'[n % 4]}\n\n" for n in range(5))
    assert written["five_shot_mmlu_val.json"].decode("ascii").splitlines()[2] == (
        r'{"subject": "world_religions", "input": "The following are multiple choice questions (with answers) about  '
        rf'world religions.\n\n{shown}Which?\nA. w\nB. x\nC. y\nD. z\nAnswer:", "output": "B"}}'
    )
    assert "five_shot_mmlu_test.json" in err, "no progress was shown"


def tokens_of(tiny_tokenizer, shots):
    """Tokens of BOS and the five-shot prompt of "Which?", after so many examples."""
    made = {
        name: [Question("world_religions", text, tuple(choices), letter) for text, *choices, letter in listed]
        for name, listed in ROWS["world_religions"].items()
    }
    prompt = format_prompt(made["val"][1], made["dev"][:shots])
    return 1 + len(tiny_tokenizer(prompt, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("shots", range(5))
def test_as_many_examples_as_fit(shots, folder, tokenizer, tiny_tokenizer, run, tmp_path):
    for limit, expected in [
        (tokens_of(tiny_tokenizer, shots), shots),
        (tokens_of(tiny_tokenizer, shots + 1) - 1, shots),
    ]:
        _, out, _ = run("--csv", folder, "--tokenizer", tokenizer, "--max_tokens", limit)
        line = (tmp_path / "out" / "five_shot_mmlu_val.json").read_text().splitlines()[2]
        assert json.loads(line)["input"].count("Answer: ") == expected
        assert f"of {limit:,} tokens" in out


def test_bos_is_counted_once_where_the_tokenizer_puts_it_too_and_nothing_is_truncated(
    folder, tiny_tokenizer, run, tmp_path
):
    from tokenizers import processors

    limit = tokens_of(tiny_tokenizer, 5)
    tiny_tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 0)])
    tiny_tokenizer.backend_tokenizer.enable_truncation(20)
    tiny_tokenizer.save_pretrained(tmp_path / "with_bos")
    for max_tokens, shots in [(limit, 5), (limit - 1, 4)]:
        run("--csv", folder, "--tokenizer", tmp_path / "with_bos", "--max_tokens", max_tokens)
        line = (tmp_path / "out" / "five_shot_mmlu_val.json").read_text().splitlines()[2]
        assert json.loads(line)["input"].count("Answer: ") == shots


@pytest.mark.parametrize("tokens, shots", [(2_047, 5), (2_048, 4)])
def test_the_published_limit_is_2048_tokens_with_bos(tokens, shots, folder, tokenizer, tiny_tokenizer, run, tmp_path):
    """By default a prompt of 2,047 tokens keeps its examples, as BOS makes it 2,048; scoring leaves all of it whole."""
    missing = tokens - (tokens_of(tiny_tokenizer, 5) - 1)
    question = f"Which{'~' * missing}?"  # a token for each ~
    write_rows(folder, {"world_religions": {"val": [[question, "w", "x", "y", "z", "B"]]}})
    run("--csv", folder, "--tokenizer", tokenizer)
    line = (tmp_path / "out" / "five_shot_mmlu_val.json").read_text().splitlines()[-1]
    text = json.loads(line)["input"]
    assert question in text and text.count("Answer: ") == shots
    [prompt] = encode_prompts(tiny_tokenizer, [text], LetterTokens((), (4, 5, 6, 7)), max_tokens=2048)
    assert not prompt.cut and (len(prompt.ids) == 2_048) == (shots == 5)


def test_a_question_too_long_alone_is_kept_and_told(folder, tokenizer, run, tmp_path):
    status, out, _ = run("--csv", folder, "--tokenizer", tokenizer, "--max_tokens", 3)
    prompts = (tmp_path / "out" / "five_shot_mmlu_val.json").read_bytes()
    assert status == 0 and prompts == (tmp_path / "out" / "zero_shot_mmlu_val.json").read_bytes()
    assert "3 prompts without any example are longer than 3 tokens" in out


def test_the_table_counts_the_prompts_by_examples(folder, tokenizer, tiny_tokenizer, run):
    out = run("--csv", folder, "--tokenizer", tokenizer, "--max_tokens", tokens_of(tiny_tokenizer, 5) - 1)[1]
    by_examples = next(line for line in out.splitlines()[8:] if line.startswith("five_shot_mmlu_val.json")).split()
    assert by_examples[1:7] == ["1", "1", "1", "0", "0", "0"] and sum(map(int, by_examples[1:7])) == 3, out


# From the hub


def hub_rows(split):
    rows = [(subject, row) for subject in ROWS for row in ROWS[subject][split]]
    return [
        {"question": text, "subject": subject, "choices": choices, "answer": LETTERS.index(letter)}
        for subject, (text, *choices, letter) in rows
    ]


@pytest.fixture
def hub(monkeypatch):
    """A function: splits or an error → what `datasets.load_dataset` gives from now on."""
    import datasets

    def give(found):
        def load_dataset(path, name):
            assert (path, name) == ("cais/mmlu", "all")
            if isinstance(found, Exception):
                raise found
            return datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in found.items()})

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    return give


def test_hub_and_csv_give_the_same_bytes(folder, tokenizer, hub, run, tmp_path):
    hub({name: hub_rows(split) for split, name in HUB_SPLITS.items()})
    assert run("--hub", "--tokenizer", tokenizer)[0] == 0
    from_hub = read_bytes(tmp_path / "out")
    run("--csv", folder, "--tokenizer", tokenizer)
    assert from_hub == read_bytes(tmp_path / "out") and set(from_hub) == FILES


def test_no_network_is_one_message(hub, refused):
    hub(ConnectionError("Couldn't reach 'cais/mmlu' on the Hub\nmore"))
    message = refused("--hub", "--shots", "zero")
    assert "Couldn't reach 'cais/mmlu'" in message and "--csv DIR" in message


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda rows: rows.pop("validation"), "no split validation; it has dev, test"),
        (lambda rows: [row.update(answer=4) for row in rows["dev"]], "cais/mmlu, dev, row 1:"),
        (lambda rows: [row.update(answer=-1) for row in rows["dev"]], "cais/mmlu, dev, row 1:"),
        (lambda rows: [row.update(choices=["a"]) for row in rows["test"]], "test, row 1: 1 choices where 4"),
        (lambda rows: [row.pop("question") for row in rows["test"]], "KeyError('question')"),
    ],
)
def test_hub_rows_of_another_shape_are_refused(change, said, hub, refused):
    rows = {name: hub_rows(split) for split, name in HUB_SPLITS.items()}
    change(rows)
    hub(rows)
    assert said in refused("--hub", "--shots", "zero")


# What is refused


@pytest.mark.parametrize(
    "line, text, said",
    [
        (1, "question,A,B,C,D,answer", "line 1: a header, question,A,B,C,D,answer"),
        (1, "Which?,a,b,c,d", "line 1: 5 columns where 6 are needed"),
        (1, "0,Which?,a,b,c,d,A", "line 1: 7 columns where 6 are needed"),
        (6, "Which?,a,b,c,d,E", "line 6: the answer is 'E', not one of A, B, C, D"),
        (6, "Which?,a,b,c,d,a", "line 6: the answer is 'a'"),
        (6, "Which?,a,b,c,d,A\n\n\nLast?,a,b", "line 9: 3 columns"),
        (6, '"Which?,a,b,c,d,A', "line 6: 1 columns where 6 are needed"),
    ],
)
def test_bad_line_is_named(line, text, said, folder, refused):
    path = folder / "val" / "world_religions_val.csv"
    lines = path.read_text(encoding="utf-8").split("\n")  # a question of three lines, and one of one
    lines[line - 1 :] = [text]
    if line == 6:
        lines[3:5] = ["Who?,a,b,c,d,A", "Where?,a,b,c,d,A"]
    path.write_text("\n".join(lines), encoding="utf-8")
    message = refused("--csv", folder, "--shots", "zero")
    assert said in message and str(path) in message


def test_bad_encoding_is_named(folder, refused):
    path = folder / "test" / "anatomy_test.csv"
    path.write_bytes(b"Who?,a,b,c,d,A\nCaf\xe9?,a,b,c,d,A\n")
    assert f"{path}, line 2: byte 0xe9 is not UTF-8" in refused("--csv", folder, "--shots", "zero")


def test_missing_split_subject_and_examples_are_named(folder, refused):
    (folder / "dev" / "anatomy_dev.csv").unlink()
    assert "dev lacks 1 of 2 subjects: anatomy" in refused("--csv", folder, "--shots", "zero")
    write_rows(folder, {"anatomy": {"dev": ROWS["anatomy"]["dev"][:4]}})
    assert "dev has 4 questions of anatomy where 5" in refused("--csv", folder, "--shots", "zero")
    (folder / "val" / "anatomy_val.csv").write_text("")
    assert "anatomy_val.csv: no question in it" in refused("--csv", folder, "--shots", "zero")
    for path in (folder / "val").iterdir():
        path.unlink()
    assert "no " + str(folder / "val" / "SUBJECT_val.csv") in refused("--csv", folder, "--shots", "zero")


def test_byte_order_mark_and_files_of_other_systems_are_passed_over(folder, run, tmp_path):
    run("--csv", folder, "--shots", "zero")
    before = read_bytes(tmp_path / "out")
    path = folder / "val" / "anatomy_val.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    (folder / "val" / "._anatomy_val.csv").write_bytes(b"\x00\xff")
    assert run("--csv", folder, "--shots", "zero")[0] == 0
    assert read_bytes(tmp_path / "out") == before


def test_tokenizer_is_checked_before_anything_is_written(folder, refused, tmp_path):
    for name in ("no/such", "far/too/deep", tmp_path):
        message = refused("--csv", folder, "--tokenizer", name)
        assert f"--tokenizer {name}: " in message and "--shots zero" in message
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "tokenizer.json is no tokenizer" in refused("--csv", folder, "--tokenizer", tmp_path)


@pytest.mark.parametrize(
    "flags", [[], ["--csv", "a", "--hub"], ["--hub", "--max_tokens", "0"], ["--hub", "--shot", "zero"]]
)
def test_wrong_flags_exit_with_2(flags):
    with pytest.raises(SystemExit) as stopped:
        prepare.main(flags)
    assert stopped.value.code == 2


def test_output_that_cannot_be_a_folder_is_refused(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    assert prepare.main(["--csv", str(folder), "--shots", "zero", "--output", str(tmp_path / "file")]) == 2
    assert "--output" in capsys.readouterr().err and (tmp_path / "file").read_text() == "kept"


def test_a_failed_write_leaves_the_old_file(folder, run, tmp_path, monkeypatch):
    run("--csv", folder, "--shots", "zero")
    before = read_bytes(tmp_path / "out")
    write_rows(folder, {"anatomy": {"val": [["Changed?", "a", "b", "c", "d", "A"]]}})

    def fail(descriptor):
        os.truncate(descriptor, 10)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("common.files.os.fsync", fail)
    status, _, err = run("--csv", folder, "--shots", "zero")
    assert status == 1 and "No space left" in err
    assert {name: content for name, content in read_bytes(tmp_path / "out").items() if name in before} == before


def test_runs_by_its_path_and_loads_nothing_heavy(folder, tmp_path):
    import subprocess
    import sys

    code = (
        "import runpy, sys; del sys.argv[0]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    flags = [prepare.__file__, "--csv", str(folder), "--output", str(tmp_path / "out"), "--shots", "zero"]
    made = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, cwd=tmp_path)
    assert made.returncode == 0 and made.stdout.endswith("\n[]\n"), made.stdout + made.stderr
    assert len(list((tmp_path / "out").iterdir())) == 2


# The real data


@pytest.fixture(scope="module")
def real(shared_data):
    """The four files of the official questions, by name."""
    tokenizer = prepare.load_tokenizer(str(shared_data / "tokenizers" / "llama-2-hf"))
    made = prepare.make_all(read_folder(shared_data / "mmlu"), tokenizer, prepare.SHOTS, 2048)
    return {file.name: file for file in made}


@pytest.mark.parametrize("name", sorted(prepare.PUBLISHED | prepare.OWN))
def test_real_files_are_those_that_the_readme_lists(name, real):
    """Each is the blob that the tool knows, and its row says whether the authors' own is known to be the same."""
    content = real[name].content
    blob = prepare.blob_id(content)
    assert blob == (prepare.PUBLISHED | prepare.OWN)[name]
    digest = hashlib.sha256(content).hexdigest()
    origin = "the authors' blob" if name in prepare.PUBLISHED else "this tool's output"
    row = f"| `{name}` | {real[name].questions:,} | {len(content):,} | `{digest}` | `{blob}` | {origin} |"
    assert row in (prepare.HERE / "README.md").read_text(encoding="utf-8").splitlines()


def test_what_is_published_is_said(real):
    made = list(real.values())
    assert prepare.compare_to_known(made) == [
        "", "five_shot_mmlu_test.json: the file that QLoRA's authors published"
    ]  # fmt: skip
    changed = made[-1]._replace(content=made[-1].content + b"\n")
    [_, note] = prepare.compare_to_known([changed])
    assert note.startswith("note: five_shot_mmlu_test.json: not the bytes")


def test_real_prompts_by_examples(real):
    by_examples = {name: Counter(shots for shots, _ in file.fits) for name, file in real.items() if file.fits}
    assert by_examples == {
        "five_shot_mmlu_val.json": {5: 1_475, 4: 19, 3: 31, 2: 6},
        "five_shot_mmlu_test.json": {5: 13_518, 4: 196, 3: 261, 2: 67},
    }


def test_scoring_cuts_no_published_prompt(real, shared_data):
    """The longest has exactly the 2,048 tokens of --mmlu_source_max_len, BOS included."""
    from transformers import PreTrainedTokenizerFast

    path = shared_data / "tokenizers" / "llama-2-hf" / "tokenizer.json"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path), bos_token="<s>")
    file = real["five_shot_mmlu_test.json"]
    lengths = [tokens for _, tokens in file.fits]
    lines = zip(file.content.splitlines(), lengths, strict=True)
    texts = [json.loads(line)["input"] for line, tokens in lines if tokens > 2_040]
    letters = letter_tokens(tokenizer)
    prompts = encode_prompts(tokenizer, texts, letters, 2_048)
    assert not any(prompt.cut for prompt in prompts)
    assert max(lengths) == max(len(prompt.ids) for prompt in prompts) == 2_048
    assert any(prompt.cut for prompt in encode_prompts(tokenizer, texts, letters, 2_047))
