"""Conversations → text by the tokenizer's chat template, and where in that text the supervised answers stand.

    choose_template(tokenizer, asked=None)
    text, answers = ChatRenderer(tokenizer).render(messages, tools=None)
    text[answers[0].start : answers[0].end]  # what is learned of the first answer, with the mark that closes it

A template is Jinja text: https://huggingface.co/docs/transformers/chat_templating
"""

import json
import os
import re
import traceback
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from common.errors import DataError
from data.formats.conversations import REASONING
from data.formats.fields import SkipRow
from data.tokens.closing import MARK, PROBE, QUESTION, SYSTEM, Apply, Closing, find_closing, spaces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokenizers that have no template get this one: the turns of Guanaco's training text, each answer closed by EOS.
DEFAULT_CHAT_TEMPLATE = (
    "{{- bos_token if bos_token else '' -}}"
    "{%- if tools %}{{ '### Tools: ' + (tools | tojson) + '\n' }}{% endif -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '### Assistant: ' + message['content'] + eos_token + '\n' -}}"
    "{%- else -%}"
    "{{- '### ' + {'user': 'Human', 'system': 'System', 'tool': 'Tool'}[message['role']] + ': ' -}}"
    "{{- message['content'] + '\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt %}{{ '### Assistant:' }}{% endif -%}"
)
PROBE_THOUGHT = "‹thought›"
START_OF_THOUGHT, END_OF_THOUGHT = "<think>", "</think>"  # around a thought in the text of an answer itself
# A template may raise these errors, beside Jinja's own.
REFUSALS = (TypeError, KeyError, IndexError, AttributeError, ValueError)
SUCH_AS = " (such as "  # behind it stands the example in a reason, which is that of the first row
SHOWN = 40  # characters of a text in a message


def choose_template(tokenizer: "PreTrainedTokenizerBase", asked: str | None) -> str:
    """Give the tokenizer the template to use, and return a few words that say which it is.

    Args:
        asked: a Jinja file, "default", or None for the tokenizer's own, where it has one.

    Raises:
        DataError: the file cannot be read, or holds no Jinja template.
    """
    if asked not in (None, "default"):
        tokenizer.chat_template = _read(asked)
        return asked
    if asked is None and tokenizer.chat_template:
        return "the tokenizer's own"
    tokenizer.chat_template = DEFAULT_CHAT_TEMPLATE
    return "the default one (### Human: … ### Assistant: …)" + ("" if asked else ", as the tokenizer has none")


def _read(path: str) -> str:
    import jinja2
    from transformers.utils.chat_template_utils import render_jinja_template

    flag = f"--chat_template {path}"
    try:
        template = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{flag}: cannot be read ({error}); give a Jinja file, or default") from error
    try:
        render_jinja_template([[]], chat_template=template)
    except jinja2.TemplateSyntaxError as error:
        raise DataError(f"{flag}, line {error.lineno}: not a Jinja template: {error.message}") from error
    except (jinja2.TemplateError, *REFUSALS):
        pass  # the syntax is right: the template refuses the empty conversation that it is tried on
    return template


class Answer(NamedTuple):
    """A supervised answer in a rendered conversation.

    Attributes:
        start, end: its characters, from where generation starts to the end of what closes it.
        closed: whether something closes it, so that it teaches to stop.
        hidden_thought: whether it has a thought that the template leaves out.
        prompt: the text that generation would get, where the text before `start` is another; else None.
    """

    start: int
    end: int
    closed: bool = True
    hidden_thought: bool = False
    prompt: str | None = None


@dataclass(frozen=True)
class Rendered:
    """A conversation as a chat template shows it, in which answers are found.

    Attributes:
        apply: renders turns with the tools of the conversation.
        closing: how the template closes answers.
        turns: all of the conversation, as templates read them.
        text: what the template shows of them.
    """

    apply: Apply
    closing: Closing
    turns: list[dict]
    text: str

    def answer(self, number: int) -> Answer:
        """Return where turn `number`, an answer, stands; only unusual ones are rendered again to find that out.

        Raises:
            SkipRow: the template does not show the answer as it is.
        """
        if not number:  # there is no prompt before the first turn
            return self._probed(number)
        prompt = self.apply(self.turns[:number], True)
        start = _end_of(prompt, self.text)
        answer = None if start is None else self._plain(number, start)
        answer = answer or self._probed(number, start, prompt)
        return answer if self.text[: answer.start] == prompt else answer._replace(prompt=prompt)

    def _plain(self, number: int, start: int) -> Answer | None:
        """Return an answer that stands as it is, with its mark, right behind the prompt: nothing else can be meant."""
        answer, at = self.turns[number]["content"].strip(), start + spaces(self.text, start)
        if _thought(self.turns[number]) or not self.text.startswith(answer, at):
            return None
        end = self._closed(number, at + len(answer))
        return None if end is None else Answer(start, end)

    def _closed(self, number: int, at: int) -> int | None:
        return self.closing.end(self.text, at, final=number + 1 == len(self.turns))

    def _probed(self, number: int, start: int | None = None, prompt: str = "") -> Answer:
        """Find an answer by rendering the conversation with a probe in its place, and one in the place of a thought.

        Args:
            start: where it starts; None where its prompt is not in the text.
            prompt: what generation would get; "" for the first turn.
        """
        turn, text = self.turns[number], self.text
        thought, answer = _thought(turn), turn["content"].strip()
        inline, _, spoken = answer.rpartition(END_OF_THOUGHT)
        probe = turn | {"content": PROBE} | dict.fromkeys(REASONING if thought else (), PROBE_THOUGHT)
        turns = [*self.turns[:number], probe, *self.turns[number + 1 :]]
        before, probed, after = self.apply(turns, False).partition(PROBE)
        fits = bool(probed) and text.endswith(after)
        if start is None:
            lead = before.partition(PROBE_THOUGHT)[0]
            if thought or inline:  # the template may show a thought in another way than the probe
                lead = lead[: _mark_start(text, len(os.path.commonprefix([text, lead])))]
            fits = fits and text.startswith(lead)
            start = self._start_without_prompt(number, len(lead), prompt) if prompt else len(lead)
        end = len(text) - len(after)
        visible = text[start:end] if fits else ""
        squeezed = _squeeze(visible)
        # Reasoning templates put an empty thought before an answer, or leave out the one it has.
        if not (squeezed and squeezed.endswith(_squeeze(spoken))):
            example = f"{_short(answer)}, shown as {_short(visible.strip())}"
            raise SkipRow(f"the chat template does not show an answer as it is{SUCH_AS}{example})")
        thoughts = (thought, inline.rpartition(START_OF_THOUGHT)[2])
        hidden = any(_squeeze(part) not in squeezed for part in thoughts)
        closed = self._closed(number, end)
        return Answer(start, end if closed is None else closed, closed is not None, hidden)

    def _start_without_prompt(self, number: int, answer_at: int, prompt: str) -> int:
        """Return where an answer starts whose prompt is not in the text.

        Args:
            answer_at: where what the template shows of the answer itself starts, its thought included.
            prompt: what generation would get.
        """
        header = _end_of(self.apply(self.turns[:number], False), self.text)
        parted = _mark_start(self.text, len(os.path.commonprefix([self.text, prompt])))
        mark = MARK.match(self.text, parted + spaces(self.text, parted))
        # Where the prompt parts from the text in what opens the turn, before a mark, generation writes that mark.
        is_header = header is not None and header <= parted < answer_at
        if is_header and mark and not prompt[parted:].lstrip().startswith(mark[0]):
            return parted
        # Where they part further back and meet again, generation writes the white space behind the prompt's end.
        head = self.text[:answer_at].rstrip()
        return len(head) if not prompt[-1].isspace() and head.endswith(prompt.split()[-1]) else answer_at


class ChatRenderer:
    """Renders conversations with the template that `tokenizer` has."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase"):
        self.tokenizer = tokenizer
        self._closings: dict[bool, Closing] = {}

    def render(self, messages: list[dict], tools: list | None) -> tuple[str, list[Answer]]:
        """Return the text of a conversation and each supervised answer in it.

        The text is what the template shows of the whole conversation. An answer starts where the prompt that
        generation would get ends; where the template shows that place otherwise than in a prompt (which opens a
        thought, say), at what it shows of the answer itself, thought included.

        Raises:
            SkipRow: the template refuses the conversation, or does not show an answer as it is.
        """
        turns = [_turn(message) for message in messages]
        rendered = Rendered(partial(self._apply, tools), self.closing(tools), turns, self._apply(tools, turns))
        answers = [number for number, message in enumerate(messages) if message["supervised"]]
        return rendered.text, [rendered.answer(number) for number in answers]

    def prompt(self, messages: list[dict], tools: list | None) -> str:
        """Return the text that the answer to a conversation is generated from. Raises SkipRow as `render` does."""
        return self._apply(tools, [_turn(message) for message in messages], prompt=True)

    def closing(self, tools: list | None = None) -> Closing:
        """Return how the template closes answers; it may do so in another way where there are tools."""
        if (with_tools := bool(tools)) not in self._closings:
            special = (self.tokenizer.bos_token, self.tokenizer.eos_token)
            self._closings[with_tools] = find_closing(partial(self._apply, tools), *special)
        return self._closings[with_tools]

    def count_hidden(self, text: str, messages: list[dict], tools: list | None) -> dict[str, int]:
        """Return how many turns but the assistant's, and how many tools, a rendered conversation does not show."""
        squeezed = _squeeze(text)
        turns = [message["content"] for message in messages if message["role"] != "assistant"]
        names = [_tool_name(tool) for tool in tools or ()]
        return {
            "hidden_turns": sum(not _shows(squeezed, content) for content in turns),
            "hidden_tools": sum(bool(name) and name not in text for name in names),
        }

    def text_marks(self, tools: list | None = None) -> list[str]:
        """Return what decoding leaves of the marks that close answers, where they are no special tokens.

        To a vocabulary without `<|im_end|>` it is letters like others, which decoding does not leave out.
        """
        return list(filter(None, map(self._decoded, self.closing(tools).texts(self.tokenizer.eos_token))))

    def _decoded(self, mark: str) -> str:
        ids = self.tokenizer(mark, add_special_tokens=False)["input_ids"]
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def notes(self, tools: list | None = None) -> list[str]:
        """Return what is unusual about the template and changes what is trained or generated, a line each."""
        closing, eos = self.closing(tools), self.tokenizer.eos_token
        notes = [self._note_on_text(mark) for mark in closing.texts(eos) if self._decoded(mark)]
        if closing.is_known and not closing.marks:
            means = f"with {closing.opening!r}, which opens the next turn" if closing.opening else "with nothing"
            effect = "" if closing.opening else ", and those before it do not teach to stop"
            notes.append(f"the chat template closes answers {means}: {eos} is put behind the last one{effect}")
        if unlike := self._unlike_prompt(tools):
            prompt, text = unlike
            notes.append(
                f"a prompt has {_short(prompt)} where the text of an answered conversation has "
                f"{_short(text) if text else 'nothing'}: that text is trained, and predictions start from the prompt"
            )
        return notes

    def _note_on_text(self, mark: str) -> str:
        """Return what it means that a mark which closes answers is no special token, and what to do about it."""
        count = len(self.tokenizer(mark, add_special_tokens=False)["input_ids"])
        if count == 1:
            kind = "a token of this vocabulary, but no special one"
            advice = "declare it special in tokenizer_config.json"
        else:
            kind = f"no token of this vocabulary but text ({count} tokens)"
            advice = (
                "to make it a token, add it to the base before tuning (tokenizer.add_special_tokens, "
                f"model.resize_token_embeddings), or use --chat_template default, which has {self.tokenizer.eos_token}"
            )
        effect = "generation stops at that text, and predictions leave it out"
        return f"{mark!r}, which closes answers, is {kind}: {effect}; {advice}"

    def _unlike_prompt(self, tools: list | None) -> tuple[str, str] | None:
        """Return what a prompt has, and what stands there in the text of an answered one, where these differ."""
        question, answer = {"role": "user", "content": QUESTION}, {"role": "assistant", "content": PROBE}
        for turns in ([question], [{"role": "system", "content": SYSTEM}, question]):
            try:
                prompt, text = self._apply(tools, turns, prompt=True), self._apply(tools, [*turns, answer])
            except SkipRow:
                continue  # the template wants other turns
            if _end_of(prompt, text) is None:
                same = _mark_start(prompt, len(os.path.commonprefix([text, prompt]).removesuffix("‹")))
                return prompt[same:], text[same:].partition(PROBE)[0]
        return None

    def _apply(self, tools: list | None, turns: list[dict], prompt: bool = False) -> str:
        """Return what the template makes of turns, with the generation prompt or without. Raises SkipRow."""
        import jinja2

        try:
            return self.tokenizer.apply_chat_template(turns, tools=tools, tokenize=False, add_generation_prompt=prompt)
        except (jinja2.TemplateError, *REFUSALS) as error:
            message = (str(error) or repr(error)).splitlines()[0]
            raise SkipRow(f"the chat template refuses it: {message}{_template_line(error)}") from error


def _turn(message: dict) -> dict:
    """Return a message as templates read it, its thought under each name that one of them has for it."""
    turn = {"role": message["role"], "content": message["content"]}
    return turn | dict.fromkeys(REASONING if message.get("reasoning") else (), message.get("reasoning"))


def _thought(turn: dict) -> str:
    return turn.get(REASONING[0], "").strip()


def _template_line(error: Exception) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return f" (line {frames[-1].lineno} of the template)" if frames else ""


def _end_of(prompt: str, text: str) -> int | None:
    """Return where `prompt` ends in `text`, which starts with it but for white space; None where it does not."""
    for start in (prompt, prompt.rstrip()):
        if text.startswith(start):
            return len(start)
    match = re.match(r"\s*" + r"\s*".join(map(re.escape, prompt.split())), text)
    return match and match.end() + (spaces(text, match.end()) if prompt[-1:].isspace() else 0)


def _mark_start(text: str, at: int) -> int:
    """Return the start of the mark that `at` stands inside of, or `at`."""
    for opening in "<[":
        start = text.rfind(opening, 0, at)
        mark = MARK.match(text, start) if start >= 0 else None
        if mark and mark.end() > at:
            return start
    return at


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")


def _shows(squeezed: str, content: str) -> bool:
    """Return whether a text without white space has that content in it, as it is or as JSON writes it."""
    return any(_squeeze(form) in squeezed for form in (content, json.dumps(content, ensure_ascii=False)[1:-1]))


def _tool_name(tool: Any) -> str:
    tool = tool.get("function", tool) if isinstance(tool, dict) else {}
    return tool["name"] if isinstance(tool.get("name"), str) else ""
