"""Atomic file operations: what a reader finds is whole, or it is not there.

Promise: a file or folder published here survives a power loss once the call has
returned. For that its content is fsynced before the rename, and the folder that names
it after.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space, or choose another --results folder",
    errno.EDQUOT: "the disk quota is used up; free some space, or choose another --results folder",
    errno.EROFS: "the disk is read-only; choose another --results folder",
    errno.EACCES: "permission denied; choose a --results folder that you may write",
    errno.ENOENT: "the folder cannot be made there; choose another --results folder",
    errno.EEXIST: "a file stands where a folder is needed; choose another --results folder",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another --results folder",
    errno.EPERM: "not permitted; choose a --results folder that you may write",
}


class StorageError(BenchError):
    """The results folder cannot be written: no run can be recorded there."""


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """Turn an operating-system error on *path* into one line that a person can act on."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(f"cannot write {path}: {reason}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write *content* to *path* so that no reader ever sees a part of it.

    Raises:
        StorageError: the folder cannot be written; nothing is left behind.
    """
    with telling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def publish_folder(partial: Path, final: Path) -> None:
    """Make the finished folder *partial* appear as *final*, in the place of an older one.

    Raises:
        StorageError: the folder cannot be written.
    """
    with telling(final):
        for file in partial.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        _sync_folder(partial)
        if final.exists():
            remove_folder(final)
        partial.rename(final)
        _sync_folder(final.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder so that a reader sees it whole or not at all."""
    with telling(path):
        doomed = path.with_name(f".{path.name}.removed-{os.getpid()}")
        path.rename(doomed)
        shutil.rmtree(doomed)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(path: Path) -> None:
    if os.name == "nt":  # Windows has no descriptor of a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
