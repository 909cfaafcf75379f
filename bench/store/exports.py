"""Exported networks in a results folder: `exports/SHA/`, each with its verification."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.store import files
from bench.store.files import (
    damaged_file,
    make_folder,
    publish_folder,
    sha256_of,
    storage_errors,
    write_atomically,
)
from bench.store.locks import hold
from bench.store.records import (
    is_of_weights,
    read_or_warn,
    read_record,
    refuse_overwriting_newer,
    seal,
)
from bench.store.workspace import clear_abandoned, workspace

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from contextlib import AbstractContextManager

    from bench.store.runs import Store

RECORD = "export.json"


@dataclass(frozen=True)
class ExportRecord:
    """The content of `export.json`, the record of one exported file.

    Attributes:
        export: SHA-256 of the file, also the name of its folder.
        request: options, weights and versions; equal requests are the same export.
        row: the export's row of the `exports` table.
        proof: the results of the comparison with PyTorch.
        environment: versions and hardware (`bench.system.environment`).
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

    @property
    def run(self) -> str | None:
        """The run that was exported; None for a file, or a network given by name."""
        return self.row.get("run")


class Exports:
    """The exports of a results folder.

    Args:
        root: the results folder; it need not exist for reading.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root) / "exports"

    def folder(self, export: str) -> Path:
        """Return the folder of an export."""
        return self.root / export

    def file(self, record: ExportRecord) -> Path:
        """Return the path of the exported file."""
        return self.folder(record.export) / str(record.row["file"])

    def checked_file(self, record: ExportRecord) -> Path:
        """Return the path of the exported file after checking every file of its folder.

        Raises:
            BenchError: a file is missing or damaged.
        """
        _check(self.folder(record.export))
        return self.file(record)

    def workspace(self) -> AbstractContextManager[Path]:
        """Make an empty folder that is removed at the end of the block unless it was published."""
        return workspace(self.root)

    def publish(self, folder: Path, record: ExportRecord) -> ExportRecord:
        """Publish a workspace as the folder of *record*, replacing an older one.

        Returns:
            The record with its files' checksums.
        """
        digests = {f.name: sha256_of(f) for f in sorted(folder.iterdir())}
        record = dataclasses.replace(record, files=digests)
        refuse_overwriting_newer(self.folder(record.export) / RECORD)
        write_atomically(folder / RECORD, seal(dataclasses.asdict(record)))
        with hold(self._lock):
            publish_folder(folder, self.folder(record.export))
        return record

    def adopt(self, folder: Path) -> bool:
        """Publish an export of another results folder; return False if it is here already."""
        final = self.folder(folder.name)
        if final.exists():
            return False
        make_folder(self.root)
        with hold(self._lock):
            publish_folder(folder, final)
        return True

    def tidy(self) -> None:
        """Repair what a process left that died while publishing."""
        if self.root.is_dir():
            clear_abandoned(self.root)
        if not any(self.root.glob(f".*.{files.REPLACED}-*")):
            return
        with hold(self._lock):
            for older in self.root.glob(f".*.{files.REPLACED}-*"):
                final = self.folder(older.name[1:].split(".", 1)[0])
                with storage_errors(older):
                    if final.exists():
                        files.disk.remove_tree(older)
                    else:
                        files.disk.rename(older, final)

    @property
    def _lock(self) -> Path:
        return self.root.parent / "locks" / "exports.lock"

    def records(self) -> Iterator[ExportRecord]:
        """Read every export's record, in order of name; broken ones warn and are skipped."""
        return self._beginning("[!.]")

    def _beginning(self, pattern: str) -> Iterator[ExportRecord]:
        for path in sorted(self.root.glob(f"{pattern}*/{RECORD}")):
            record = read_or_warn(path.parent, read_export)
            if record is not None:
                yield record

    def find(self, request: dict[str, Any]) -> ExportRecord | None:
        """Return the undamaged export of *request*; None if there is none.

        A rejected export does not count, so that it is tried again.
        """
        for record in self.records():
            if record.request == request and record.row["status"] != "rejected":
                with contextlib.suppress(BenchError):
                    self.checked_file(record)
                    return record
        return None

    def known_files(self) -> dict[str, dict[str, Any]]:
        """Return what is known of each file by its SHA-256.

        That is the row of an export, and for an ONNX file that was quantised its `model` and the
        `test_accuracy` that it had then, the newest one. Both have the `dataset` of that test; it
        is missing for an export of a run, which has it.
        """
        known: dict[str, dict[str, Any]] = {}
        for record in sorted(self.records(), key=lambda record: record.created_at, reverse=True):
            dataset = {"dataset": record.request.get("dataset")}
            known[record.row["sha256"]] = record.row | dataset
            source = record.request.get("file_sha256")
            if source is not None:
                accuracy = record.row["torch_accuracy"]
                own = {"model": record.row["model"], "test_accuracy": accuracy} | dataset
                known.setdefault(source, own)
        return known

    def describing(self, sha256: str) -> ExportRecord | None:
        """Return the newest export that is the file of this SHA-256, or was quantised from it."""
        own = [
            record
            for record in self._beginning(glob.escape(sha256))
            if record.row["sha256"] == sha256
        ]
        if own:
            return own[0]
        made_of_it = (r for r in self.records() if r.request.get("file_sha256") == sha256)
        return max(made_of_it, key=lambda record: record.created_at, default=None)

    def named(self, name: str) -> ExportRecord | None:
        """Return the only export whose SHA-256 begins with *name* (8 digits or more), or None."""
        if len(name) < 8:  # noqa: PLR2004 - shorter beginnings are ambiguous soon
            return None
        found = [*self._beginning(glob.escape(name))]
        return found[0] if len(found) == 1 else None


def refuse_damaged(path: Path) -> None:
    """Check a file's checksum if it is in the folder of an export.

    Args:
        path: any file; a file elsewhere is not checked.

    Raises:
        BenchError: it, or another file of its folder, is missing or damaged.
    """
    if (path.parent / RECORD).is_file():
        _check(path.parent.absolute())  # the folder's name is the export's


def _check(folder: Path) -> None:
    try:
        record = read_export(folder)
    except BenchError as error:
        raise BenchError(
            f"{folder / RECORD} cannot be trusted ({error}); export it again"
        ) from None
    damaged = damaged_file(folder, record.files)
    if damaged:
        raise BenchError(
            f"{folder / damaged} is missing or damaged (its checksum differs); export it again"
        )


def read_export(folder: Path) -> ExportRecord:
    """Read one export's record.

    Raises:
        BenchError: it cannot be read, or was written by a newer version.
    """
    return read_record(folder / RECORD, ExportRecord, folder.name)


def outdated_files(store: Store, runs: Collection[str]) -> set[str]:
    """Return the SHA-256 of exports of weights that a run no longer has, after `--force`."""
    records = [record for record in Exports(store.root).records() if record.run in runs]
    now = {run: store.read_run(run) for run in {str(record.run) for record in records}}
    return {r.row["sha256"] for r in records if not is_of_weights(r.request, now[str(r.run)])}
