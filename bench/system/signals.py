"""Stopping between two steps when a person or a scheduler asks for it."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# Exit codes: the shell's for Ctrl-C, and EX_TEMPFAIL, on which schedulers requeue.
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}


class StopRequestedError(Exception):
    """Work stopped at a safe place because a signal asked for it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = EXIT_CODES.get(signal.Signals(number), 128 + number)


# A scheduler signals a whole group of processes, and some of them pass it on.
_SAME_WISH_SECONDS = 5.0


class Stop:
    """Remembers the first signal that asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def request(self, number: int, _frame: FrameType | None = None) -> None:
        """Handle a signal: the first is remembered, a second acts as it would unhandled."""
        if self.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal = number

    def check(self) -> None:
        """Raise if a stop was asked for.

        Raises:
            StopRequestedError: naming the signal.
        """
        if self.signal is not None:
            raise StopRequestedError(self.signal)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Turn Ctrl-C and SIGTERM into a request to stop, while the block runs.

    Outside the main thread signals cannot be handled; the request then never comes.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.request) for number in EXIT_CODES}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _SignalExit(SystemExit):
    """Told apart from the `sys.exit` of a user's module, which is an error of that module."""


@contextmanager
def leave_on_sigterm() -> Iterator[None]:
    """Unwind on SIGTERM as Python does on Ctrl-C, so that nothing is left behind; exit code 75.

    For work that is begun anew rather than taken up; `stop_on_signals` within takes over.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = -_SAME_WISH_SECONDS

    def leave(number: int, _frame: FrameType | None) -> None:
        nonlocal heard
        if time.monotonic() - heard < _SAME_WISH_SECONDS:
            return
        heard = time.monotonic()
        raise _SignalExit(EXIT_CODES[signal.Signals(number)])

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except _SignalExit:  # said here: a handler must not print into another line's middle
        print("bench: stopped by SIGTERM; the same command begins anew", file=sys.stderr)  # noqa: T201
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
