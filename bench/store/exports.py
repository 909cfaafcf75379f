"""Exported networks in a results folder: `exports/SHA/`, each with its proof."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.store.files import make_folder, publish_folder, sha256_of, telling, write_atomically
from bench.store.records import reading, refuse_overwriting_newer, seal, unseal

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORK = ".working-"


@dataclass(frozen=True)
class ExportRecord:
    """What `export.json` holds of one exported file.

    Attributes:
        export: SHA-256 of the file, also the name of its folder.
        request: what was asked for, and of which weights; equal requests are one export.
        row: the export's row of the `exports` table.
        proof: every figure of the comparison with PyTorch.
        environment: what it was made and compared with (`bench.environment`).
        created_at: UTC, ISO 8601.
        files: SHA-256 of every other file of the folder.
    """

    export: str
    request: dict[str, Any]
    row: dict[str, Any]
    proof: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    created_at: str = ""
    files: dict[str, str] = field(default_factory=dict)


class Exports:
    """The exports of a results folder.

    Args:
        root: the results folder; it need not exist for reading.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root) / "exports"

    def folder(self, export: str) -> Path:
        """Folder of an export."""
        return self.root / export

    def file(self, record: ExportRecord) -> Path:
        """Path of the exported file itself."""
        return self.folder(record.export) / str(record.row["file"])

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Give an empty folder to work in; it is gone afterwards unless it was published.

        Raises:
            StorageError: the results folder cannot be written, or its disk is full.
        """
        make_folder(self.root)
        with telling(self.root):
            folder = Path(tempfile.mkdtemp(dir=self.root, prefix=_WORK))
            folder.chmod(0o755)  # mkdtemp makes it the owner's alone
        try:
            with telling(self.root):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, workspace: Path, record: ExportRecord) -> ExportRecord:
        """Make a workspace the folder of *record*, in the place of an older one.

        Returns:
            The record with its files' checksums.

        Raises:
            StorageError: the results folder cannot be written.
        """
        files = {f.name: sha256_of(f) for f in sorted(workspace.iterdir())}
        record = dataclasses.replace(record, files=files)
        refuse_overwriting_newer(self.folder(record.export) / "export.json")
        write_atomically(workspace / "export.json", seal(dataclasses.asdict(record)))
        publish_folder(workspace, self.folder(record.export))
        return record

    def records(self) -> Iterator[ExportRecord]:
        """Read every export's record, in order of name; broken ones warn and are passed over."""
        for path in sorted(self.root.glob("*/export.json")):
            if path.parent.name.startswith("."):
                continue
            try:
                yield _read(path)
            except BenchError as error:
                warnings.warn(f"passing over {path.parent}: {error}", stacklevel=2)

    def find(self, request: dict[str, Any]) -> ExportRecord | None:
        """Return the undamaged export that answers *request*, None if there is none.

        A rejected one is no answer: it is tried again.
        """
        for record in self.records():
            rejected = record.row["status"] == "rejected"
            if record.request == request and not rejected and self._intact(record):
                return record
        return None

    def named(self, name: str) -> ExportRecord | None:
        """Return the export whose SHA-256 is, or alone begins with, *name* (8 digits or more)."""
        if len(name) < 8:  # noqa: PLR2004 - shorter beginnings are ambiguous soon
            return None
        found = [record for record in self.records() if record.export.startswith(name)]
        return found[0] if len(found) == 1 else None

    def _intact(self, record: ExportRecord) -> bool:
        folder = self.folder(record.export)
        return all(
            (folder / name).is_file() and sha256_of(folder / name) == digest
            for name, digest in record.files.items()
        )


def _read(path: Path) -> ExportRecord:
    with reading(path):
        record = ExportRecord(**unseal(path))
    if record.export != path.parent.name:
        raise BenchError(f"it holds the record of another export, {record.export}")
    return record
