"""Results folders as tidy pandas frames: one row per observation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.store import Store
from bench.store.analyses import Analyses
from bench.store.exports import Exports
from bench.store.files import require_results
from bench.store.measurements import Measurements
from bench.store.runs import PARTIAL
from bench.store.tables.columns import COLUMNS, RecordedTable, typed_frame
from bench.store.tables.runs import run_table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import pandas as pd

    from bench.store.analyses import AnalysisRecord

ANALYSED: tuple[RecordedTable, ...] = ("lesions", "gradients", "correlations", "landscapes")


def load_table(path: str | Path, table: RecordedTable = "runs") -> pd.DataFrame:
    """Load a recorded table of a results folder, of one study, or of one run.

    Args:
        path: a results folder, its `studies/NAME.json`, or one `runs/ID` folder.
        table: its name.

    Returns:
        A frame with the columns and dtypes of `COLUMNS[table]`, also when it has no row.

    Raises:
        BenchError: *path* does not exist.

    Broken records are skipped with a warning that names them, on every load.
    """
    store, study, run = locate(Path(path))
    found = store.read_study(study) if study is not None else None
    if study is not None and found is None:  # it is broken, of which a warning told
        return typed_frame([], COLUMNS[table])
    if table in {"runs", "epochs"}:
        return run_table(store, "epochs" if table == "epochs" else "runs", found, run)
    wanted = found.runs if found else ({run} if run is not None else None)
    if table in ANALYSED:
        return analysed_frame(Analyses(store.root).records(), table, wanted)
    if table == "exports":
        frame_of, rows = exports_frame, [record.row for record in Exports(store.root).records()]
    else:
        cold = table == "cold_starts"
        frame_of = cold_start_frame if cold else throughput_frame
        records = Measurements(store.root).records()
        rows = [row for one in records for row in (one.cold_starts if cold else one.rows)]
    return frame_of(row for row in rows if wanted is None or row["run"] in wanted)


def exports_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return rows of exports as the `exports` table; absent values are missing."""
    return typed_frame(list(rows), COLUMNS["exports"])


def analysed_frame(
    records: Iterable[AnalysisRecord], table: RecordedTable, runs: Collection[str] | None = None
) -> pd.DataFrame:
    """Return rows of analyses as one of the tables `ANALYSED`, in the order of the records.

    Args:
        records: analyses.
        table: one of `ANALYSED`.
        runs: include only rows of these runs (default: all rows).
    """
    rows = [
        {"analysis": record.analysis, **row}
        for record in records
        for row in record.tables.get(table, ())
        if runs is None or row.get("run") in runs
    ]
    return typed_frame(rows, COLUMNS[table])


def newest(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of each run's last analysis; a landscape's lines and planes count apart."""
    keys = [frame["run"]]
    if "y" in frame:
        keys.append(frame["y"].isna())
    last = frame["analysis"].groupby(keys, sort=False).transform("last")
    return frame[frame["analysis"] == last]


def throughput_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return rows of measurements as the `throughput` table; absent values are missing."""
    # Measurements made before there were several streams do not name their number.
    return typed_frame([{"streams": 1, **row} for row in rows], COLUMNS["throughput"])


def cold_start_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return rows of measurements as the `cold_starts` table; absent values are missing."""
    return typed_frame(list(rows), COLUMNS["cold_starts"])


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as JSON values: missing is null, times are ISO 8601."""
    rows: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", date_format="iso"))
    for name in map(
        str, frame.select_dtypes("float").columns
    ):  # which pandas rounds to ten decimal places
        for row, value in zip(rows, frame[name], strict=True):
            row[name] = None if row[name] is None else float(value)
    return rows


def study_runs(store: Store, name: str, table: RecordedTable = "runs") -> pd.DataFrame:
    """Return a table's rows of one study, in the study's order of variants and seeds."""
    return load_table(store.root / "studies" / f"{name}.json", table)


def locate(path: Path) -> tuple[Store, str | None, str | None]:
    """Return the results folder of *path*, and the name of the study or run if it is one's."""
    require_results(path)
    if path.suffix == ".json" and path.parent.name == "studies":
        return Store(path.parent.parent), path.stem, None
    # A run has files only: a results folder may lie in one that is called `runs`, too.
    files_only = path.is_dir() and not any(entry.is_dir() for entry in path.iterdir())
    if path.parent.name == "runs" and files_only:
        return Store(path.parent.parent), None, path.name.removesuffix(PARTIAL)
    return Store(path), None, None
