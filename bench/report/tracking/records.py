"""What is logged of a run and of a study, read from the results folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.store.exports import Exports
from bench.store.tables.columns import COLUMNS, Table
from bench.store.tables.runs import epoch_rows, run_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.store import RunRecord, Store
    from bench.store.exports import ExportRecord


def _figures(table: Table, *others: str) -> tuple[str, ...]:
    """Return the columns of a table that hold a figure, but for *others*."""
    numbers = [name for name, kind in COLUMNS[table].items() if kind in {"float64", "Int64"}]
    return tuple(name for name in numbers if name not in others)


_FINAL = _figures("runs", "seed", "input_size", "epochs", "threads")
_EPOCH = _figures("epochs", "seed", "epoch")
_EXPORT = _figures("exports", "opset")


@dataclass(frozen=True)
class TrackedExport:
    """One exported file.

    Attributes:
        title: format and precision, as a heading.
        sha256: of the file.
        status: complete, or how it failed.
        values: its figures (`exports` table).
        files: the exported file, and what lies beside it.
    """

    title: str
    sha256: str
    status: str
    values: dict[str, float]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class TrackedRun:
    """One run of a study.

    Attributes:
        run: its id.
        name: variant and random seed.
        status: as in the `runs` table.
        error: why it is not complete, or None.
        started_at: UTC.
        seconds: of training.
        parameters: everything requested that had an effect; options and recipe values each under a
            name of their own.
        environment: versions and machine.
        epochs: number of the epoch → its values.
        final: values of the finished network.
        exports: files exported of it.
    """

    run: str
    name: str
    status: str
    error: str | None
    started_at: datetime
    seconds: float
    parameters: dict[str, str | int | float | bool]
    environment: dict[str, str]
    epochs: dict[int, dict[str, float]]
    final: dict[str, float]
    exports: tuple[TrackedExport, ...]

    def points(self) -> Iterator[tuple[str, float, float, int]]:
        """Yield name, value, seconds since the start, and epoch of what has a course over time."""
        seconds = 0.0
        for epoch, values in self.epochs.items():
            seconds += values.get("seconds", 0.0)
            for name, value in values.items():
                yield f"epoch/{name}", value, seconds, epoch
        for export in self.exports:
            for name, value in export.values.items():
                yield f"export {export.title}/{name}", value, seconds, self.last_epoch

    @property
    def last_epoch(self) -> int:
        """Number of the last epoch; 0 before the first."""
        return max(self.epochs, default=0)

    @property
    def digest(self) -> str:
        """A hash that changes whenever anything to be logged does."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, default=_plain)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class TrackedReport:
    """A study's report.

    Attributes:
        digest: a hash that changes whenever a run behind the report does.
        answer: the sentence that answers the study's question.
        text: the report in Markdown, without its picture.
        folder: of its files: page, pictures, tables.
    """

    digest: str
    answer: str
    text: str
    folder: Path


def tracked_runs(store: Store, study: str, run: str | None = None) -> Iterator[TrackedRun]:
    """Read the runs of a study that have a record, or one of them, in the study's order."""
    found = store.read_study(study)
    variants: dict[str, list[str]] = {}
    for name, entry in found.variants.items() if found else ():
        for one in entry["runs"].values():
            if run in {None, one}:
                variants.setdefault(one, []).append(name)
    # All runs at the end of a study; while it trains, one run at a time, which has none yet.
    exports = list(Exports(store.root).records()) if variants and run is None else []
    for one, names in variants.items():
        record = store.read(one)
        if record is not None:
            own = [export for export in exports if export.run == one]
            yield _tracked(store, record, names, own)


def _tracked(
    store: Store, record: RunRecord, variants: list[str], exports: list[ExportRecord]
) -> TrackedRun:
    epochs = epoch_rows(store, record)
    titles = Counter(map(_title, exports))
    return TrackedRun(
        run=record.run,
        name=f"{' = '.join(dict.fromkeys(variants))} seed {record.request['seed']}",
        status=record.status,
        error=record.error,
        started_at=datetime.fromisoformat(record.started_at),
        seconds=record.seconds,
        parameters=_parameters(record.settings),
        environment={k: _text(v) for k, v in record.environment.items() if v is not None},
        epochs={int(row["epoch"]): _numbers(row, _EPOCH) for row in epochs},
        final=_numbers(run_row(record), _FINAL),
        exports=tuple(_export(store, export, titles) for export in exports),
    )


def _parameters(request: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    own = {k: v for k, v in request.items() if not k.endswith(("_revision", "_version"))}
    for table in ("options", "recipe"):
        own |= {f"{table}.{key}": value for key, value in own.pop(table).items()}
    return {
        key: value if isinstance(value, str | int | float) else _text(value)
        for key, value in own.items()
        if value is not None
    }


def _title(export: ExportRecord) -> str:
    return f"{export.row['format']} {export.row['precision']}"


def _export(store: Store, export: ExportRecord, titles: Counter[str]) -> TrackedExport:
    row, folder, title = export.row, Exports(store.root).folder(export.export), _title(export)
    if titles[title] > 1:  # of other calibrations or targets
        title += f" {row['sha256'][:8]}"
    return TrackedExport(
        title=title,
        sha256=str(row["sha256"]),
        status=str(row["status"]),
        values=_numbers(row, _EXPORT),
        files=tuple(sorted(file for file in folder.iterdir() if file.is_file())),
    )


def _numbers(row: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, float]:
    """Return the values that are known and finite."""
    found = {name: row[name] for name in names if row.get(name) is not None}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _plain(value: Any) -> str:
    """Return a path's name: the place of the results folder does not change the digest."""
    return value.name if isinstance(value, Path) else str(value)
