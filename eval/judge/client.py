"""A judge behind an OpenAI-compatible endpoint: one request, tried again where that can help, at the pace asked for.

    judge = Judge(base_url, model, sampling, pace, max_retries=6, ...)
    reply = judge.ask(prompt)

Backoff with jitter: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
"""

import json
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from common.errors import DataError, FailedRunError, RequestError

if TYPE_CHECKING:
    import openai

OPENAI_URL = "https://api.openai.com/v1"
RETRIED = (408, 409, 429)  # and every 5xx: the same request may work later
LONGEST_CONNECT = 10.0  # seconds
LONGEST_BACKOFF = 60.0  # seconds
LONGEST_RETRY_AFTER = 600.0  # seconds; who asks for more has closed for now
OF_ONE_PROMPT = (400, 413, 422)  # it may be too long, or what a filter keeps out
ADVICE = {
    400: "change the flag that it names, or shorten the answers",
    413: "shorten the answers",
    401: "set OPENAI_API_KEY to a key of this endpoint",
    403: "this key may not use that model; give another --model or key",
    404: "see whether --base_url ends as the server says (often /v1) and --model is one that it serves",
}


class RefusedError(RequestError):
    """The endpoint will give the same answer however often it is asked."""


class PromptRefusedError(RefusedError):
    """The same, where it may be for this prompt alone."""


class UnavailableError(FailedRunError):
    """The endpoint serves this user no more for now."""


class GaveUpError(Exception):
    """Every try of one request failed."""


class StoppedError(Exception):
    """The run is ending; nothing more is asked."""


class _BadReplyError(Exception):
    """The endpoint answered with something that is not a chat completion."""


class Reply(NamedTuple):
    """What the judge wrote; `finish_reason` and the numbers of tokens are None where the server does not say."""

    text: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


class Pace:
    """Spreads requests evenly in time, over all threads.

    Args:
        per_minute: at most so many; None means no limit.
        stop: once set, `wait` raises StoppedError.
    """

    def __init__(self, per_minute: float | None, stop: threading.Event):
        self.interval = 60 / per_minute if per_minute else 0.0
        self.stop, self.lock = stop, threading.Lock()
        self.next = self.held = 0.0  # time.monotonic()

    def wait(self) -> None:
        """Return when the next request may start."""
        while not self.stop.is_set():
            with self.lock:  # a slot is taken only when it has come, so that a hold moves all that wait
                now = time.monotonic()
                left = max(self.next, self.held) - now
                if left <= 0:
                    self.next = now + self.interval
                    return
            self.stop.wait(left)
        raise StoppedError

    def hold(self, seconds: float) -> None:
        """Let nothing start before `seconds` from now."""
        with self.lock:
            self.held = max(self.held, time.monotonic() + seconds)


class Judge:
    """Asks a model for its judgement.

    The openai package tries again by itself and honours Retry-After, but in time.sleep, which neither a signal nor
    the rate limit reaches: its tries would not count against --requests_per_minute, and one thread that is told to
    wait would not hold back the others. So it tries once (max_retries=0), and `ask` does the rest.

    Args:
        base_url, model, timeout (seconds): of the endpoint.
        sampling: further fields of each request.
        max_retries: tries after the first.
        retry_wait: seconds before the second try; doubled before each further one, up to a minute.
        note: is told, once for each kind, what made a try fail.

    Attributes:
        requests, retries: made so far.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        sampling: dict[str, Any],
        pace: Pace,
        timeout: float,
        max_retries: int,
        retry_wait: float,
        note: Callable[[str], None],
    ):
        import openai

        limits = openai.Timeout(timeout, connect=min(timeout, LONGEST_CONNECT))
        self.client = openai.OpenAI(base_url=base_url, api_key=api_key(base_url), timeout=limits, max_retries=0)
        self.base_url, self.model, self.sampling, self.timeout = base_url, model, sampling, timeout
        self.pace, self.max_retries, self.retry_wait, self.note = pace, max_retries, retry_wait, note
        self.requests = self.retries = 0
        self.noted: set[str] = set()
        self.lock = threading.Lock()

    def ask(self, prompt: str) -> Reply:
        """Send one prompt.

        Raises:
            RefusedError: no try can help: a 4xx but for 408, 409 and 429; PromptRefusedError for OF_ONE_PROMPT.
            UnavailableError: no quota is left, or Retry-After is over LONGEST_RETRY_AFTER.
            GaveUpError: all tries failed.
            StoppedError: the run ends before there is a reply.
        """
        for attempt in range(self.max_retries + 1):
            self.pace.wait()
            self._count(attempt)
            try:
                return self._complete(prompt)
            except Exception as error:
                failure = self._explain(error)
                wait = _retry_after(error)
            if self.pace.stop.is_set():
                raise StoppedError
            if attempt < self.max_retries:
                self._note_once(failure)
                self._back_off(attempt, wait, failure)
        raise GaveUpError(f"{self.max_retries + 1} tries failed, the last with: {failure}")

    def _complete(self, prompt: str) -> Reply:
        # One message of the user: some chat templates have no place for a system message.
        messages = [{"role": "user", "content": prompt}]
        return _read_completion(
            self.client.chat.completions.create(model=self.model, messages=messages, **self.sampling)
        )

    def _explain(self, error: Exception) -> str:
        """Return what failed, where another try may help; else raise as `ask`; a bug of ours raises itself."""
        import openai

        match error:
            case openai.APIStatusError():
                status = f"HTTP {error.status_code}: {_message(error)}"
                if error.code == "insufficient_quota":  # a 429 that waiting does not end
                    raise UnavailableError(f"{self.base_url}: {status}") from error
                if error.status_code not in RETRIED and error.status_code < 500:
                    advice = ADVICE.get(error.status_code, "another try would end the same way")
                    kind = PromptRefusedError if error.status_code in OF_ONE_PROMPT else RefusedError
                    raise kind(f"{self.base_url} refuses the request: {status}\n{advice}") from error
                return status
            case openai.APITimeoutError():
                return f"no reply within {self.timeout:g} s (--timeout)"
            case openai.APIConnectionError():
                return f"no connection to {self.base_url}: {error.__cause__ or error}"
            case _BadReplyError() | json.JSONDecodeError() | UnicodeDecodeError() | openai.APIResponseValidationError():
                return f"not a chat completion: {error}"
        raise error

    def _count(self, attempt: int) -> None:
        with self.lock:
            self.requests += 1
            self.retries += attempt > 0

    def _note_once(self, failure: str) -> None:
        with self.lock:
            is_new = failure not in self.noted
            self.noted.add(failure)
        if is_new:
            self.note(f"{failure}; trying again, up to {self.max_retries} times")

    def _back_off(self, attempt: int, retry_after: float | None, failure: str) -> None:
        if retry_after is not None and retry_after > LONGEST_RETRY_AFTER:
            raise UnavailableError(f"{self.base_url} asks to wait {retry_after:,.0f} s ({failure})\nstart again then")
        if retry_after is not None:
            self.pace.hold(retry_after)  # what the server tells one thread holds for all
        else:
            longest = min(self.retry_wait * 2**attempt, LONGEST_BACKOFF)
            self.pace.stop.wait(random.uniform(longest / 2, longest))


def api_key(base_url: str) -> str:
    """Return OPENAI_API_KEY; a local server needs none, but the openai package does not start without one.

    Raises:
        DataError: there is none, and the endpoint is OpenAI's own; or it cannot stand in a header, where an error of
            the HTTP library would show it.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not re.fullmatch("[!-~]*", key):
        raise DataError(
            "OPENAI_API_KEY holds a space, a line break or a letter that is not ASCII: no key has any; set it again"
        )
    if not key and urlsplit(base_url).hostname == urlsplit(OPENAI_URL).hostname:
        raise DataError(
            f"{base_url} needs a key: set OPENAI_API_KEY, or give the endpoint of another server with --base_url, such "
            "as http://127.0.0.1:8000/v1"
        )
    return key or "none"


def check_url(base_url: str) -> None:
    """Refuse what is not the URL of a server. Raises DataError."""
    try:
        parts = urlsplit(base_url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        is_url = False
    if not is_url:
        raise DataError(f"--base_url {base_url!r}: a URL such as http://127.0.0.1:8000/v1 or {OPENAI_URL} is needed")


def _read_completion(completion: object) -> Reply:
    """Return the first choice; a message without text (content null, a refusal) is an empty one."""
    choices = getattr(completion, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    content = getattr(message, "content", None)
    if message is None or not isinstance(content, str | None):
        content = completion if isinstance(completion, str) else getattr(completion, "model_extra", None) or completion
        raise _BadReplyError(" ".join(str(content).split())[:120])
    usage = getattr(completion, "usage", None)
    tokens = (getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
    tokens = (number if isinstance(number, int) else None for number in tokens)
    return Reply(content or getattr(message, "refusal", None) or "", choice.finish_reason, *tokens)


def _message(error: "openai.APIStatusError") -> str:
    """Return what the server says, on one line."""
    body = error.body
    message = body.get("message") if isinstance(body, dict) else body
    return " ".join(str(message or error.response.reason_phrase or "no message").split())[:300]


def _retry_after(error: Exception) -> float | None:
    """Return how many seconds a response asks to wait: Retry-After (RFC 9110, 10.2.3), or retry-after-ms."""
    headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", {})
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after", "")
    try:
        seconds = float(milliseconds) / 1000 if milliseconds else float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
