"""Rows of the `runs` and `epochs` tables, made from the records of runs."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from bench.report.columns import COLUMNS, typed_frame
from bench.store.index import rows_of
from bench.store.runs import PARTIAL, UNFINISHED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.store import RunRecord, Store

Trained = Literal["runs", "epochs"]
Place = tuple[str | None, str | None]  # study and variant that refer to a run

INDEX_REVISION = 1  # raised when the same records would give other rows

# Accuracy on made-up images means nothing: it is never shown.
_ACCURACIES = [c for c in COLUMNS["runs"] if "accuracy" in c or "loss" in c or "gap" in c]
_TYPES = {
    "string": pa.string(), "category": pa.string(), "Int64": pa.int64(), "float64": pa.float64(),
    "datetime64[ns, UTC]": pa.timestamp("ns", "UTC"),
}  # fmt: skip


def trained_frame(
    store: Store, table: Trained, study: str | None = None, run: str | None = None
) -> pd.DataFrame:
    """Return the `runs` or `epochs` table of a results folder, of one study, or of one run."""
    folders, places = _wanted(store, study, run)
    runs = store.root / "runs"
    unique = list(dict.fromkeys(folders))

    def files(folder: str) -> list[str]:
        names = [UNFINISHED] if folder.endswith(PARTIAL) else ["run.json"]
        names += ["history.csv"] if table == "epochs" else []
        return [f"{runs}{os.sep}{folder}{os.sep}{name}" for name in names]

    def make(some: Sequence[str]) -> tuple[pa.Table, list[int]]:
        made = [_rows(store, table, folder) for folder in some]
        frame = typed_frame([row for rows in made for row in rows], COLUMNS[table])
        return pa.Table.from_pandas(frame, _schema(table), preserve_index=False), [*map(len, made)]

    rows, counts = rows_of(
        unique, files, make,
        path=store.root / ".index" / f"{table}.arrow",
        version=_version(table),
        write=study is None and run is None,
    )  # fmt: skip
    starts = dict(zip(unique, zip(np.cumsum(counts) - counts, counts, strict=True), strict=True))
    return _placed(rows, [starts[folder] for folder in folders], places, table)


def _wanted(store: Store, study: str | None, run: str | None) -> tuple[list[str], list[Place]]:
    """Folders whose rows are wanted, one an appearance, with the study and variant of each."""
    finished, begun = _names(store.root / "runs")
    folder_of = {name: name for name in finished} | {
        name: name + PARTIAL for name in begun if name not in finished
    }
    pairs: list[tuple[str, Place]]
    if study is not None:
        found = store.read_study(study)
        pairs = [
            (folder_of[wanted], (study, variant))
            for variant, entry in (found.variants if found else {}).items()
            for wanted in entry["runs"].values()
            if wanted in folder_of
        ]
    else:
        referred: dict[str, list[Place]] = {}
        for record in store.studies():
            for variant, entry in record.variants.items():
                for name in entry["runs"].values():
                    referred.setdefault(name, []).append((record.name, variant))
        pairs = [
            (folder, place)
            for name, folder in folder_of.items()
            if run is None or run in {name, folder}
            for place in referred.get(name, [(None, None)])
        ]
    return [folder for folder, _ in pairs], [place for _, place in pairs]


def _names(runs: Path) -> tuple[dict[str, None], list[str]]:
    """Names of finished and of begun runs, in order."""
    if not runs.is_dir():
        return {}, []
    with os.scandir(runs) as entries:
        names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    finished = dict.fromkeys(name for name in names if not name.endswith(PARTIAL))
    return finished, [n.removesuffix(PARTIAL) for n in names if n.endswith(PARTIAL)]


def _placed(
    rows: pa.Table, spans: list[tuple[int, int]], places: list[Place], table: Trained
) -> pd.DataFrame:
    """Give every appearance of a run its rows, with its study and variant, typed."""
    first, lengths = np.array(spans, dtype=np.int64).reshape(-1, 2).T
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    taken = rows.take(np.repeat(first, lengths) + within)
    for column, position in (("study", 0), ("variant", 1)):
        names = pa.array([place[position] for place in places], pa.string())
        values = names.take(pa.array(np.repeat(np.arange(len(places)), lengths)))
        taken = taken.set_column(taken.column_names.index(column), column, values)
    kinds = COLUMNS[table]
    for i, name in enumerate(taken.column_names):
        if kinds[name] == "category":
            taken = taken.set_column(i, name, taken[name].combine_chunks().dictionary_encode())
    mapped = {pa.int64(): pd.Int64Dtype(), pa.string(): pd.StringDtype()}
    frame: pd.DataFrame = taken.to_pandas(types_mapper=mapped.get).astype(
        {name: kind for name, kind in kinds.items() if kind != "category"}
    )
    for name in (n for n, kind in kinds.items() if kind == "category"):
        frame[name] = frame[name].cat.set_categories(sorted(frame[name].cat.categories))
    return frame


def _schema(table: Trained) -> pa.Schema:
    return pa.schema([(name, _TYPES[kind]) for name, kind in COLUMNS[table].items()])


def _version(table: Trained) -> str:
    """Everything that decides how a record becomes rows."""
    from importlib.metadata import version

    from bench.training.recipe import RECIPES

    recipes = {name: recipe.model_dump(mode="json") for name, recipe in RECIPES.items()}
    parts = [INDEX_REVISION, version("resnet-bench"), pd.__version__, COLUMNS[table], recipes]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _rows(store: Store, table: Trained, folder: str) -> list[dict[str, Any]]:
    """Rows of one run's folder; none, with a warning, if it is broken."""
    if folder.endswith(PARTIAL):
        record = store.read_unfinished(folder.removesuffix(PARTIAL))
    else:
        record = store.read_run(folder)
    if record is None:
        return []
    if table == "runs":
        return [_run_row(record)]
    return epoch_rows(store.root / "runs" / folder, record)


def _run_row(record: RunRecord) -> dict[str, Any]:
    request, result, environment = record.request, record.result, record.environment
    row = {
        "run": record.run,
        "model": request["model"],
        "options": " ".join(f"{k}={v}" for k, v in request["options"].items()),
        "seed": request["seed"],
        "dataset": request["dataset"],
        "input_size": result.get("input_shape", [0, 0, request["input_size"]])[-1],
        "recipe": recipe_name(request["recipe"]),
        "status": record.status,
        "error": record.error,
        "epochs": request["recipe"]["epochs"],
        "precision": request["precision"],
        "seconds": record.seconds,
        "parent": record.parent,
        "started_at": record.started_at,
    }
    row |= {k: result.get(k) for k in COLUMNS["runs"] if k not in row and k in result}
    row |= {k: environment.get(k) for k in ("device", "threads", "cpu", "git_commit")}
    if result.get("timing_only"):
        row |= dict.fromkeys(_ACCURACIES)
    return row


def epoch_rows(folder: Path, record: RunRecord) -> list[dict[str, Any]]:
    """Rows of one run's history; none, with a warning, if it is damaged."""
    if "history.csv" not in record.files:
        return []
    path = folder / "history.csv"
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    if hashlib.sha256(content).hexdigest() != record.files["history.csv"]:
        warnings.warn(
            f"{path} is missing or damaged (its checksum differs); remove the run with "
            f"'bench results rm {record.run}' and train it again",
            stacklevel=2,
        )
        return []
    try:
        return _history_rows(content.decode(), record)
    except (ValueError, TypeError, csv.Error) as error:  # sealed, but not as we write it
        warnings.warn(f"passing over {path}: it is no history of a run ({error})", stacklevel=2)
        return []


def _history_rows(text: str, record: RunRecord) -> list[dict[str, Any]]:
    same = {"run": record.run, "seed": record.request["seed"]}
    hidden = dict.fromkeys(_ACCURACIES) if record.result.get("timing_only") else {}
    return [
        {**same, **{k: float(v) if v else None for k, v in row.items()}, **hidden}
        for row in csv.DictReader(io.StringIO(text), strict=True)
    ]


def recipe_name(values: dict[str, Any]) -> str:
    """Name of the recipe with these values, with what was changed: `fast learning_rate=0.1`.

    The recipe that needs the fewest changes is named; epochs are a column of their own.
    """
    return _recipe_name(json.dumps(values))  # hashable: most runs share a recipe


@lru_cache(maxsize=1024)
def _recipe_name(text: str) -> str:
    values = json.loads(text)
    from bench.training.recipe import RECIPES

    def changes(name: str) -> list[str]:
        own = RECIPES[name].model_dump(mode="json")
        return [f"{k}={v}" for k, v in values.items() if k != "epochs" and own.get(k) != v]

    closest = min(RECIPES, key=lambda name: len(changes(name)))
    return " ".join([closest, *changes(closest)])
