"""Analyses of networks in a results folder: `analyses/KIND-HASH.json`.

Each is one file with a checksum. The hash is that of the request, so that repeating a request
replaces its analysis.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import BenchError, warn
from bench.store import files
from bench.store.files import prove_writable, write_atomically
from bench.store.records import read_record, refuse_overwriting_newer, seal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Kind = Literal["lesion", "gradients", "landscape"]


@dataclass(frozen=True)
class AnalysisRecord:
    """The content of one analysis file.

    Attributes:
        analysis: id and file name: kind and hash of the request.
        kind: the command that made it.
        request: the options of that command; without `run` if no run was analysed.
        tables: table → its rows.
        environment: versions and hardware (`bench.system.environment`).
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
        """Return the path of an analysis."""
        return self.root / f"{analysis}.json"

    def prepare(self) -> None:
        """Check that the folder can be written, before work begins."""
        prove_writable(self.root)

    def publish(
        self,
        kind: Kind,
        request: Mapping[str, Any],
        tables: Mapping[str, Sequence[Mapping[str, Any]]],
        environment: Mapping[str, Any],
    ) -> AnalysisRecord:
        """Write an analysis; an older one of the same request is replaced.

        Args:
            kind: the command.
            request: its options.
            tables: table → rows; infinite and NaN values become missing.
            environment: versions and hardware.
        """
        identity = json.dumps([kind, request], sort_keys=True)
        record = AnalysisRecord(
            analysis=f"{kind}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}",
            kind=kind,
            request=dict(request),
            tables={name: [_finite(row) for row in rows] for name, rows in tables.items()},
            environment=dict(environment),
            created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        )
        self._write(record)
        return record

    def adopt(self, records: Iterable[AnalysisRecord]) -> None:
        """Write analyses of another folder unchanged; those that exist here are kept."""
        for record in records:
            if not self.file(record.analysis).exists():
                self._write(record)

    def of(self, runs: Iterable[str]) -> list[AnalysisRecord]:
        """Read the analyses of these runs, oldest first; broken ones warn and are skipped."""
        wanted = set(runs)
        return [record for record in self.records() if record.request.get("run") in wanted]

    def remove(self, runs: Iterable[str]) -> None:
        """Remove the analyses of these runs."""
        for record in self.of(runs):
            files.disk.remove_file(self.file(record.analysis))

    def records(self) -> list[AnalysisRecord]:
        """Read every analysis, oldest first; broken ones warn and are skipped."""
        return self.read()[0]

    def read(self) -> tuple[list[AnalysisRecord], list[str]]:
        """Read every analysis, oldest first, and list the errors of those that cannot be read.

        Broken ones warn, too.
        """
        found, broken = [], []
        for path in sorted(self.root.glob("[!.]*.json")):
            try:
                found.append(read_record(path, AnalysisRecord, path.stem, required=True))
            except BenchError as error:
                broken.append(f"{path}: {error}")
                warn(f"passing over {path}: {error}")
        return sorted(found, key=lambda record: record.created_at), broken

    def _write(self, record: AnalysisRecord) -> None:
        path = self.file(record.analysis)
        refuse_overwriting_newer(path)
        write_atomically(path, seal(dataclasses.asdict(record)))


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
