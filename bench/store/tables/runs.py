"""The `runs` and `epochs` tables, read from the records of runs."""

from __future__ import annotations

import csv
import hashlib
import io
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import warn
from bench.store.tables.columns import COLUMNS, typed_frame
from bench.studies.recipe import recipe_name

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from bench.store import RunRecord, Store, StudyRecord

# Hidden for a dataset of generated images, where they mean nothing.
_ACCURACIES = [c for c in COLUMNS["runs"] if "accuracy" in c or "loss" in c or "gap" in c]


def run_table(
    store: Store,
    table: Literal["runs", "epochs"],
    study: StudyRecord | None = None,
    run: str | None = None,
    read: Callable[[str], RunRecord | None] | None = None,
) -> pd.DataFrame:
    """Return the `runs` or `epochs` table of a results folder, of one study, or of one run.

    A run to which several variants refer has rows for each; a run of no study has rows without
    study and variant.

    Args:
        store: the results folder.
        table: its name.
        study: include only runs of this study, in its order.
        run: include only this run.
        read: returns a run's record (default: it is read again, so a broken one warns on every
            load).
    """
    known = [name for name in store.run_ids() if run in {None, name}]
    studies = store.studies() if study is None else [study]
    order = {name: place for place, name in enumerate(known)}
    users: list[tuple[str, str | None, str | None]] = [
        (name, record.name, variant)
        for record in studies
        for variant, entry in record.variants.items()
        for name in entry["runs"].values()
        if name in order
    ]
    if study is None:
        used = {name for name, *_ in users}
        users += [(name, None, None) for name in known if name not in used]
        users.sort(key=lambda user: order[user[0]])
    records = {name: (read or store.read)(name) for name in dict.fromkeys(n for n, *_ in users)}
    rows = {name: _rows(store, table, record) for name, record in records.items()}
    return typed_frame(
        [
            {**row, "study": study_name, "variant": variant}
            for name, study_name, variant in users
            for row in rows[name]
        ],
        COLUMNS[table],
    )


def _rows(
    store: Store, table: Literal["runs", "epochs"], record: RunRecord | None
) -> list[dict[str, Any]]:
    """Return the rows of one run; none, with a warning, if its history is broken."""
    if record is None:
        return []
    return [run_row(record)] if table == "runs" else epoch_rows(store, record)


def run_row(record: RunRecord) -> dict[str, Any]:
    """Return a run's row of the `runs` table, without `study` and `variant`."""
    request, result, environment = record.request, record.result, record.environment
    row = {
        "run": record.run,
        "model": request["model"],
        "options": " ".join(f"{k}={v}" for k, v in request["options"].items()),
        "seed": request["seed"],
        "dataset": request["dataset"],
        "input_size": result.get("input_shape", [0, 0, request["input_size"]])[-1],
        "recipe": "imported" if record.imported else recipe_name(request["recipe"]),
        "status": record.status,
        "error": record.error,
        "epochs": request["recipe"]["epochs"],
        "precision": request["precision"],
        "seconds": record.seconds,
        "parent": record.parent,
        "started_at": record.started_at,
    }
    row |= {k: result.get(k) for k in COLUMNS["runs"] if k not in row and k in result}
    machine = ("device", "threads", "workers", "cpu", "gpu", "git_commit")
    row |= {k: environment.get(k) for k in machine}
    if result.get("timing_only"):
        row |= dict.fromkeys(_ACCURACIES)
    return row


def epoch_rows(store: Store, record: RunRecord) -> list[dict[str, Any]]:
    """Return the rows of one run's history; none, with a warning, if it is damaged."""
    if "history.csv" not in record.files:
        return []
    path = store.folder(record.run) / "history.csv"
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    if hashlib.sha256(content).hexdigest() != record.files["history.csv"]:
        warn(
            f"{path} is missing or damaged (its checksum differs); remove the run with "
            f"'{store.command('results', 'rm', record.run)}' and train it again"
        )
        return []
    try:
        return _history_rows(content.decode(), record)
    except (ValueError, TypeError, csv.Error) as error:  # sealed, but not as we write it
        warn(f"passing over {path}: it is no history of a run ({error})")
        return []


def _history_rows(text: str, record: RunRecord) -> list[dict[str, Any]]:
    same = {"run": record.run, "seed": record.request["seed"]}
    hidden = dict.fromkeys(_ACCURACIES) if record.result.get("timing_only") else {}
    return [
        {**same, **{k: float(v) if v else None for k, v in row.items()}, **hidden}
        for row in csv.DictReader(io.StringIO(text), strict=True)
    ]
