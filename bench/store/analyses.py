"""What was found out about networks, in a results folder: `analyses/KIND-HASH.json`.

One sealed file each. The hash is of what was asked, so that asking the same again replaces it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import BenchError
from bench.store import files
from bench.store.files import write_atomically
from bench.store.records import reading, refuse_overwriting_newer, seal, unseal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Kind = Literal["lesion", "gradients", "landscape"]


@dataclass(frozen=True)
class AnalysisRecord:
    """What one file holds.

    Attributes:
        analysis: its id, also its file's name: kind and hash of the request.
        kind: the command that made it.
        request: the options of that command; `run` is missing where there was none.
        tables: table → its rows.
        environment: what it was made with (`bench.system.environment`).
        created_at: UTC, ISO 8601.
    """

    analysis: str
    kind: str
    request: dict[str, Any]
    tables: dict[str, list[dict[str, Any]]]
    environment: dict[str, Any] = field(default_factory=dict)
    created_at: str = ""


class Analyses:
    """The analyses of a results folder.

    Args:
        root: the results folder; it need not exist for reading.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root) / "analyses"

    def file(self, analysis: str) -> Path:
        """Path of an analysis."""
        return self.root / f"{analysis}.json"

    def prepare(self) -> None:
        """Prove that the folder can be written before work begins.

        Raises:
            StorageError: it cannot, with the reason.
        """
        probe = self.root / ".writable"
        write_atomically(probe, b"can a file be written here?\n")
        files.disk.remove_file(probe)

    def publish(
        self,
        kind: Kind,
        request: Mapping[str, Any],
        tables: Mapping[str, Sequence[Mapping[str, Any]]],
        environment: Mapping[str, Any],
    ) -> AnalysisRecord:
        """Write an analysis, in the place of an older one of the same request.

        Args:
            kind: the command.
            request: its options.
            tables: table → rows; numbers that JSON lacks (infinite, NaN) become missing.
            environment: what it was made with.

        Raises:
            StorageError: the results folder cannot be written; an older one is still there.
        """
        asked = json.dumps([kind, request], sort_keys=True)
        record = AnalysisRecord(
            analysis=f"{kind}-{hashlib.sha256(asked.encode()).hexdigest()[:12]}",
            kind=kind,
            request=dict(request),
            tables={name: [_finite(row) for row in rows] for name, rows in tables.items()},
            environment=dict(environment),
            created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        )
        self._write(record)
        return record

    def adopt(self, records: Iterable[AnalysisRecord]) -> None:
        """Write analyses of another folder as they are; those that are here already stay.

        Raises:
            StorageError: the results folder cannot be written.
        """
        for record in records:
            if not self.file(record.analysis).exists():
                self._write(record)

    def of(self, runs: Iterable[str]) -> list[AnalysisRecord]:
        """Read the analyses of these runs, oldest first; broken ones warn and are passed over."""
        wanted = set(runs)
        return [record for record in self.records() if record.request.get("run") in wanted]

    def remove(self, runs: Iterable[str]) -> None:
        """Remove the analyses of these runs."""
        for record in self.of(runs):
            files.disk.remove_file(self.file(record.analysis))

    def records(self) -> list[AnalysisRecord]:
        """Read every analysis, oldest first; broken ones warn and are passed over."""
        return self.read()[0]

    def read(self) -> tuple[list[AnalysisRecord], list[str]]:
        """Read every analysis, oldest first, and what is wrong with those that cannot be read.

        Broken ones warn, too.
        """
        found, broken = [], []
        for path in sorted(self.root.glob("[!.]*.json")):
            try:
                found.append(_read(path))
            except BenchError as error:
                broken.append(f"{path}: {error}")
                warnings.warn(f"passing over {path}: {error}", stacklevel=2)
        return sorted(found, key=lambda record: record.created_at), broken

    def _write(self, record: AnalysisRecord) -> None:
        path = self.file(record.analysis)
        refuse_overwriting_newer(path)
        write_atomically(path, seal(dataclasses.asdict(record)))


def _read(path: Path) -> AnalysisRecord:
    with reading(path):
        record = AnalysisRecord(**unseal(path, required=True))
    if record.analysis != path.stem:
        raise BenchError(f"it holds another analysis, {record.analysis}")
    return record


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
