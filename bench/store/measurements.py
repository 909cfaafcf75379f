"""Measurements in a results folder: `measurements/ID/`, with all raw samples."""

from __future__ import annotations

import csv
import dataclasses
import io
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, nearest
from bench.store.files import (
    damaged_file,
    make_folder,
    prove_writable,
    publish_folder,
    sha256_of,
    write_atomically,
)
from bench.store.records import read_or_warn, read_record, reading, seal
from bench.store.workspace import workspace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RECORD, SAMPLES = "measurement.json", "samples.csv"
SAMPLE_COLUMNS = ("configuration", "process", "phase", "round", "position", "seconds")


@dataclass(frozen=True)
class MeasurementRecord:
    """The content of `measurement.json`, the record of one interleaved comparison.

    Attributes:
        measurement: id: UTC time and a random part.
        request: the requested options.
        rows: rows of the `throughput` table.
        environment: versions and hardware (`bench.system.environment`).
        ceiling: the machine's measured peak performance.
        noise: machine noise, and the difference between the two entries of each reference.
        lanes: configuration → everything else that was read back from its runner.
        processes: the fresh processes that measured, in order; empty for one process.
        cold_starts: rows of the `cold_starts` table, if they were requested.
        created_at: UTC, ISO 8601.
        files: SHA-256 of every other file of the folder.
    """

    measurement: str
    request: dict[str, Any]
    rows: list[dict[str, Any]]
    environment: dict[str, Any] = field(default_factory=dict)
    ceiling: dict[str, Any] = field(default_factory=dict)
    noise: dict[str, Any] = field(default_factory=dict)
    lanes: dict[str, Any] = field(default_factory=dict)
    processes: list[dict[str, Any]] = field(default_factory=list)
    cold_starts: list[dict[str, Any]] = field(default_factory=list)
    created_at: str = ""
    files: dict[str, str] = field(default_factory=dict)


class Measurements:
    """The measurements of a results folder.

    Args:
        root: the results folder; it need not exist for reading.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root) / "measurements"

    def new_id(self) -> str:
        """Return an id that sorts by time."""
        now = datetime.now(UTC)
        return f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03}-{secrets.token_hex(3)}"

    def folder(self, measurement: str) -> Path:
        """Return the folder of a measurement."""
        return self.root / measurement

    def prepare(self) -> None:
        """Check that the folder can be written, before work begins."""
        prove_writable(self.root)

    def publish(
        self, record: MeasurementRecord, samples: Sequence[Sequence[Any]]
    ) -> MeasurementRecord:
        """Write a measurement as one folder.

        Args:
            record: `files` and `created_at` are filled in here.
            samples: rows of `SAMPLE_COLUMNS`; seconds are those of one batch. The phase is
                warm-up, sample or, of each batch while several are in flight, latency.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(SAMPLE_COLUMNS)
        writer.writerows(samples)
        with workspace(self.root) as partial:
            write_atomically(partial / SAMPLES, text.getvalue().encode())
            record = dataclasses.replace(
                record,
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
                files={SAMPLES: sha256_of(partial / SAMPLES)},
            )
            write_atomically(partial / RECORD, seal(dataclasses.asdict(record)))
            publish_folder(partial, self.folder(record.measurement))
        return record

    def adopt(self, folder: Path) -> bool:
        """Publish a measurement of another results folder; return False if it is here already."""
        final = self.folder(folder.name)
        if final.exists():
            return False
        make_folder(self.root)
        publish_folder(folder, final)
        return True

    def records(self) -> Iterator[MeasurementRecord]:
        """Read every measurement's record, oldest first; broken ones warn and are skipped."""
        for path in sorted(self.root.glob(f"[!.]*/{RECORD}")):
            record = read_or_warn(path.parent, read_measurement)
            if record is not None:
                yield record

    def find(self, name: str) -> MeasurementRecord:
        """Return the measurement with this id, or the only one whose id begins with *name*.

        Raises:
            BenchError: nothing or more than one matches.
        """
        known = {record.measurement: record for record in self.records()}
        found = [name] if name in known else [key for key in known if key.startswith(name)]
        if len(found) != 1:
            more = f"fits {len(found)} measurements; give more of its id"
            why = more if found else f"is none{nearest(name, known)}"
            raise BenchError(f"measurement '{name}' in {self.root} {why}")
        return known[found[0]]


def read_measurement(folder: Path) -> MeasurementRecord:
    """Read one measurement's record.

    Raises:
        BenchError: it cannot be read, or was written by a newer version.
    """
    return read_record(folder / RECORD, MeasurementRecord, folder.name)


def read_samples(folder: Path) -> dict[str, dict[tuple[int, int], list[float]]]:
    """Read the samples without warm-up: configuration → (process, round) → seconds of one batch.

    Raises:
        BenchError: the file is missing or damaged.
    """
    path = folder / SAMPLES
    if damaged_file(folder, {SAMPLES: read_measurement(folder).files.get(SAMPLES, "")}):
        raise BenchError(f"{path} is missing or damaged (its checksum differs); measure again")
    samples: dict[str, dict[tuple[int, int], list[float]]] = {}
    with reading(path), path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["phase"] == "sample":
                rounds = samples.setdefault(row["configuration"], {})
                # Files written before there were several processes have no such column.
                block = (int(row.get("process") or 0), int(row["round"]))
                rounds.setdefault(block, []).append(float(row["seconds"]))
    return samples
