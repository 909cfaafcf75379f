"""Stop at a safe point on Ctrl-C or a scheduler's SIGTERM."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

# Exit codes: the shell's for Ctrl-C; EX_TEMPFAIL makes schedulers requeue the job.
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}


class StopRequestedError(Exception):
    """Work stopped at a safe point because of a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = EXIT_CODES.get(signal.Signals(number), 128 + number)


# A scheduler signals the whole process group, and some processes forward the signal:
# SIGTERMs within this time count as one.
REPEAT_SECONDS = 5.0


class Stop:
    """The first stop signal received, if any.

    Attributes:
        signal: its number.
        abandon: called before a second signal ends this process.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.abandon: Callable[[], None] = lambda: None
        self._received = 0.0

    def note(self, number: int, _frame: FrameType | None = None) -> None:
        """Remember a signal if it is the first."""
        if self.signal is None:
            self.signal, self._received = number, time.monotonic()

    def request(self, number: int, _frame: FrameType | None = None) -> None:
        """Handle a signal: remember the first; a second has its default effect.

        A second SIGTERM within `REPEAT_SECONDS` counts as the first.
        """
        lately = time.monotonic() - self._received < REPEAT_SECONDS
        if self.signal is not None and not (self.signal == number == signal.SIGTERM and lately):
            self.abandon()
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.note(number)

    def check(self) -> None:
        """Raise if a stop was requested.

        Raises:
            StopRequestedError: with the signal's name.
        """
        if self.signal is not None:
            raise StopRequestedError(self.signal)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Turn Ctrl-C and SIGTERM into a request to stop, while the block runs.

    Signals cannot be handled outside the main thread; there, no stop is ever requested.
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
    """Distinct from the `SystemExit` of a user's module, which is an error of that module."""


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Unwind the stack on SIGTERM, as Python does on Ctrl-C, and exit with code 75.

    For work that restarts from the beginning. A `stop_on_signals` block inside takes precedence.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = -REPEAT_SECONDS

    def leave(number: int, _frame: FrameType | None) -> None:
        nonlocal received
        if time.monotonic() - received < REPEAT_SECONDS:
            return
        received = time.monotonic()
        raise _SignalExit(EXIT_CODES[signal.Signals(number)])

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except _SignalExit:  # not in the handler, which could print into another line
        print("bench: stopped by SIGTERM; the same command starts again", file=sys.stderr)  # noqa: T201
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
