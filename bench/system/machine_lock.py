"""A lock that keeps a user's measurements and trainings on one machine apart.

Load distorts timings. The lock is in the user's runtime folder, which other users' commands do not
see.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sqlite3
import sys
import textwrap
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import platformdirs
import psutil

from bench.errors import warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_POLL_SECONDS = 0.2


@contextlib.contextmanager
def training_lock(waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Wait until no bench command of this user measures, and prevent it while the block runs.

    Other trainings may run at the same time. *waiting* is called repeatedly; it may raise to give
    up.
    """
    with _held("read", "a measurement", waiting):
        yield


@contextlib.contextmanager
def measuring_lock(waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Wait until no other bench command of this user trains or measures, and prevent both."""
    with _held("write", "training, or another measurement,", waiting):
        yield


@contextlib.contextmanager
def _held(mode: str, other: str, waiting: Callable[[], None]) -> Iterator[None]:
    with warnings.catch_warnings():  # platformdirs warns of its fallback without XDG_RUNTIME_DIR
        warnings.simplefilter("ignore")
        folder = Path(platformdirs.user_runtime_dir("resnet-bench"))
    path = folder / "machine.lock"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = filelock.ReadWriteLock(path)
        acquire = lock.acquire_read if mode == "read" else lock.acquire_write
        reported = False
        while not _try(acquire):
            if not reported:
                line = f"bench: waiting for {other} of another command on this machine to end"
                print(f"{line}{_holders(folder)}", file=sys.stderr, flush=True)  # noqa: T201
                reported = True
            waiting()
            time.sleep(_POLL_SECONDS)
    except (OSError, sqlite3.Error, ValueError) as error:  # the lock's file is a database
        warn(
            f"measurement and training are not kept apart: {path} cannot be locked ({error}); "
            "remove it if it is damaged"
        )
        yield
        return
    try:
        with _named(folder):
            yield
    finally:
        lock.release()


def _try(acquire: Callable[..., object]) -> bool:
    try:
        acquire(blocking=False)
    except filelock.Timeout:
        return False
    return True


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Leave a note of this process for those who wait; they check that it still runs."""
    note = folder / f"holder-{os.getpid()}"
    if note.exists():  # held by this process already
        yield
        return
    with contextlib.suppress(OSError):
        note.touch()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            note.unlink()


def _holders(folder: Path) -> str:
    """Return who holds the lock, since when, and what to do."""
    found = []
    for note in sorted(folder.glob("holder-*")):
        with contextlib.suppress(psutil.Error, OSError, ValueError):
            process = psutil.Process(int(note.name.partition("-")[2]))
            since = note.stat().st_mtime
            if process.pid != os.getpid() and process.create_time() <= since:
                when = time.strftime("%H:%M:%S", time.localtime(since))
                words = textwrap.shorten(shlex.join(process.cmdline()), 80, placeholder=" …")
                found.append(f"process {process.pid} ({words}), since {when}")
    if not found:
        return ""
    return (
        f": {'; '.join(found)}. Figures taken beside other work would be wrong: wait, or end it "
        f"with 'kill {found[0].split()[1]}' (a training then saves its state; its command resumes "
        "it)"
    )
