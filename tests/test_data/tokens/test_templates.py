"""Conversations as text: what is supervised is every answer with the mark that closes it, and nothing else."""

import pytest

from common.errors import DataError
from data.formats.fields import SkipRow
from data.tokens.templates import DEFAULT_CHAT_TEMPLATE, ChatRenderer, choose_template
from tests.support.paths import FIXTURES

TEMPLATES = FIXTURES / "templates"
SYSTEM, HI, HELLO = ("system", "Be brief."), ("user", "Hi?"), ("assistant", "Hello.")
WHY, BECAUSE = ("user", "Why?"), ("assistant", "Because 🙂 因为.")
THOUGHT = "<think>\nhm\n</think>\n\n"


def turns(*pairs, silent=()):
    return [
        {"role": role, "content": content, "supervised": role == "assistant" and number not in silent}
        for number, (role, content) in enumerate(pairs)
    ]


@pytest.fixture
def rendered(tiny_tokenizer):
    """A function: template, turns → (the text, the supervised parts of it)."""

    def render(template, *pairs, silent=(), tools=None):
        choose_template(tiny_tokenizer, template if template == "default" else str(TEMPLATES / f"{template}.jinja"))
        text, spans = ChatRenderer(tiny_tokenizer).render(turns(*pairs, silent=silent), tools)
        return text, [text[start:end] for start, end, *_ in spans]

    return render


SHOWN = {
    "default": [" Hello.</s>", " Because 🙂 因为.</s>"],
    "llama-2-chat": [" Hello. </s>", " Because 🙂 因为. </s>"],
    "llama-3-instruct": ["Hello.<|eot_id|>", "Because 🙂 因为.<|eot_id|>"],
    "mistral-instruct": [" Hello.</s>", " Because 🙂 因为.</s>"],
    "chatml": ["Hello.<|im_end|>", "Because 🙂 因为.<|im_end|>"],
    "qwen3": ["Hello.<|im_end|>", "<think>\n\n</think>\n\nBecause 🙂 因为.<|im_end|>"],
    "qwen3-thinking": ["Hello.<|im_end|>", "\n</think>\n\nBecause 🙂 因为.<|im_end|>"],
    "gemma-2": ["Hello.<end_of_turn>", "Because 🙂 因为.<end_of_turn>"],
    "zephyr": ["\nHello.</s>", "\nBecause 🙂 因为.</s>"],
    "phi-3": ["Hello.<|end|>", "Because 🙂 因为.<|end|>\n</s>"],
    "plain-turns": ["Hello.</s>", "Because 🙂 因为.</s>"],
    "vicuna": [" Hello.</s>", " Because 🙂 因为.</s>"],
}
WITHOUT_SYSTEM = ("gemma-2", "mistral-instruct")


@pytest.mark.parametrize("template", SHOWN)
def test_every_answer_and_its_mark_over_several_turns(rendered, template):
    assert rendered(template, HI, HELLO, WHY, BECAUSE)[1] == SHOWN[template]


@pytest.mark.parametrize("template", SHOWN)
def test_a_system_turn_is_shown_or_refused_and_never_supervised(rendered, template):
    if template in WITHOUT_SYSTEM:
        with pytest.raises(SkipRow, match="refuses it: (System role not supported|Conversation roles must alternate)"):
            rendered(template, SYSTEM, HI, HELLO)
        return
    text, answers = rendered(template, SYSTEM, HI, HELLO, WHY, BECAUSE)
    assert answers == SHOWN[template]
    assert text.index("Be brief.") < text.index("Hi?")
    assert rendered(template, ("system", ""), HI, HELLO, WHY, BECAUSE)[1] == SHOWN[template]


@pytest.mark.parametrize("template", SHOWN)
def test_the_prompt_is_what_generation_gets(rendered, tiny_tokenizer, template):
    text, (first, last) = rendered(template, HI, HELLO, WHY, BECAUSE)
    before = [{"role": role, "content": content} for role, content in (HI, HELLO, WHY)]
    prompt = tiny_tokenizer.apply_chat_template(before, tokenize=False, add_generation_prompt=True)
    assert text.startswith(prompt + last)
    assert text.index(first) < text.index("Why?") < text.rindex(last)


@pytest.mark.parametrize("template", SHOWN)
def test_an_answer_that_stands_elsewhere_too_is_found_in_its_place(rendered, template):
    """Templates put words of their own around an answer, and users say what the model says."""
    first, last = SHOWN[template]
    for answer in ("hi", "think", "think>", "USER", "a", "assistant", "</", "Hi?\n\nHi?", "1", "end|>", "⁂", "model"):
        asked, again = ("user", answer), ("user", f"{answer} {answer}")
        text, answers = rendered(template, asked, HELLO, again, ("assistant", answer))
        assert answers == [first, last.replace("Because 🙂 因为.", answer)]
        assert text.rstrip().endswith(answers[1])
        text, answers = rendered(template, asked, ("assistant", answer), again, HELLO)
        assert answers == [first.replace("Hello.", answer), last.replace("Because 🙂 因为.", "Hello.")]
        assert text.rstrip().endswith(answers[1])


@pytest.mark.parametrize("template", SHOWN)
def test_white_space_of_an_answer_stays_inside(rendered, template):
    marks = [part.partition(end)[2].strip() for part, end in zip(SHOWN[template], ("Hello.", "因为."), strict=True)]
    for answer in ("  two\nlines  ", "\n\nlate", "early\n", "a  b\n\n\nc"):
        text, answers = rendered(template, HI, ("assistant", answer), WHY, BECAUSE)
        assert answers[0].endswith(marks[0])
        assert answers[0].removesuffix(marks[0]).strip() == answer.strip()
        text, answers = rendered(template, HI, ("assistant", answer))
        assert answers[0].endswith(answer.strip() + text[text.rindex(answer.strip()) + len(answer.strip()) :].rstrip())
        assert answers[0].endswith(marks[1])


def test_turns_that_are_not_supervised_are_shown(rendered):
    text, answers = rendered("chatml", HI, HELLO, WHY, BECAUSE, silent=(1,))
    assert answers == ["Because 🙂 因为.<|im_end|>"]
    assert "Hello.<|im_end|>" in text
    assert rendered("chatml", HI, HELLO, WHY, BECAUSE, silent=(3,))[1] == ["Hello.<|im_end|>"]


def test_an_answer_before_the_first_question(rendered):
    """It has no prompt: nothing can be rendered of no turns."""
    assert rendered("chatml", HELLO, WHY, BECAUSE)[1] == SHOWN["chatml"]
    assert rendered("default", HELLO, WHY, BECAUSE)[1] == ["Hello.</s>", SHOWN["default"][1]]
    assert rendered("default", HELLO, WHY) == ("<s>### Assistant: Hello.</s>\n### Human: Why?\n", ["Hello.</s>"])


def test_default_template_shows_tools_and_their_results(rendered):
    tools = [{"name": "add", "description": "é"}]
    text, answers = rendered("default", SYSTEM, HI, ("assistant", "add 1"), ("tool", "2"), HELLO, tools=tools)
    assert text == (
        '<s>### Tools: [{"name": "add", "description": "é"}]\n### System: Be brief.\n### Human: Hi?\n'
        "### Assistant: add 1</s>\n### Tool: 2\n### Assistant: Hello.</s>\n"
    )
    assert answers == [" add 1</s>", " Hello.</s>"]


# What closes an answer

ROLE = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
# Each kind of template, the marks that close its answers, and the supervised parts of HI, HELLO, WHY, BECAUSE.
CLOSINGS = {
    "one for the last answer and one for others, as gpt-oss": (
        "<|start|>system<|message|>You are it.<|end|>{% for m in messages %}{{ '<|start|>' + m.role + '<|message|>' +"
        " m.content + ('<|return|>' if loop.last and m.role == 'assistant' and not add_generation_prompt else"
        " '<|end|>') }}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}",
        ["<|message|>Hello.<|end|>", "<|message|>Because 🙂 因为.<|return|>"],
    ),
    "the header of another turn behind the last, as Command A": (
        "<|turn|><|system|>Be it.<|end|>{% for m in messages %}{{ '<|turn|><|user|>' + m.content + '<|end|><|turn|>"
        "<|bot|>' if m.role == 'user' else '<|open|>' + m.content + '<|close|><|end|>' }}{% endfor %}"
        "{% if messages[-1].role == 'assistant' %}<|turn|><|bot|>{% endif %}"
        "{% if add_generation_prompt %}<|open|>{% endif %}",
        ["Hello.<|close|><|end|>", "Because 🙂 因为.<|close|><|end|>"],
    ),
    "none but that which opens the next turn, as GLM-4": (
        "[gMASK]<sop>{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        ["\nHello.<|user|>", "\nBecause 🙂 因为."],
    ),
    "for answers that a turn follows alone, as Apertus": (
        "{{ bos_token }}<|dev|>it<|dev_end|>{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}"
        "{{ '<|' + m.role + '_end|>' if not loop.last or m.role == 'user' }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        ["Hello.<|assistant_end|>", "Because 🙂 因为."],
    ),
    "a text": (
        "{% for m in messages %}{{ '### ' + m.role + ':\\n' + m.content + '\\n### End\\n\\n' }}{% endfor %}"
        "{{ '### assistant:\\n' if add_generation_prompt }}",
        ["Hello.\n### End", "Because 🙂 因为.\n### End"],
    ),
    "none but headers with numbers, as ChatGLM2": (
        "{% for m in messages %}{{ '[Round ' ~ (loop.index0 // 2 + 1) ~ ']\\n\\n问：' + m.content if m.role == 'user'"
        " else '\\n\\n答：' + m.content + '\\n\\n' }}{% endfor %}{{ '\\n\\n答：' if add_generation_prompt }}",
        ["Hello.", "Because 🙂 因为."],
    ),
    "none at all": (
        "A chat.\n{% for m in messages %}{{ m.role + ': ' + m.content + '\\n\\n' }}{% endfor %}"
        "{{ 'assistant:' if add_generation_prompt }}",
        [" Hello.", " Because 🙂 因为."],
    ),
    "the role's own mark after a system turn that is always there, as EXAONE": (
        "[|system|]it[|end|]\n{% for m in messages %}{{ '[|' + m.role + '|]' + m.content + '[|end|]\\n' }}{% endfor %}"
        "{{ '[|assistant|]' if add_generation_prompt }}",
        ["Hello.[|end|]", "Because 🙂 因为.[|end|]"],
    ),
}


def plainly(tokenizer, template, *pairs, **fields):
    """The text of turns in a template, and its supervised answers."""
    tokenizer.chat_template = template
    text, answers = ChatRenderer(tokenizer).render(
        [turn | fields.get(turn["role"], {}) for turn in turns(*pairs)], None
    )
    return text, answers


@pytest.mark.parametrize("kind", CLOSINGS)
def test_an_answer_ends_with_what_closes_it(tiny_tokenizer, kind):
    template, shown = CLOSINGS[kind]
    text, answers = plainly(tiny_tokenizer, template, HI, HELLO, WHY, BECAUSE)
    assert [text[answer.start : answer.end] for answer in answers] == shown
    # An answer that nothing closes is known as one; EOS will stand behind the last.
    assert answers[0].closed == (shown[0].strip() != "Hello.")


def test_a_template_that_wants_a_system_turn_or_tools_is_asked_with_them(tiny_tokenizer):
    wants = "{% if not WANTED %}{{ raise_exception('none') }}{% endif %}" + ROLE
    wants += "{{ '<|im_start|>assistant\\n' if add_generation_prompt }}"
    text, answers = plainly(
        tiny_tokenizer, wants.replace("WANTED", "messages[0].role == 'system'"), SYSTEM, HI, HELLO, WHY, BECAUSE
    )
    assert [text[a.start : a.end] for a in answers] == ["Hello.<|im_end|>", "Because 🙂 因为.<|im_end|>"]
    tiny_tokenizer.chat_template = wants.replace("WANTED", "tools")
    renderer, tools = ChatRenderer(tiny_tokenizer), [{"name": "add"}]
    assert renderer.closing(tools).marks == ("<|im_end|>",) and renderer.text_marks(tools) == ["<|im_end|>"]
    # Of conversations that it refuses nothing is known, and nothing is said.
    assert not renderer.closing().is_known and renderer.notes() == []


@pytest.mark.parametrize(
    ("kind", "marks"),
    [
        ("one for the last answer and one for others, as gpt-oss", ["<|return|>", "<|end|>"]),
        ("none but that which opens the next turn, as GLM-4", ["<|user|>"]),
        ("a text", ["### End"]),
        ("none at all", []),
    ],
)
def test_every_mark_that_is_text_ends_a_prediction(tiny_tokenizer, kind, marks):
    tiny_tokenizer.chat_template = CLOSINGS[kind][0]
    assert ChatRenderer(tiny_tokenizer).text_marks() == marks
    tiny_tokenizer.add_special_tokens({"additional_special_tokens": [mark for mark in marks if mark != "### End"]})
    assert ChatRenderer(tiny_tokenizer).text_marks() == [mark for mark in marks if mark == "### End"]


def test_a_mark_is_named_by_what_it_is_to_the_vocabulary(tiny_tokenizer):
    tiny_tokenizer.chat_template = ROLE + "{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
    [note] = ChatRenderer(tiny_tokenizer).notes()
    assert note.startswith("'<|im_end|>', which closes answers, is no token of this vocabulary but text (")
    tiny_tokenizer.add_tokens(["<|im_end|>"])
    [note] = ChatRenderer(tiny_tokenizer).notes()
    assert "is a token of this vocabulary, but no special one" in note
    tiny_tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    assert ChatRenderer(tiny_tokenizer).notes() == []
    tiny_tokenizer.chat_template = TEMPLATES.joinpath("phi-3.jinja").read_text()  # closes the last one with EOS too
    assert ChatRenderer(tiny_tokenizer).text_marks() == ["<|end|>"]


# Where an answer starts

SYSTEM_IN_THE_LAST_QUESTION = (
    "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}{{ '[INST]' }}"
    "{{ messages[0].content + '\\n\\n' if loop.last and messages[0].role == 'system' }}{{ m.content + '[/INST]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)


def test_what_a_template_leaves_out_is_counted_and_the_prompt_is_kept(tiny_tokenizer):
    """Mistral shows the system turn in the last question, so in a prompt, and not in an answered conversation."""
    text, (answer,) = plainly(tiny_tokenizer, SYSTEM_IN_THE_LAST_QUESTION, SYSTEM, HI, HELLO)
    assert text[answer.start : answer.end] == " Hello.</s>"  # as generation writes it behind [/INST]
    assert answer.prompt == "[INST]Be brief.\n\nHi?[/INST]"
    renderer, messages = ChatRenderer(tiny_tokenizer), turns(SYSTEM, HI, HELLO)
    assert renderer.count_hidden(text, messages, [{"function": {"name": "add"}}]) == {
        "hidden_turns": 1,
        "hidden_tools": 1,
    }
    [note] = renderer.notes()
    assert note.startswith("a prompt has '‹system turn›")
    assert "where the text of an answered conversation has '‹question›" in note
    text, _ = plainly(tiny_tokenizer, SYSTEM_IN_THE_LAST_QUESTION, HI, HELLO)
    assert renderer.count_hidden(text, turns(HI, HELLO), None) == {"hidden_turns": 0, "hidden_tools": 0}
    # What a template writes as JSON is shown.
    as_json = "{% for m in messages %}{{ m.content | tojson if m.role == 'tool' else m.content }}{% endfor %}"
    quoted = [HI, ("tool", 'say "é"\n'), HELLO]
    text, _ = plainly(tiny_tokenizer, as_json, *quoted)
    assert renderer.count_hidden(text, turns(*quoted), None)["hidden_turns"] == 0


@pytest.mark.parametrize(
    ("opening", "generation", "start", "rest"),
    [
        ("", "<think>\n", "", "<think>\n"),  # DeepSeek R1 opens a thought, which answers of the past do not have
        ("", "<|channel>thought\n<channel|>", "", "<|channel>thought\n<channel|>"),  # Gemma 4: an empty one
        ("</think>", "<think>", "</think>", "<think>"),
        ("<|text|>", "<|think|>", "<|text|>", "<|think|>"),
        ("", "\n\n", "\n", None),  # white space alone is no other prompt
        (" ", "", " ", None),
        ("<think></think>", "<think>\n", "</think>", None),
    ],
)
def test_an_answer_starts_where_generation_does_or_at_itself(tiny_tokenizer, opening, generation, start, rest):
    """Templates whose prompt is not what stands before an answer; nothing of another turn is learned, nor a header."""
    template = ROLE.replace("m.content", f"({opening!r} if m.role == 'assistant' else '') + m.content")
    template += (
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n"
        + generation.replace("\n", "\\n")
        + "' }}{% endif %}"
    )
    text, answers = plainly(tiny_tokenizer, template, SYSTEM, HI, HELLO, WHY, BECAUSE)
    assert [text[answer.start : answer.end] for answer in answers] == [
        f"{start}Hello.<|im_end|>",
        f"{start}Because 🙂 因为.<|im_end|>",
    ]
    before = [{"role": role, "content": content} for role, content in (SYSTEM, HI, HELLO, WHY)]
    prompt = tiny_tokenizer.apply_chat_template(before, tokenize=False, add_generation_prompt=True)
    assert (answers[1].prompt or text[: answers[1].start]) == prompt
    notes = [note for note in ChatRenderer(tiny_tokenizer).notes() if note.startswith("a prompt has")]
    assert [note.startswith(f"a prompt has {rest!r} where") for note in notes] == [True] * bool(rest)


# Templates that show an answer in another way


def test_thoughts_of_earlier_turns_are_left_out_and_the_last_is_kept(rendered):
    thinking = ("assistant", THOUGHT + "Hello.")
    assert rendered("qwen3", HI, thinking, WHY, ("assistant", THOUGHT + "So."))[1] == [
        "Hello.<|im_end|>",
        THOUGHT + "So.<|im_end|>",
    ]
    assert rendered("qwen3", HI, thinking, WHY, thinking)[1] == ["Hello.<|im_end|>", THOUGHT + "Hello.<|im_end|>"]
    # Written otherwise than the template writes it.
    assert rendered("qwen3", HI, ("assistant", "<think>hm</think>So."))[1] == [THOUGHT + "So.<|im_end|>"]


def test_thoughts_before_a_tool_are_shown_until_the_next_question(rendered):
    """The prompt of the second answer shows the first thought; the text, in which a question follows, does not."""
    call = ("assistant", THOUGHT + "add 1")
    text, answers = rendered("qwen3", HI, call, ("tool", "2"), HELLO, WHY, BECAUSE)
    assert answers == ["add 1<|im_end|>", "Hello.<|im_end|>", "<think>\n\n</think>\n\nBecause 🙂 因为.<|im_end|>"]
    assert "hm" not in text


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (
            "{{ messages[-1].content | upper }}{{ eos_token }}",
            r"does not show an answer as it is \(such as 'Hello.', shown as ''\)",
        ),
        ("{% for m in messages %}{{ m.content | upper }}#{% endfor %}", "does not show an answer as it is"),
        (
            "{% for m in messages %}{{ m.content[:4] }}#{% endfor %}",
            "does not show an answer as it is",
        ),
        (
            "{% for m in messages %}{{ m.role }}{{ m.content if m.role == 'user' }}#{% endfor %}",
            "does not show an answ",
        ),
        (
            "\n{{ messages[0].absent.field }}",
            r"refuses it: 'dict object' has no attribute 'absent' \(line 2 of the template\)",
        ),
        ("{{ messages[0].content + 1 }}", "refuses it: "),
    ],
)
def test_templates_that_cannot_be_trusted_drop_the_row_with_the_reason(tiny_tokenizer, template, reason):
    tiny_tokenizer.chat_template = template
    with pytest.raises(SkipRow, match=reason):
        ChatRenderer(tiny_tokenizer).render(turns(HI, HELLO), None)


SHOWS_THOUGHTS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' and FIELD and loop.last %}"
    "{{ '<think>\\n' + FIELD + '\\n</think>\\n\\n' }}{% endif %}{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{{ '<|im_start|>assistant\\n' if add_generation_prompt }}"
)


@pytest.mark.parametrize("field", ["m.reasoning_content", "m.thinking", "m.reasoning"])
@pytest.mark.parametrize("generation", ["", "<think>\\n", "<think>\\n\\n</think>\\n\\n"])
def test_a_thought_is_learned_with_its_answer_where_the_template_shows_it(tiny_tokenizer, field, generation):
    template = SHOWS_THOUGHTS.replace("FIELD", field).replace("assistant\\n' if", f"assistant\\n{generation}' if")
    thought = {"assistant": {"reasoning": "I think."}}
    text, (first, last) = plainly(tiny_tokenizer, template, HI, HELLO, WHY, BECAUSE, **thought)
    assert text[first.start : first.end] == "Hello.<|im_end|>" and first.hidden_thought
    start = "<think>\n" if not generation else ""  # the prompt may have opened it
    assert text[last.start : last.end].lstrip() in (
        f"{start}I think.\n</think>\n\nBecause 🙂 因为.<|im_end|>",
        "<think>\nI think.\n</think>\n\nBecause 🙂 因为.<|im_end|>",
    )
    assert not last.hidden_thought
    # The prompt is cut off by where it parts from the text: never inside of the thought.
    assert "I think" not in text[: last.start]


def test_a_thought_that_the_template_leaves_out_is_known(tiny_tokenizer):
    thought = {"assistant": {"reasoning": "I think."}}
    template = ROLE + "{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
    text, answers = plainly(tiny_tokenizer, template, HI, HELLO, **thought)
    assert [answer.hidden_thought for answer in answers] == [True] and "I think" not in text
    inline = ("assistant", THOUGHT + "Hello.")
    without = template.replace("m.content", "m.content.split('</think>')[-1]")
    _, answers = plainly(tiny_tokenizer, without, HI, inline)
    assert [answer.hidden_thought for answer in answers] == [True]
    _, answers = plainly(tiny_tokenizer, template, HI, inline)
    assert [answer.hidden_thought for answer in answers] == [False]


def published(shared_data):
    """The published templates that have a twin with {% generation %} marks."""
    folder = shared_data / "chat-templates"
    return {
        path.stem.removesuffix("_training"): (folder / f"{path.stem.removesuffix('_training')}.jinja", path)
        for path in sorted(folder.glob("*_training.jinja"))
    }


def test_published_templates_supervise_what_their_twins_for_training_do(tiny_tokenizer, shared_data):
    """A twin may count the header or an opening or empty thought too, and parts as several; GLM's adds a mark."""
    from transformers.utils.chat_template_utils import render_jinja_template

    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    for name, (template, twin) in published(shared_data).items():
        for pairs in ([HI, HELLO], [HI, HELLO, WHY, BECAUSE], [SYSTEM, HI, HELLO, WHY, BECAUSE]):
            messages = [{"role": role, "content": content} for role, content in pairs]
            try:
                text, answers = plainly(tiny_tokenizer, template.read_text(encoding="utf-8"), *pairs)
            except SkipRow as skip:
                assert (name, str(skip)) == ("gemma", REFUSED_BY_GEMMA)
                continue
            [[marked], [spans]] = render_jinja_template(
                [messages], chat_template=twin.read_text(encoding="utf-8"), return_assistant_tokens_mask=True, **special
            )
            theirs = "".join("".join(marked[start:end].split()) for start, end in spans)
            for answer in answers:
                ours = "".join(text[answer.start : answer.end].split())
                assert ours in theirs, name
                theirs = theirs.partition(ours)[2]  # each once, in order
            assert theirs in ("", "<|user|>" if name == "glm4moe" else ""), name


REFUSED_BY_GEMMA = "the chat template refuses it: System role not supported (line 1 of the template)"


def test_a_template_that_hides_where_an_answer_stands_is_not_trusted(tiny_tokenizer):
    tiny_tokenizer.chat_template = "{% for m in messages %}{{ m.content | upper }}\n{% endfor %}"
    with pytest.raises(SkipRow, match="does not show an answer as it is"):
        ChatRenderer(tiny_tokenizer).render(turns(HI, ("assistant", "42"), ("user", "42")), None)


def test_two_templates_in_one_tokenizer(tiny_tokenizer):
    plain = "{% for m in messages %}{{ m.role + m.content }}<end>{% endfor %}{{ 'assistant' if add_generation_prompt }}"
    tiny_tokenizer.chat_template = {"default": plain, "tool_use": "T" + plain.replace("<end>", "<stop>")}
    assert choose_template(tiny_tokenizer, None) == "the tokenizer's own"
    renderer = ChatRenderer(tiny_tokenizer)
    text, [(start, end, *_)] = renderer.render(turns(HI, HELLO), None)
    assert text[start:end] == "Hello.<end>"
    text, [(start, end, *_)] = renderer.render(turns(HI, HELLO), [{"name": "add"}])
    assert (text[0], text[start:end]) == ("T", "Hello.<stop>")
    tiny_tokenizer.chat_template = {"other": plain}
    with pytest.raises(SkipRow, match="refuses it: "):
        ChatRenderer(tiny_tokenizer).render(turns(HI, HELLO), None)


def test_a_usual_turn_is_rendered_once_for_the_text_and_once_for_its_prompt(tiny_tokenizer, monkeypatch):
    choose_template(tiny_tokenizer, str(TEMPLATES / "chatml.jinja"))
    renderer, calls = ChatRenderer(tiny_tokenizer), []
    original = ChatRenderer._apply
    monkeypatch.setattr(ChatRenderer, "_apply", lambda self, *a, **k: calls.append(a) or original(self, *a, **k))
    renderer.closing()  # what closes answers is found once
    calls.clear()
    renderer.render(turns(HI, HELLO, WHY, BECAUSE), None)
    assert len(calls) == 1 + 2
    renderer.render(turns(HI, HELLO), None)
    assert len(calls) == 3 + 2


# The choice


def test_the_template_is_the_asked_one_then_the_tokenizers_own_then_the_default(tiny_tokenizer, tmp_path):
    assert choose_template(tiny_tokenizer, None).endswith("as the tokenizer has none")
    assert tiny_tokenizer.chat_template == DEFAULT_CHAT_TEMPLATE
    tiny_tokenizer.chat_template = "own"
    assert choose_template(tiny_tokenizer, None) == "the tokenizer's own"
    assert tiny_tokenizer.chat_template == "own"
    path = tmp_path / "my.jinja"
    path.write_text("{% generation %}é{% endgeneration %}", encoding="utf-8")
    assert choose_template(tiny_tokenizer, str(path)) == str(path)
    assert tiny_tokenizer.chat_template == "{% generation %}é{% endgeneration %}"
    assert choose_template(tiny_tokenizer, "default") == "the default one (### Human: … ### Assistant: …)"
    assert tiny_tokenizer.chat_template == DEFAULT_CHAT_TEMPLATE


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"--chat_template .*none.jinja: cannot be read .*; give a Jinja file, or default"),
        (b"\xff\xfe", "cannot be read"),
        (b"a\n{% for %}", "none.jinja, line 2: not a Jinja template: Expected an expression"),
    ],
)
def test_a_file_that_is_no_template_is_refused(tiny_tokenizer, tmp_path, content, said):
    path = tmp_path / "none.jinja"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        choose_template(tiny_tokenizer, str(path))
    assert not tiny_tokenizer.chat_template


def test_the_template_is_saved_with_the_tokenizer(tiny_tokenizer, tmp_path):
    from transformers import AutoTokenizer

    choose_template(tiny_tokenizer, None)
    tiny_tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == DEFAULT_CHAT_TEMPLATE
