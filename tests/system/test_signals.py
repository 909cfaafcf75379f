from __future__ import annotations

import signal

import pytest

from bench.system import signals
from bench.system.signals import StopRequestedError, stop_on_signals


class AbandonedError(Exception):
    """What is still running was given up."""


@pytest.fixture
def stop():
    def abandon():
        raise AbandonedError

    with stop_on_signals() as stop:
        stop.abandon = abandon
        yield stop


def test_sigterm_to_a_whole_process_group_counts_once(stop):
    for _ in range(3):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(StopRequestedError) as stopped:
        stop.check()
    assert stopped.value.exit_code == 75


@pytest.mark.parametrize(
    ("first", "second", "within"),
    [("SIGTERM", "SIGTERM", 0), ("SIGINT", "SIGINT", 5), ("SIGTERM", "SIGINT", 5)],
)
def test_a_second_signal_abandons_the_work(stop, monkeypatch, first, second, within):
    monkeypatch.setattr(signals, "REPEAT_SECONDS", within)
    signal.raise_signal(signal.Signals[first])
    with pytest.raises(AbandonedError):
        signal.raise_signal(signal.Signals[second])
    assert stop.signal == signal.Signals[first]
