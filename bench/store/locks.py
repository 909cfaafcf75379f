"""Locks between processes, in files of the results folder.

Where the file system supports flock, the operating system releases a lock when its owner dies.
Elsewhere a lock is a lease: a file that its owner touches every 20 s, and that others may take
over once they have seen it unchanged for 60 s by their own clocks, on whichever host.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from bench.errors import warn
from bench.store.files import make_folder, storage_errors

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import filelock

LEASE_SECONDS = 60.0
_POLL_SECONDS = 0.1


@contextlib.contextmanager
def hold(
    path: Path, *, wait: bool = True, waiting: Callable[[], None] = lambda: None
) -> Iterator[bool]:
    """Hold the lock at *path*; yields False if another holds it and *wait* is False.

    Args:
        path: the lock's file; it is not removed.
        wait: wait until the lock is free.
        waiting: called repeatedly during the wait; may raise to give up.
    """
    make_folder(path.parent)
    with storage_errors(path):  # even a look may be refused
        lock = _lock(path)
    while not _try(lock, path):
        if not wait:
            yield False
            return
        waiting()
        time.sleep(_POLL_SECONDS)
    try:
        yield True
    finally:
        lock.release()


def _try(lock: filelock.BaseFileLock, path: Path) -> bool:
    import filelock

    with storage_errors(path):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:  # an OSError, too, but not of the disk
            return False
    return True


def _lock(path: Path) -> filelock.BaseFileLock:
    import filelock

    if knows_flock(path.parent):
        return filelock.FileLock(path, fallback_to_soft=False)
    return filelock.SoftFileLease(
        path.with_suffix(".lease"),
        lease_duration=LEASE_SECONDS,
        on_compromise=lambda lost: warn(
            f"the lock {lost.lock_file} was taken over ({lost.reason}): this machine stood still "
            f"for over {LEASE_SECONDS:g} s; the run may be done twice"
        ),
    )


def knows_flock(folder: Path) -> bool:
    """Return whether the operating system can lock files in *folder*.

    It is tried with a file: Linux itself locks a folder where the file system has no locks.
    """
    if sys.platform == "win32":  # has other locks, which all its file systems support
        return True
    with storage_errors(folder), tempfile.TemporaryFile(dir=folder) as probe:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # ENOSYS, ENOLCK or EOPNOTSUPP, by file system
            return False
    return True
