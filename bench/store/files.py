"""Atomic file operations: what a reader finds is whole, or it is not there.

Promise: a file or folder published here survives a power loss once the call has
returned. For that its content is fsynced before the rename, and the folder that names
it after, up to the first that was there before.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPLACED, REMOVED = "replaced", "removed"

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space, or choose another --results folder",
    errno.EDQUOT: "the disk quota is used up; free some space, or choose another --results folder",
    errno.EROFS: "the disk is read-only; choose another --results folder",
    errno.EACCES: "permission denied; choose a --results folder that you may write",
    errno.ENOENT: "the folder cannot be made there; choose another --results folder",
    errno.EEXIST: "a file stands where a folder is needed; choose another --results folder",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another --results folder",
    errno.EIO: "the disk reports an input/output error; choose another --results folder",
    errno.ESTALE: "the network folder is gone (stale handle); mount it again",
    errno.EPERM: "not permitted; choose a --results folder that you may write",
}


class Disk:
    """Every operation that changes a results folder.

    Tests replace `disk` by one that fails at an operation, or kills the process there.
    """

    def make_folder(self, path: Path) -> None:
        """Make one folder, in one that exists."""
        path.mkdir(exist_ok=True)

    def write(self, path: Path, content: bytes) -> None:
        """Write a file that is not there yet; it is not durable before `sync_file`."""
        with path.open("xb") as file:
            file.write(content)

    def sync_file(self, path: Path) -> None:
        """Make a file's content survive a power loss (fsync)."""
        with path.open("rb") as file:
            os.fsync(file.fileno())

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder survive a power loss (fsync)."""
        if os.name == "nt":  # Windows has no descriptor of a folder
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or folder another name, atomically; a file there is replaced."""
        source.replace(target)

    def remove_file(self, path: Path) -> None:
        """Remove a file, if it is there."""
        path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        """Remove a folder and what is in it."""
        shutil.rmtree(path)


disk = Disk()


class StorageError(BenchError):
    """The results folder cannot be written: no run can be recorded there."""


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an operating-system error on *path* into one line that a person can act on."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(f"cannot write {path}: {reason}") from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it, each durably named in the one above.

    Raises:
        StorageError: it cannot be made.
    """
    with storage_errors(path):
        missing, existing = [], path
        while not existing.is_dir():
            missing.append(existing)
            existing = existing.parent
        for folder in reversed(missing):
            disk.make_folder(folder)
            disk.sync_folder(folder.parent)


def write_atomically(path: Path, content: bytes) -> None:
    """Write *content* to *path* so that no reader ever sees a part of it.

    Raises:
        StorageError: the folder cannot be written; nothing is left behind.
    """
    with storage_errors(path):
        make_folder(path.parent)
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            disk.write(partial, content)
            disk.sync_file(partial)
            disk.rename(partial, path)
        except BaseException:
            disk.remove_file(partial)
            raise
        disk.sync_folder(path.parent)


def prove_writable(folder: Path) -> None:
    """Make a folder, and write a file without a name into it: nothing is left, however it ends.

    Raises:
        StorageError: it cannot be written, with the reason.
    """
    make_folder(folder)
    with storage_errors(folder), tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"can a file be written here?\n")
        probe.flush()


def publish_folder(partial: Path, final: Path) -> None:
    """Make the finished folder *partial* appear as *final*, in the place of an older one.

    Raises:
        StorageError: the folder cannot be written; an older one is still there.
    """
    with storage_errors(final):
        for file in partial.iterdir():
            disk.sync_file(file)
        disk.sync_folder(partial)
        older = _beside(final, REPLACED) if final.exists() else None
        if older is not None:
            disk.rename(final, older)
        try:
            disk.rename(partial, final)
        except OSError:
            if older is not None:
                disk.rename(older, final)
            raise
        disk.sync_folder(final.parent)
        if older is not None:
            disk.remove_tree(older)


def remove_folder(path: Path) -> None:
    """Remove a folder so that a reader sees it whole or not at all."""
    with storage_errors(path):
        doomed = _beside(path, REMOVED)
        disk.rename(path, doomed)
        disk.sync_folder(path.parent)
        disk.remove_tree(doomed)


def leftovers(path: Path, kind: str) -> list[Path]:
    """What a killed process left of a folder that it was to replace or to remove."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.{kind}-*"))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}-{secrets.token_hex(4)}")
