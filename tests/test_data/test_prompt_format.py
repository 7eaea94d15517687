"""`--prompt_format`: questions as their format is published, as turns of the model's chat template, or plainly."""

import doctest
import json
import shutil

import pytest

import qlora
from arguments.data import PROMPT_FORMATS
from data.formats import layout
from data.formats.layout import has_prompt, lay_out
from data.formats.registry import FORMATS

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
)
ADD = {"instruction": "Add.", "input": "1 2", "output": " 3 "}


def test_the_example_in_the_docstring():
    assert doctest.testmod(layout).failed == 0


def test_every_layout_can_be_asked_for():
    assert tuple(layout.LAYOUTS) == PROMPT_FORMATS


def asked(record, name):
    """What the user's turn and the answer of a record are in a chat, and its plain prompt."""
    made = FORMATS[name].convert(record)
    example = made[0] if isinstance(made, list) else made
    turns = lay_out(example, "chat")["messages"]
    assert [(turn["role"], turn["supervised"]) for turn in turns] == [("user", False), ("assistant", True)]
    return [turn["content"] for turn in turns], lay_out(example, "plain")["input"]


@pytest.mark.parametrize(
    ("name", "record", "turns", "plain"),
    [
        ("alpaca", ADD, ["Add.\n1 2", "3"], "Add.\n1 2\n"),
        ("alpaca", ADD | {"input": ""}, ["Add.", "3"], "Add.\n"),
        ("dolly", {"instruction": "Add.", "context": "1 2", "response": "3"}, ["Add.\n1 2", "3"], "Add.\n1 2\n"),
        ("seed-tasks", {"instruction": "Add.", "instances": [{"input": "1 2", "output": "3"}]}, ["Add.\n1 2", "3"],
         "Add.\n1 2\n"),
        ("question-answer", {"question": "1 + 2?", "answer": "3"}, ["1 + 2?", "3"], "1 + 2?\n"),
        ("self-instruct", {"prompt": "1 + 2 =", "completion": " 3"}, ["1 + 2 =", "3"], "1 + 2 ="),
        ("input-output", {"input": "1 + 2 = ", "output": "3"}, ["1 + 2 =", "3"], "1 + 2 = "),
        ("flan", {"inputs": "1 + 2?", "targets": "3"}, ["1 + 2?", "3"], "1 + 2?"),
        ("preference", {"prompt": "1 + 2?", "chosen": "3", "rejected": "4"}, ["1 + 2?", "3"], "1 + 2?"),
        ("chip2", {"text": "<human>: 1 + 2?\n<bot>: 3"}, ["1 + 2?", "3"], "1 + 2?"),
    ],
)  # fmt: skip
def test_each_kind_of_question(name, record, turns, plain):
    assert asked(record, name) == (turns, plain)


@pytest.mark.parametrize("prompt_format", ["alpaca", "chat", "plain"])
@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("messages", {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}),
        ("alpaca", ADD | {"system": "Be short."}),
        ("text", {"text": "It was a bright cold day in April."}),
        ("hh-rlhf", {"chosen": "\n\nHuman: hi\n\nAssistant: ho"}),
    ],
)
def test_conversations_and_whole_texts_stay_as_they_are(name, record, prompt_format):
    made = FORMATS[name].convert(record)
    assert not has_prompt(made) and lay_out(made, prompt_format) == made


# Through the command line


@pytest.fixture(scope="module")
def chat_base(make_base, tmp_path_factory):
    """A base model whose tokenizer has a chat template."""
    from transformers import AutoTokenizer

    base = shutil.copytree(make_base(), tmp_path_factory.mktemp("chat") / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(base)
    return base


def shown(argv, capsys):
    """The last row of a preview, and all that was printed before it."""
    assert qlora.main([*argv, "--preview", "1"]) == 0
    said, _, row = capsys.readouterr().out.partition("── row 1 of")
    return row.partition("\n")[2].strip(), said


# Base with a template or without, flags → the start of the first row, what is said.
ALPACA_ROW = "<s>·0·Below is an instruction that describes a task. Write a response"
CHAT_ROW = "<s>·0·<|im_start|>user↵\nSay the number 0.<|im_end|>↵\n<|im_start|>assistant↵\n⟦The number is 0.<|im_end|>"
TO_CHAT = "--prompt_format chat: as turns of the chat template, as servers ask them"


@pytest.mark.parametrize(
    ("has_template", "flags", "start", "said"),
    [
        (False, [], ALPACA_ROW, None),
        (
            True,
            [],
            CHAT_ROW,
            "data: prompts: 24 questions as turns of the chat template; --prompt_format alpaca: in the prompt of their",
        ),
        (True, ["--prompt_format", "alpaca"], ALPACA_ROW, TO_CHAT),
        (True, ["--prompt_format", "plain"], "<s>·0·Say the number 0.↵\n⟦The number is 0.</s>·1·⟧", TO_CHAT),
        (
            False,
            ["--prompt_format", "chat"],
            "<s>·0·### Human: Say the number 0.↵\n### Assistant:⟦ The number",
            "alpaca",
        ),
        (False, ["--chat_template", "default"], "<s>·0·### Human: Say the number 0.↵\n### Assistant:⟦ The", "alpaca"),
    ],
)
def test_the_form_is_chosen_by_the_template_and_the_flag(
    make_base, chat_base, command, capsys, has_template, flags, start, said
):
    row, before = shown(command(chat_base if has_template else make_base(), *flags), capsys)
    assert row.startswith(start)
    assert (said in before) if said else ("prompts:" not in before)


def test_the_form_is_recorded_and_used_again(chat_base, command, tmp_path, capsys):
    """A run that asked for Alpaca's prompt on a chat model predicts with it, and goes on with it; another is named."""
    out = tmp_path / "out"
    argv = command(chat_base, "--prompt_format", "alpaca", "--do_predict", "--save_steps", "1")
    assert qlora.main(argv) == 0
    assert json.loads((out / "completed").read_text())["flags"]["prompt_format"] == "alpaca"
    first = (out / "predictions.jsonl").read_text()
    assert "Below is an instruction" in json.loads(first.splitlines()[0])["prediction_with_input"]
    again = command(chat_base, "--do_train", "False", "--do_predict")
    capsys.readouterr()
    assert qlora.main(again) == 0
    assert "other flags" not in capsys.readouterr().out
    assert (out / "predictions.jsonl").read_text() == first
    assert qlora.main([*again, "--prompt_format", "chat"]) == 0
    assert "--prompt_format chat (was alpaca)" in capsys.readouterr().out
    assert json.loads((out / "predictions.jsonl").read_text().splitlines()[0])["input"].startswith("Say the number")
    # The same holds where training goes on.
    (out / "completed").unlink()
    assert qlora.main(command(chat_base, "--max_steps", "4", "--do_predict")) == 0
    assert json.loads((out / "checkpoint-4" / "manifest.json").read_text())["flags"]["prompt_format"] == "alpaca"


def test_what_has_no_effect_is_said_and_two_forms_in_one_training_are(make_base, command, tmp_path, capsys):
    chat = tmp_path / "chat.jsonl"
    turns = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]
    chat.write_text((json.dumps({"messages": turns}) + "\n") * 4)
    _, said = shown(command(make_base(), "--dataset", str(chat), "--prompt_format", "alpaca"), capsys)
    assert "note: --prompt_format alpaca has no effect: no row is a question and its answer" in said
    argv = command(make_base())
    rows = argv[argv.index("--dataset") + 1]
    _, said = shown([*argv, "--dataset", f"{rows},{chat}"], capsys)
    assert "note: 24 questions in the prompt of their format, beside conversations; --prompt_format chat" in said


def test_a_run_from_before_the_flag_goes_on_in_alpacas_form(chat_base, command, tmp_path, capsys):
    argv = command(chat_base, "--prompt_format", "alpaca")
    assert qlora.main(argv) == 0
    completed = tmp_path / "out" / "completed"
    record = json.loads(completed.read_text())
    del record["flags"]["prompt_format"]
    completed.write_text(json.dumps(record))
    capsys.readouterr()
    assert shown(command(chat_base), capsys)[0].startswith(ALPACA_ROW)


def test_a_question_without_an_answer_is_asked_in_the_same_form(chat_base, command, tmp_path, capsys):
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"instruction": "Say the number 0."}\n')
    flags = ["--do_train", "False", "--do_predict", "--eval_dataset", str(questions)]
    assert shown(command(chat_base, *flags), capsys)[0].startswith(CHAT_ROW.partition("⟦")[0])
