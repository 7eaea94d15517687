"""Asking a judge for many comparisons at once, in a way that can be stopped.

    outcome = judge_all(todo, total, ask, concurrency=4, stop=threading.Event())

Threads ask, and the main thread follows what they report and what signals come.
"""

import contextlib
import math
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING

from eval.judge.client import GaveUpError, PromptRefusedError, StoppedError
from eval.judge.inputs import Comparison

if TYPE_CHECKING:
    from tqdm import tqdm

GRACE = 10.0  # seconds in which requests that are under way may still end, when the run is stopped
LOOK = 0.2  # seconds: Python hears of a signal that comes just before a wait begins only when the wait ends
GIVE_UP = 3  # requests one after the other that no try helped: then the endpoint is down, not the request odd
# Questions refused before any has a reply: then the flags are at fault, not the questions. Not fewer, as refusals come
# sooner than replies, and as the longest questions may stand first.
REFUSED_AT_FIRST = 10


@dataclass
class Outcome:
    """How a run ended: its replies, what no try helped and what was refused, the signal or the error that ended it."""

    replies: int = 0
    given_up: list[tuple[Comparison, Exception]] = field(default_factory=list)
    refused: list[tuple[Comparison, Exception]] = field(default_factory=list)
    signum: int | None = None
    error: Exception | None = None


def judge_all(
    todo: list[Comparison], total: int, ask: Callable[[Comparison], None], concurrency: int, stop: threading.Event
) -> Outcome:
    """Ask for all that is left of `total`; ends early after a signal, an error, or where it is of no use.

    Args:
        ask: returns when the reply is on the disk; called from `concurrency` threads.
        stop: is set to end what waits in `ask`.
    """
    from tqdm import tqdm

    # put() of a SimpleQueue is safe in a signal handler.
    tasks, events = queue.SimpleQueue(), queue.SimpleQueue()
    for comparison in todo:
        tasks.put(comparison)
    # Daemons, so that one that waits for a reply does not keep a stopped run alive.
    workers = [
        threading.Thread(target=work, args=(tasks, events, ask, stop), daemon=True)
        for _ in range(min(concurrency, len(todo)))
    ]
    with (
        signals_to(events),
        tqdm(total=total, initial=total - len(todo), desc="judging", unit=" replies", disable=not todo) as bar,
    ):
        for worker in workers:
            worker.start()
        return follow(events, len(workers), stop, bar)


def work(
    tasks: queue.SimpleQueue, events: queue.SimpleQueue, ask: Callable[[Comparison], None], stop: threading.Event
) -> None:
    """Take tasks until there are none, reporting (comparison, error or None) for each and None at the end."""
    with contextlib.suppress(queue.Empty, StoppedError):
        while not stop.is_set():
            comparison = tasks.get_nowait()
            try:
                ask(comparison)
                events.put((comparison, None))
            except StoppedError:
                raise
            except (GaveUpError, PromptRefusedError) as error:
                events.put((comparison, error))
            except Exception as error:  # the main thread raises it
                stop.set()  # here already, so that no other request goes the same way
                events.put((comparison, error))
    events.put(None)


def follow(events: queue.SimpleQueue, working: int, stop: threading.Event, bar: "tqdm") -> Outcome:
    """Follow the workers to their end, or, once the run is to stop, for GRACE seconds or until a second signal.

    Args:
        bar: stands at the number of comparisons that have a reply.
    """
    outcome, in_a_row, deadline = Outcome(), 0, math.inf
    refused_questions, refused_at_first = set(), max(REFUSED_AT_FIRST, working)
    while working and time.monotonic() < deadline:
        try:
            event = events.get(timeout=LOOK)
        except queue.Empty:
            continue
        match event:
            case None:
                working -= 1
            case int():
                if outcome.signum is not None:
                    break
                outcome.signum = event
            case (_, None):
                bar.update()
                outcome.replies += 1
                in_a_row = 0
            case (comparison, GaveUpError() as error):
                outcome.given_up.append((comparison, error))
                in_a_row += 1
            case (comparison, PromptRefusedError() as error):
                outcome.refused.append((comparison, error))
                refused_questions.add(comparison.question.key)
                if not bar.n and len(refused_questions) >= refused_at_first:
                    ended = f"{len(refused_questions)} questions were refused before any was judged: no more are asked"
                    outcome.error = outcome.error or PromptRefusedError(f"{error}\n{ended}")
            case (_, error):
                outcome.error = outcome.error or error
        if deadline == math.inf and (outcome.signum or outcome.error or in_a_row >= GIVE_UP):
            stop.set()
            deadline = time.monotonic() + GRACE
    if outcome.refused and not (bar.n or outcome.given_up or outcome.signum):
        outcome.error = outcome.error or outcome.refused[-1][1]  # nothing passes
    return outcome


@contextlib.contextmanager
def signals_to(events: queue.SimpleQueue) -> Iterator[None]:
    """Put the numbers of SIGINT and SIGTERM among the events."""

    def receive(signum: int, frame: FrameType | None) -> None:
        events.put(signum)
        os.write(2, f"\n{signal.Signals(signum).name}: ending (again to stop at once)\n".encode())

    previous = {signum: signal.signal(signum, receive) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
