"""A machine-wide lock: nothing is measured beside training, whose load would spoil the figures."""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_POLL_SECONDS = 0.2


@contextlib.contextmanager
def training(waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Train while nothing is measured on this machine; others may train beside.

    Args:
        waiting: called again and again while it waits; may raise to give up.
    """
    with _held("read", "a measurement", waiting):
        yield


@contextlib.contextmanager
def measuring(waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Measure while no other of this user's bench commands trains or measures here.

    Args:
        waiting: called again and again while it waits; may raise to give up.
    """
    with _held("write", "training, or another measurement,", waiting):
        yield


@contextlib.contextmanager
def _held(mode: str, other: str, waiting: Callable[[], None]) -> Iterator[None]:
    import filelock
    import platformdirs

    with warnings.catch_warnings():  # without XDG_RUNTIME_DIR there is a substitute
        warnings.simplefilter("ignore")
        folder = Path(platformdirs.user_runtime_dir("resnet-bench"))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = filelock.ReadWriteLock(folder / "machine.lock")
        acquire = lock.acquire_read if mode == "read" else lock.acquire_write
        told = False
        while not _try(acquire):
            if not told:
                line = f"bench: waiting for {other} of another command on this machine to end"
                print(line, file=sys.stderr, flush=True)  # noqa: T201
                told = True
            waiting()
            time.sleep(_POLL_SECONDS)
    except OSError as error:
        warnings.warn(f"measurement and training are not kept apart: {error}", stacklevel=2)
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _try(acquire: Callable[..., object]) -> bool:
    import filelock

    try:
        acquire(blocking=False)
    except filelock.Timeout:
        return False
    return True
