"""New processes that start from a fresh interpreter."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Keep a new process from importing the script that called bench, which would run it again.

    `multiprocessing` imports the caller's script in each process that it spawns, so that a
    script without `if __name__ == "__main__":` would start itself once more.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def ignoring_interrupts() -> Iterator[None]:
    """Start processes that ignore Ctrl-C from their first moment on.

    A terminal sends it to every process of a command; only the one that started the others is to
    act on it. A signal can only be ignored from the main thread; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
