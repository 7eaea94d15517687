"""How a chat template closes answers: the text from the end of an answer to where the next turn opens.

    closing = find_closing(apply, bos="<s>", eos="</s>")
    closing.end(text, at, final=False)  # where what closes the answer before `at` ends, or None

Templates do not say it; it is read off what they render of a question and an answer, alone, before a prompt and before
another question. Most close every answer with one mark (`<|im_end|>`). Some close the last one otherwise (gpt-oss:
`<|return|>`, and `<|end|>` before a turn that follows), some only answers that a turn follows, and some have but the
mark that opens the next turn (GLM-4: `<|user|>`), which is then what the model writes to stop.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from data.fields import SkipRow

PROBE = "\u2042 the answer \u2042"  # stands nowhere else in a conversation
QUESTION, NEXT = "\u2042 a question \u2042", "\u2042 the next \u2042"
MARK = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")  # what looks like a special token: <|im_end|>, </s>, [/INST]
Apply = Callable[[list[dict], bool], str]


def spaces(text: str, start: int) -> int:
    """Return how many characters of white space stand at `start`."""
    end = start
    while end < len(text) and text[end].isspace():
        end += 1
    return end - start


@dataclass(frozen=True)
class Closing:
    """What a template puts behind answers, white space around it aside.

    Attributes:
        marks: what closes an answer, the longest first; none where nothing does.
        last: the one of the last answer; "" where it has none.
        opening: the mark that opens a user's turn, where for want of another such marks end an answer; else "".
        bos: the BOS token, which never closes anything.
    """

    marks: tuple[str, ...] = ()
    last: str = ""
    opening: str = ""
    bos: str | None = None

    def end(self, text: str, at: int, final: bool) -> int | None:
        """Return where that which closes the answer before `at` ends, or None where nothing does.

        Args:
            final: whether no turn follows the answer.
        """
        at += spaces(text, at)
        closed = next((at + len(mark) for mark in self.marks if text.startswith(mark, at)), None)
        if closed is None and self.opening and not final:
            mark = MARK.match(text, at)
            closed = mark.end() if mark and mark[0] != self.bos else None
        return closed


def find_closing(apply: Apply, bos: str | None, eos: str | None) -> Closing:
    """Return how a template closes answers.

    Args:
        apply: (turns, whether to end with the generation prompt) → text; may raise SkipRow.
        bos, eos: the tokens' texts.
    """
    question, answer = {"role": "user", "content": QUESTION}, {"role": "assistant", "content": PROBE}
    first = _rendered(apply, [question]).partition(QUESTION)[0].rstrip()
    last = _behind(_rendered(apply, [question, answer]))
    inner = _behind(_rendered(apply, [question, answer, {"role": "user", "content": NEXT}])).partition(NEXT)[0].rstrip()
    before_prompt = _behind(_rendered(apply, [question, answer], prompt=True))
    prompt = _rendered(apply, [question], prompt=True).removeprefix(_rendered(apply, [question]))
    candidates = (last, last.removesuffix(eos or "").strip(), before_prompt.removesuffix(prompt.strip()).strip())
    mark = next((text for text in candidates if text and inner.startswith(text)), None)
    if mark is None:
        mark = inner[: _opening(inner, first, bos, eos)].strip()
    # Some templates open the next turn behind the last answer: only the EOS token may follow its mark there.
    if last.removeprefix(mark).strip() not in ("", eos) and last.startswith(mark):
        last = mark
    opens = None if mark else MARK.match(inner)
    opening = opens[0] if opens and opens[0] != bos else ""
    return Closing(tuple(sorted({mark, last} - {""}, key=len, reverse=True)), last, opening, bos)


def _rendered(apply: Apply, turns: list[dict], prompt: bool = False) -> str:
    try:
        return apply(turns, prompt)
    except SkipRow:
        return ""  # a template that wants other turns; EOS closes the conversation anyway


def _behind(text: str) -> str:
    return text.partition(PROBE)[2].strip()


def _opening(inner: str, first: str, bos: str | None, eos: str | None) -> int:
    """Return where in `inner`, the text between an answer and the next question, the turn of that question opens.

    Args:
        first: the text before a question that opens a conversation.
    """
    if bos and bos != eos and bos in inner:
        return inner.index(bos)
    # The mark that opens the whole conversation opens every turn where it is not the role that it names.
    mark = MARK.match(first.removeprefix(bos or "").lstrip())
    if mark and mark[0] in inner:
        return inner.index(mark[0])
    same = os.path.commonprefix([inner[::-1], first[::-1]])
    opening = len(inner) - len(same)
    torn = next((mark for mark in MARK.finditer(inner) if mark.start() < opening < mark.end()), None)
    return torn.end() if torn else opening
