"""Conversations → text by the tokenizer's chat template, and where in that text the supervised answers stand.

A template is Jinja text: https://huggingface.co/docs/transformers/chat_templating
"""

from pathlib import Path
from typing import Any

from data.formats import DataError, SkipRow

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
PROBE = "\u2042 the answer \u2042"  # stands nowhere else in a conversation
REFUSALS = (TypeError, KeyError, IndexError, AttributeError, ValueError)  # of a template, beside Jinja's own


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


class ChatRenderer:
    """Renders conversations with the template that `tokenizer` has."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self._marks: dict[bool, list[str]] = {}

    def render(self, messages: list[dict], tools: list | None) -> tuple[str, list[tuple[int, int]]]:
        """Return the text of a conversation and the (start, end) of each supervised answer in it, in characters.

        An answer starts where the prompt that generation would get ends, and takes the mark that closes it along, so
        that the model learns to stop. Where the template shows the turns before an answer in another way once later
        ones follow, as reasoning templates do, that holds for the last answer, and the others start at their text.

        Raises:
            SkipRow: the template refuses the conversation, or shows an answer in another way than its prompt foretells.
        """
        turns = _turns(messages)
        answers = [number for number, message in enumerate(messages) if message["supervised"]]
        text = self._apply(turns, tools)
        return text, [self._span(text, turns, number, tools, number == answers[-1]) for number in answers]

    def prompt(self, messages: list[dict], tools: list | None) -> str:
        """Return the text that the answer to a conversation is generated from. Raises SkipRow as `render` does."""
        return self._apply(_turns(messages), tools, prompt=True)

    def _span(self, text: str, turns: list[dict], number: int, tools: list | None, last: bool) -> tuple[int, int]:
        # There is no prompt before the first turn.
        start = _shared_start(text, self._apply(turns[:number], tools, prompt=True)) if number else None
        answer = turns[number]["content"].strip()
        if start is not None:  # the answer as it is and its mark right behind the prompt: nothing else can be meant
            end = start + _spaces(text, start)
            end = self._closed(text, end + len(answer), tools) if text.startswith(answer, end) else None
            if end is not None:
                return start, end
        elif last and number:
            raise SkipRow("the chat template shows what is before the last answer differently from a prompt")
        probed = [*turns[:number], turns[number] | {"content": PROBE}, *turns[number + 1 :]]
        before, probe, after = self._apply(probed, tools).partition(PROBE)
        start, end = len(before) if start is None else start, len(text) - len(after)
        around = probe and text.startswith(before[:start]) and text.endswith(after)
        shown, answer = ("".join(part.split()) for part in (text[start:end], answer))
        # Reasoning templates put an empty thought before an answer, or leave out the one it has.
        if not (around and shown and (shown.endswith(answer) or answer.endswith(shown))):
            raise SkipRow("the chat template does not show an answer as it is")
        return start, self._closed(text, end, tools) or end

    def _closed(self, text: str, end: int, tools: list | None) -> int | None:
        """Return where the mark that closes the answer before `end` ends, or None where there is no mark."""
        at = end + _spaces(text, end)
        return next((at + len(mark) for mark in self._marks_of(tools) if text.startswith(mark, at)), None)

    def _apply(self, turns: list[dict], tools: list | None = None, prompt: bool = False) -> str:
        import jinja2

        try:
            return self.tokenizer.apply_chat_template(turns, tools=tools, tokenize=False, add_generation_prompt=prompt)
        except (jinja2.TemplateError, *REFUSALS) as error:
            raise SkipRow(f"the chat template refuses it: {(str(error) or repr(error)).splitlines()[0]}") from error

    def _marks_of(self, tools: list | None) -> list[str]:
        """Return what the template puts after an answer, such as `</s>` or `<|im_end|>`, the longest first.

        Some templates close the last answer with EOS too: then there is one mark with it and one without. A tokenizer
        may have another template for conversations with tools.
        """
        if (with_tools := bool(tools)) not in self._marks:
            turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": PROBE}]
            try:
                mark = self._apply(turns, tools).partition(PROBE)[2].strip()
            except SkipRow:
                mark = ""  # a template that wants more turns; EOS closes the conversation anyway
            marks = [mark, mark.removesuffix(self.tokenizer.eos_token).strip()]
            self._marks[with_tools] = [mark for mark in marks if mark]
        return self._marks[with_tools]


def _turns(messages: list[dict]) -> list[dict]:
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _shared_start(text: str, prompt: str) -> int | None:
    """Return how much of `text` is `prompt`, None where it is not there; only white space at its end may differ."""
    return next((len(start) for start in (prompt, prompt.rstrip()) if text.startswith(start)), None)


def _spaces(text: str, start: int) -> int:
    """Return how many characters of white space stand at `start`."""
    end = start
    while end < len(text) and text[end].isspace():
        end += 1
    return end - start
