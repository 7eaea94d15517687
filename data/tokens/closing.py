"""How a chat template closes answers: the text from the end of an answer to where the next turn opens.

    closing = find_closing(apply, bos="<s>", eos="</s>")
    closing.end(text, at, final=False)  # where what closes the answer before `at` ends, or None

Templates do not say it; it is read off what they render of a question and an answer, alone, before a prompt and before
another question. Most close every answer with one mark (`<|im_end|>`). Some close the last one otherwise (gpt-oss:
`<|return|>`, and `<|end|>` before a turn that follows), some only answers that a turn follows, and some have but the
mark that opens the next turn (GLM-4: `<|user|>`), which is then what the model writes to stop.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from data.formats.fields import SkipRow

# These texts stand nowhere else in a rendered conversation, so that their places are certain.
PROBE, QUESTION, NEXT, SYSTEM = "‹answer›", "‹question›", "‹next question›", "‹system turn›"
MARK = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")  # what looks like a special token: <|im_end|>, </s>, [/INST]
# Renders turns as text, and ends it with the generation prompt where that is asked for; may raise SkipRow.
Apply = Callable[[list[dict], bool], str]


def spaces(text: str, start: int) -> int:
    """Return how many characters of white space stand at `start`."""
    return len(text) - start - len(text[start:].lstrip())


@dataclass(frozen=True)
class Closing:
    """What a template puts behind answers, white space around it aside.

    Attributes:
        marks: what closes an answer, the longest first; none where nothing does.
        opening: the mark that opens a user's turn, where for want of another such marks end an answer; else "".
        is_known: whether the template rendered the conversations that this was read off.
    """

    marks: tuple[str, ...] = ()
    opening: str = ""
    is_known: bool = True

    def end(self, text: str, at: int, final: bool) -> int | None:
        """Return where that which closes the answer before `at` ends, or None where nothing does.

        Args:
            final: whether no turn follows the answer.
        """
        at += spaces(text, at)
        closed = next((at + len(mark) for mark in self.marks if text.startswith(mark, at)), None)
        if closed is None and self.opening and not final:
            mark = MARK.match(text, at)
            closed = mark and mark.end()
        return closed

    def texts(self, eos: str) -> list[str]:
        """Return each text that may end an answer, without the EOS token that may stand at its end."""
        marks = (mark.removesuffix(eos).strip() for mark in (*self.marks, self.opening))
        return list(dict.fromkeys(mark for mark in marks if mark))


def find_closing(apply: Apply, bos: str | None, eos: str) -> Closing:
    """Return how a template closes answers.

    Args:
        apply: renders turns with the template.
        bos, eos: the tokens' texts.
    """
    for system in ([], [{"role": "system", "content": SYSTEM}]):  # some templates want a system turn
        try:
            return _find_closing(lambda turns, prompt, before=system: apply([*before, *turns], prompt), bos, eos)
        except SkipRow:
            continue
    return Closing(is_known=False)


def _find_closing(apply: Apply, bos: str | None, eos: str) -> Closing:
    question, answer = {"role": "user", "content": QUESTION}, {"role": "assistant", "content": PROBE}
    asked, answered = apply([question], False), apply([question, answer], False)
    followed = _rendered(apply, [question, answer, {"role": "user", "content": NEXT}], False)
    last, between = _behind_answer(answered), _behind_answer(followed.partition(NEXT)[0])
    generation = _rendered(apply, [question], True).removeprefix(asked).strip()
    # What stands behind the last answer may stand behind every one, with the EOS token or without; or what stands
    # before the generation prompt; else it is what comes before the next turn opens.
    before_prompt = _behind_answer(_rendered(apply, [question, answer], True)).removesuffix(generation).strip()
    candidates = (last, last.removesuffix(eos).strip(), before_prompt)
    mark = next((text for text in candidates if text and between.startswith(text)), None)
    if mark is None:
        mark = _before_next_turn(between, asked.partition(QUESTION)[0], bos, eos)
    # Some templates open the next turn behind the last answer: only the EOS token may follow its mark there.
    if last.startswith(mark) and last.removeprefix(mark).strip() not in ("", eos):
        last = mark
    opening = None if mark else MARK.match(between)
    marks = sorted({mark, last} - {""}, key=len, reverse=True)
    return Closing(tuple(marks), opening[0] if opening and opening[0] != bos else "")


def _rendered(apply: Apply, turns: list[dict], prompt: bool) -> str:
    try:
        return apply(turns, prompt)
    except SkipRow:
        return ""  # the template takes one question alone, or wants no generation prompt behind an answer


def _behind_answer(text: str) -> str:
    return text.partition(PROBE)[2].strip()


def _before_next_turn(between: str, first: str, bos: str | None, eos: str) -> str:
    """Return what of the text between an answer and the next question belongs to the answer.

    Args:
        first: the text before a question that opens a conversation.
    """
    if bos and bos != eos and bos in between:
        return between.partition(bos)[0].strip()
    # The mark that opens the conversation opens every turn (Command A: <|START_OF_TURN_TOKEN|>), or, where it names a
    # role, that which stands before the first question opens the next one too (Apertus: <|user_start|>).
    marks = MARK.findall(first.removeprefix(bos or ""))
    opening = next((mark for mark in (*marks[:1], *marks[-1:]) if mark in between), None)
    if opening:
        return between.partition(opening)[0].strip()
    return between[: between.index(eos) + len(eos)] if eos in between else ""
