"""Atomic, durable file operations: a reader sees a complete file or folder, or none.

A file or folder published here survives a power loss once the call has returned: its content is
fsynced before the rename, and the folders that contain it afterwards, up to the first that
existed before.
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
    from collections.abc import Iterator, Mapping
    from pathlib import Path

REPLACED, REMOVED = "replaced", "removed"

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space, or choose another {option} folder",
    errno.EDQUOT: "the disk quota is used up; free some space, or choose another {option} folder",
    errno.EROFS: "the disk is read-only; choose another {option} folder",
    errno.EACCES: "permission denied; choose a {option} folder that you may write",
    errno.ENOENT: "the folder cannot be made there; choose another {option} folder",
    errno.EEXIST: "a file stands where a folder is needed; choose another {option} folder",
    errno.ENOTDIR: "a file stands where a folder is needed; choose another {option} folder",
    errno.EIO: "the disk reports an input/output error; choose another {option} folder",
    errno.ESTALE: "the network folder is gone (stale handle); mount it again",
    errno.EPERM: "not permitted; choose a {option} folder that you may write",
}


class Disk:
    """Every operation that changes a results folder.

    Tests replace `disk` by one that fails at an operation, or kills the process there.
    """

    def make_folder(self, path: Path) -> None:
        """Make one folder; its parent must exist."""
        path.mkdir(exist_ok=True)

    def write(self, path: Path, content: bytes) -> None:
        """Write a new file; it is not durable before `sync_file`."""
        with path.open("xb") as file:
            file.write(content)

    def sync_file(self, path: Path) -> None:
        """Make a file's content durable (fsync)."""
        # Windows syncs only what is open for writing; elsewhere a file may be read-only.
        with path.open("rb+" if os.name == "nt" else "rb") as file:
            os.fsync(file.fileno())

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder durable (fsync)."""
        if os.name == "nt":  # Windows cannot open a folder
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file or folder atomically; an existing file is replaced."""
        source.replace(target)

    def remove_file(self, path: Path) -> None:
        """Remove a file, if it exists."""
        path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        """Remove a folder and its content."""
        shutil.rmtree(path)


disk = Disk()


class StorageError(BenchError):
    """The results folder cannot be written."""


@contextmanager
def storage_errors(path: Path, option: str = "--results") -> Iterator[None]:
    """Turn an operating-system error on *path* into one line that a person can act on.

    Args:
        path: what is written.
        option: the one that named the folder; empty for what no option names.
    """
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        reason = reason.replace("{option} folder", f"{option} folder".strip())
        raise StorageError(f"cannot write {path}: {reason}") from error


def require_results(folder: Path) -> None:
    """Refuse a results folder that does not exist.

    Raises:
        BenchError: there is none.
    """
    if not folder.exists():
        raise BenchError(f"no results folder at {folder}; 'bench run-ablation' makes one")


def make_folder(path: Path, option: str = "--results") -> None:
    """Make a folder and those above it, each durably named in the one above."""
    with storage_errors(path, option):
        missing, existing = [], path
        while not existing.is_dir():
            missing.append(existing)
            existing = existing.parent
        for folder in reversed(missing):
            disk.make_folder(folder)
            disk.sync_folder(folder.parent)


def write_atomically(path: Path, content: bytes) -> None:
    """Write *content* to *path* so that no reader ever sees a partial file."""
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


def prove_writable(folder: Path, option: str = "--results") -> None:
    """Make a folder, and write a file without a name into it: nothing is left, however it ends.

    Args:
        folder: made if it does not exist.
        option: the one that named it, for the message.
    """
    make_folder(folder, option)
    with storage_errors(folder, option), tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"can a file be written here?\n")
        probe.flush()


def publish_folder(partial: Path, final: Path) -> None:
    """Rename the complete folder *partial* to *final*, replacing an older one."""
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
    """Remove a folder so that no reader sees it in part."""
    with storage_errors(path):
        doomed = _beside(path, REMOVED)
        disk.rename(path, doomed)
        disk.sync_folder(path.parent)
        disk.remove_tree(doomed)


def leftovers(path: Path, kind: str) -> list[Path]:
    """Return what a killed process left while replacing or removing a folder."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.{kind}-*"))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged_file(folder: Path, digests: Mapping[str, str]) -> str | None:
    """Return the first name in *digests* (name → SHA-256) whose file is missing or differs."""
    for name, digest in digests.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            return name
    return None


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}-{secrets.token_hex(4)}")
