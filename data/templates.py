"""Conversations → text by the tokenizer's chat template, and where in that text the supervised answers stand.

A template is Jinja text: https://huggingface.co/docs/transformers/chat_templating
"""

import os
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from data.closing import MARK, PROBE, QUESTION, Closing, find_closing, spaces
from data.conversations import REASONING
from data.fields import DataError, SkipRow

# For tokenizers that have none: the turns of Guanaco's training text, each answer closed by the EOS token.
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
PROBE_THOUGHT = "\u2042 the thought \u2042"
START_OF_THOUGHT, END_OF_THOUGHT = "<think>", "</think>"  # around a thought in the text of an answer itself
REFUSALS = (TypeError, KeyError, IndexError, AttributeError, ValueError)  # of a template, beside Jinja's own
SUCH_AS = " (such as "  # what stands behind it in a reason is of the first row alone
SHOWN = 40  # characters of a text in a message


def choose_template(tokenizer: Any, asked: str | None) -> str:
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

    try:
        template = Path(path).expanduser().read_text(encoding="utf-8")
        render_jinja_template([[]], chat_template=template)
    except jinja2.TemplateSyntaxError as error:
        raise DataError(
            f"--chat_template {path}, line {error.lineno}: not a Jinja template: {error.message}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--chat_template {path}: cannot be read ({error}); give a Jinja file, or default") from error
    except (jinja2.TemplateError, *REFUSALS):
        return template  # it refuses a conversation without turns
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


class ChatRenderer:
    """Renders conversations with the template that `tokenizer` has."""

    def __init__(self, tokenizer: Any):
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
        answers = [number for number, message in enumerate(messages) if message["supervised"]]
        text = self._apply(turns, tools)
        return text, [self._answer(text, turns, number, tools) for number in answers]

    def prompt(self, messages: list[dict], tools: list | None) -> str:
        """Return the text that the answer to a conversation is generated from. Raises SkipRow as `render` does."""
        return self._apply([_turn(message) for message in messages], tools, prompt=True)

    def closing(self, tools: list | None = None) -> Closing:
        """Return how the template closes answers; it may do so in another way where there are tools."""
        if (with_tools := bool(tools)) not in self._closings:
            special = (self.tokenizer.bos_token, self.tokenizer.eos_token)
            self._closings[with_tools] = find_closing(lambda turns, prompt: self._apply(turns, tools, prompt), *special)
        return self._closings[with_tools]

    def unlike_prompt(self) -> tuple[str, str] | None:
        """Return how a prompt ends and what stands there in the text of an answered one, where these differ."""
        turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": PROBE}]
        try:
            text = self._apply(turns)
            prompt = self._answer(text, turns, 1, None).prompt
        except SkipRow:
            return None  # a template that wants other turns
        if prompt is None or _along(text, prompt)[1] == "":
            return None
        same = _mark_start(prompt, len(os.path.commonprefix([text, prompt])))
        return prompt[same:], text[same:].partition(PROBE)[0] + "…"

    def _answer(self, text: str, turns: list[dict], number: int, tools: list | None) -> Answer:
        """Return where answer `number` stands in `text`; only unusual ones are rendered again to find that out."""
        if not number:  # there is no prompt before the first turn
            return self._probed(text, turns, number, tools, None)
        prompt = self._apply(turns[:number], tools, prompt=True)
        start, rest = _along(text, prompt)
        answer = None if rest else self._plain(text, turns, number, tools, start)
        answer = answer or self._probed(text, turns, number, tools, None if rest else start)
        return answer if text[: answer.start] == prompt else answer._replace(prompt=prompt)

    def _plain(self, text: str, turns: list[dict], number: int, tools: list | None, start: int) -> Answer | None:
        """Return an answer that stands as it is, with its mark, right behind the prompt: nothing else can be meant."""
        answer, at = turns[number]["content"].strip(), start + spaces(text, start)
        if _thought(turns[number]) or not text.startswith(answer, at):
            return None
        end = self.closing(tools).end(text, at + len(answer), final=number + 1 == len(turns))
        return None if end is None else Answer(start, end)

    def _probed(self, text: str, turns: list[dict], number: int, tools: list | None, start: int | None) -> Answer:
        """Find an answer by rendering the conversation with a probe in its place, and one in the place of a thought.

        Args:
            start: where it starts; None where the prompt is not in the text.
        """
        thought, answer = _thought(turns[number]), turns[number]["content"].strip()
        inline, _, spoken = answer.rpartition(END_OF_THOUGHT)
        probe = turns[number] | {"content": PROBE} | dict.fromkeys(REASONING if thought else (), PROBE_THOUGHT)
        before, probed, after = self._apply([*turns[:number], probe, *turns[number + 1 :]], tools).partition(PROBE)
        around = bool(probed) and text.endswith(after)
        if start is None:
            own = before.partition(PROBE_THOUGHT)[0]
            start = self._own_start(text, turns[:number], own, tools, has_thought=bool(thought or inline))
            around = around and text.startswith(own[:start])
        end = len(text) - len(after)
        shown = _squeeze(text[start:end]) if around else ""
        # Reasoning templates put an empty thought before an answer, or leave out the one it has.
        if not (shown and shown.endswith(_squeeze(spoken))):
            raise SkipRow(
                "the chat template does not show an answer as it is"
                f"{SUCH_AS}{_short(answer)}, shown as {_short(text[start:end].strip() if around else '')})"
            )
        thoughts = (thought, inline.rpartition(START_OF_THOUGHT)[2])
        hidden = any(_squeeze(part) not in shown for part in thoughts)
        closed = self.closing(tools).end(text, end, final=number + 1 == len(turns))
        return Answer(start, end if closed is None else closed, closed is not None, hidden)

    def _own_start(self, text: str, before: list[dict], own: str, tools: list | None, has_thought: bool) -> int:
        """Return where an answer starts of which the prompt is not in the text: at its thought, or at itself.

        Args:
            own: what the template shows before the answer and its thought, rendered with probes in their place.
            has_thought: an answer whose own text holds a thought may be shown in another way than the probe.
        """
        start = len(os.path.commonprefix([text, own])) if has_thought else len(own)
        if before:
            shown, rest = _along(text, self._apply(before, tools))
            parted, _ = _along(text, self._apply(before, tools, prompt=True))
            parted = _mark_start(text, parted)
            # Where the prompt parts from the text in what opens the turn, before a mark, generation writes that mark.
            if not rest and shown <= parted < start and MARK.match(text, parted + spaces(text, parted)):
                return parted
        return _mark_start(text, start) if has_thought else start

    def _apply(self, turns: list[dict], tools: list | None = None, prompt: bool = False) -> str:
        import jinja2

        try:
            return self.tokenizer.apply_chat_template(turns, tools=tools, tokenize=False, add_generation_prompt=prompt)
        except (jinja2.TemplateError, *REFUSALS) as error:
            what = (str(error) or repr(error)).splitlines()[0]
            raise SkipRow(f"the chat template refuses it: {what}{_template_line(error)}") from error


def _turn(message: dict) -> dict:
    """Return a message as templates read it, its thought under each name that one of them has for it."""
    turn = {"role": message["role"], "content": message["content"]}
    return turn | dict.fromkeys(REASONING if message.get("reasoning") else (), message.get("reasoning"))


def _thought(turn: dict) -> str:
    return turn.get(REASONING[0], "").strip()


def _template_line(error: Exception) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return f" (line {frames[-1].lineno} of the template)" if frames else ""


def _along(text: str, prompt: str) -> tuple[int, str]:
    """Return how far `text` goes along with `prompt`, white space aside, and what is left of `prompt` then.

    White space at the end of `prompt` stands for whatever white space `text` has there.
    """
    for start in (prompt, prompt.rstrip()):
        if text.startswith(start):
            return len(start), ""
    at = to = len(os.path.commonprefix([text, prompt]))
    while True:
        ahead, next_to = at + spaces(text, at), to + spaces(prompt, to)
        if next_to == len(prompt):
            return (ahead if prompt[-1:].isspace() else at), ""
        if text[ahead : ahead + 1] != prompt[next_to]:
            return at, prompt[to:]
        at, to = ahead + 1, next_to + 1


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


def text_mark(tokenizer: Any) -> tuple[str, str] | None:
    """Return (the mark that closes answers, what is left of it in a decoded answer) where it is no special token.

    To a vocabulary without `<|im_end|>` it is letters like others, which decoding does not leave out.
    """
    closing = ChatRenderer(tokenizer).closing()
    mark = closing.last or next(iter(closing.marks), closing.opening)
    left = tokenizer.decode(tokenizer(mark, add_special_tokens=False)["input_ids"], skip_special_tokens=True).strip()
    return (mark, left) if left else None


def template_notes(tokenizer: Any) -> list[str]:
    """Return what is unusual about the tokenizer's template and changes what is trained or generated, a line each."""
    renderer, mark, notes = ChatRenderer(tokenizer), text_mark(tokenizer), []
    closing = renderer.closing()
    if mark:
        count = len(tokenizer(mark[0], add_special_tokens=False)["input_ids"])
        notes.append(
            f"{mark[0]!r}, which closes answers, is no special token of this vocabulary but text ({count} tokens): "
            "generation stops at that text, and predictions leave it out. To make it one token, add it to the base "
            "before tuning (tokenizer.add_special_tokens, model.resize_token_embeddings); or use --chat_template "
            f"default, which closes with {tokenizer.eos_token}"
        )
    if not closing.marks:
        inner = f"with {closing.opening!r}, which opens the next turn" if closing.opening else "with nothing"
        notes.append(
            f"the chat template closes answers {inner}: {tokenizer.eos_token} is put behind the last of a conversation"
            + ("" if closing.opening else ", and those before it do not teach to stop")
        )
    if unlike := renderer.unlike_prompt():
        notes.append(
            f"a prompt ends with {unlike[0]!r}, where the text of an answered conversation has {unlike[1]!r}: that "
            "text is trained, and predictions start from the prompt, as they do when served"
        )
    return notes
