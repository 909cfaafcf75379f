"""The results folder itself: made when first written, and never silently made anew."""

from __future__ import annotations

from pathlib import Path

from bench.errors import BenchError
from bench.store.files import StorageError, make_folder, prove_writable, telling


class ResultsFolder:
    """A results folder.

    Args:
        root: the folder; it need not exist for reading.

    Raises:
        BenchError: *root* is a file.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._identity: tuple[int, int] | None = None
        with telling(self.root):  # even asking may be refused, or the name be too long
            is_file = self.root.exists() and not self.root.is_dir()
        if is_file:
            raise BenchError(f"--results {self.root} is a file; give a folder")

    def prepare(self) -> None:
        """Make the folder, and prove that it can be written before work begins.

        Raises:
            StorageError: it cannot be written, with the reason.
        """
        self.ready()
        prove_writable(self.root / "runs")

    def ready(self) -> None:
        """Make the folder, or refuse to write where it no longer is the one this began with."""
        if self._identity is None:
            make_folder(self.root)
        with telling(self.root):
            found = self.root.stat() if self.root.is_dir() else None
        identity = None if found is None else (found.st_dev, found.st_ino)
        if self._identity not in {None, identity}:
            raise StorageError(
                f"the results folder {self.root} was moved or removed while it was written; "
                "move it back, or give its new place with --results"
            )
        self._identity = identity
