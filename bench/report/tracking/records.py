"""The runs and the report of a study as trackers log them, read from the results folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.store.exports import Exports
from bench.store.tables.columns import COLUMNS
from bench.store.tables.frames import load_results

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    import pandas as pd

    from bench.store import RunRecord, Store

_FINAL = tuple(
    name
    for name, kind in COLUMNS["runs"].items()
    if kind in {"float64", "Int64"} and name not in {"seed", "input_size", "epochs", "threads"}
)
_EPOCH = tuple(
    name
    for name, kind in COLUMNS["epochs"].items()
    if kind == "float64"  # numbers of runs and epochs are integers
)
_EXPORT = (
    "bytes",
    "max_abs_diff",
    "max_rel_diff",
    "flipped_predictions",
    "images_compared",
    "torch_accuracy",
    "test_accuracy",
    "seconds",
)
_REQUESTED = (
    "model",
    "dataset",
    "train_images",
    "input_size",
    "seed",
    "precision",
    "deterministic",
    "initial_weights",
    "grown_from",
)


@dataclass(frozen=True)
class TrackedExport:
    """One exported file.

    Attributes:
        title: format and precision, as a heading.
        sha256: SHA-256 of the file.
        status: complete, or how it failed.
        values: its numbers from the `exports` table.
        files: every file of its folder.
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
        run: the run's id.
        name: variant and random seed.
        status: as in the `runs` table.
        error: why it is not complete, or None.
        started_at: UTC.
        seconds: training time.
        parameters: the run's request, flat.
        environment: versions and hardware.
        epochs: number of the epoch → its values.
        final: values of the trained network.
        exports: files exported from it.
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

    @property
    def digest(self) -> str:
        """A hash that changes whenever anything logged changes."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, default=_plain)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class TrackedReport:
    """A study's report.

    Attributes:
        digest: a hash that changes whenever one of its runs does.
        answer: the sentence that answers the study's question.
        text: the report in Markdown, without its picture.
        folder: folder of its files: page, pictures, tables.
    """

    digest: str
    answer: str
    text: str
    folder: Path


def tracked_runs(store: Store, study: str, run: str | None = None) -> Iterator[TrackedRun]:
    """Yield the recorded runs of a study, or one of them, in the study's order."""
    place = store.root / "studies" / f"{study}.json"
    if run is not None:
        place = store.folder(run) if store.folder(run).is_dir() else store.partial(run)
    if not place.exists():
        return
    rows = load_results(place)
    epochs = _by_run(load_results(place, "epochs"))
    exports = _by_run(load_results(place, "exports"))
    for name, rows_of_run in _by_run(rows[rows["study"] == study]).items():
        record = store.read(name)
        if record is not None:
            yield _tracked(store, record, rows_of_run, epochs.get(name), exports.get(name))


def _by_run(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    groups = frame.groupby("run", sort=False, observed=True)
    return {str(name): rows for name, rows in groups}


def _tracked(
    store: Store,
    record: RunRecord,
    rows_of_run: pd.DataFrame,
    epochs: pd.DataFrame | None,
    exports: pd.DataFrame | None,
) -> TrackedRun:
    row = rows_of_run.iloc[0]
    variants = " = ".join(dict.fromkeys(map(str, rows_of_run["variant"])))
    history = [] if epochs is None else epochs.drop_duplicates("epoch").to_dict("records")
    files = [] if exports is None else exports.to_dict("records")
    return TrackedRun(
        run=record.run,
        name=f"{variants} seed {row['seed']}",
        status=record.status,
        error=record.error,
        started_at=row["started_at"].to_pydatetime(),
        seconds=record.seconds,
        parameters=_parameters(record.request),
        environment={k: _text(v) for k, v in record.environment.items() if v is not None},
        epochs={int(values["epoch"]): _numbers(values, _EPOCH) for values in history},
        final=_numbers(row, _FINAL),
        exports=tuple(_export(store, values) for values in files),
    )


def _parameters(request: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Return a request as a flat dictionary, with options and recipe values by name."""
    values = {key: request.get(key) for key in _REQUESTED}
    values |= {f"options.{key}": value for key, value in request["options"].items()}
    values |= {f"recipe.{key}": value for key, value in request["recipe"].items()}
    return {
        key: value if isinstance(value, str | int | float) else _text(value)
        for key, value in values.items()
        if value is not None
    }


def _export(store: Store, row: Any) -> TrackedExport:
    folder = Exports(store.root).folder(str(row["export"]))
    return TrackedExport(
        title=f"{row['format']} {row['precision']}",
        sha256=str(row["sha256"]),
        status=str(row["status"]),
        values=_numbers(row, _EXPORT),
        files=tuple(sorted(f for f in folder.iterdir() if f.is_file())) if folder.is_dir() else (),
    )


def _numbers(row: Any, names: tuple[str, ...]) -> dict[str, float]:
    """Return the values that are present and finite."""
    import pandas as pd

    found = {name: row[name] for name in names if not pd.isna(row[name])}
    return {name: float(v) for name, v in found.items() if math.isfinite(v)}


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _plain(value: Any) -> str:
    """Return a path's name alone: the place of the results folder does not change a digest."""
    return value.name if isinstance(value, Path) else str(value)
