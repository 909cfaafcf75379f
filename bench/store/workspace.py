"""Temporary folders, published when they are complete and removed otherwise."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING

from bench.store import files
from bench.store.files import make_folder, storage_errors
from bench.store.locks import hold

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PREFIX = ".working."


@contextlib.contextmanager
def workspace(root: Path) -> Iterator[Path]:
    """Make an empty folder in *root* that is removed at the end unless it was published.

    Workspaces of killed processes are removed first: a living owner holds its workspace's lock.

    Args:
        root: a folder of the results folder, such as `exports`; made if necessary.
    """
    make_folder(root)
    clear_abandoned(root)
    token = secrets.token_hex(4)
    folder, lock = root / f"{_PREFIX}{token}", _lock(root, token)
    with hold(lock):
        try:
            with storage_errors(root):
                files.disk.make_folder(folder)
                yield folder
        finally:
            with contextlib.suppress(OSError):  # the next workspace removes it
                _remove(folder, lock)


def clear_abandoned(root: Path) -> None:
    """Remove the workspaces in *root* whose processes were killed."""
    for folder in sorted(
        root.glob(f"{_PREFIX}*")
    ):  # the suffix of a lock depends on the file system
        lock = _lock(root, folder.name.removeprefix(_PREFIX))
        with hold(lock, wait=False) as abandoned:
            if abandoned:
                with storage_errors(folder):
                    _remove(folder, lock)


def _remove(folder: Path, lock: Path) -> None:
    if folder.exists():
        files.disk.remove_tree(folder)
    files.disk.remove_file(lock)


def _lock(root: Path, token: str) -> Path:
    return root.parent / "locks" / f".{root.name}-{token}.lock"  # no run has such a name
