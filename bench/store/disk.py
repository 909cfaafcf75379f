"""What changes a results folder, one method each, so that each can be made to fail."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Disk:
    """The real disk. The fault tests put one in its place that fails, or kills the process."""

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
