"""A second signal does not wait."""

import signal

import pytest

from training.loop.callbacks import StopOnSignalCallback


def test_second_signal_stops_at_once():
    stop = StopOnSignalCallback()
    stop.receive(signal.SIGINT, None)
    stop.receive(signal.SIGINT, None)  # a launcher passes on what the terminal sent too
    stop.received -= 2 * StopOnSignalCallback.GRACE
    with pytest.raises(KeyboardInterrupt):
        stop.receive(signal.SIGINT, None)
