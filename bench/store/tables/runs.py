"""Rows of the `runs` and `epochs` tables, made from the records of runs."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import time
import warnings
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from bench.store.index import are_settled, rows_of, signs_of
from bench.store.runs import PARTIAL, UNFINISHED
from bench.store.tables.columns import CATEGORIES, COLUMNS, typed_frame
from bench.store.tables.references import Appearances, appearances
from bench.studies.recipe import RECIPES, recipe_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.store import RunRecord, Store

Trained = Literal["runs", "epochs"]

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
    wanted = appearances(store, study, run)
    unique = list(dict.fromkeys(wanted.folders))
    started = time.time_ns()
    signs = signs_of(store.root / "runs", _files(unique, table), len(unique))
    key = (str(store.root.absolute()), table, study, run)
    recent = _RECENT.get(key)
    if recent is not None and recent.wanted == wanted and np.array_equal(recent.signs, signs):
        return _copied(recent.frame)

    def make(some: Sequence[str]) -> tuple[pa.Table, list[int]]:
        made = [_rows(store, table, folder) for folder in some]
        frame = typed_frame([row for rows in made for row in rows], COLUMNS[table])
        return pa.Table.from_pandas(frame, _schema(table), preserve_index=False), [*map(len, made)]

    rows, counts = rows_of(
        unique, signs, make,
        path=store.root / ".index" / f"{table}.arrow",
        version=_version(table),
        write=study is None and run is None,
        started=started,
    )  # fmt: skip
    frame = _placed(rows, counts, _places(unique, wanted.folders), wanted, table)
    _RECENT.pop(key, None)
    if counts.all() and are_settled(signs, started).all():  # else something is to be said again
        _RECENT[key] = _Recent(wanted, signs, _copied(frame))
        if len(_RECENT) > MOST_RECENT:
            del _RECENT[next(iter(_RECENT))]
    return frame


def _copied(frame: pd.DataFrame) -> pd.DataFrame:
    """Copy a frame so that changing one does not change the other."""
    return frame.copy(deep=not _COPIES_ON_WRITE)


@dataclass(frozen=True)
class _Recent:
    """A table as it was last returned, and everything that it depends on."""

    wanted: Appearances
    signs: np.ndarray
    frame: pd.DataFrame


# One report asks for the same table many times.
MOST_RECENT = 4
_COPIES_ON_WRITE = int(pd.__version__.partition(".")[0]) >= 3  # noqa: PLR2004 - pandas 3
_RECENT: dict[tuple[str, str, str | None, str | None], _Recent] = {}


def forget() -> None:
    """Forget the tables returned lately: the next ones come from the index or the records."""
    _RECENT.clear()


def _files(folders: list[str], table: Trained) -> list[str]:
    """Paths of all that the rows of each folder depend on; as many for every folder."""
    record, unfinished = f"{os.sep}run.json", f"{os.sep}{UNFINISHED}"
    records = [folder + (unfinished if folder.endswith(PARTIAL) else record) for folder in folders]
    if table == "runs":
        return records
    histories = [f"{folder}{os.sep}history.csv" for folder in folders]
    return [path for pair in zip(records, histories, strict=True) for path in pair]


def _places(unique: list[str], folders: list[str]) -> np.ndarray:
    """Where each folder stands among the unique ones."""
    if len(unique) == len(folders):
        return np.arange(len(folders))
    place = {folder: i for i, folder in enumerate(unique)}
    return np.array([place[folder] for folder in folders], dtype=np.int64)


def _placed(
    rows: pa.Table, counts: np.ndarray, which: np.ndarray, wanted: Appearances, table: Trained
) -> pd.DataFrame:
    """Give every appearance of a run its rows, with its study and variant, typed.

    Args:
        rows: of every run, one run's after another's.
        counts: rows a run.
        which: run of every appearance.
        wanted: the appearances.
        table: which table the rows are of.
    """
    lengths = counts[which]
    if not np.array_equal(which, np.arange(len(counts))):
        first = (np.cumsum(counts) - counts)[which]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows = rows.take(np.repeat(first, lengths) + within)
    placed = {"study": wanted.studies, "variant": wanted.variants}
    columns = {
        name: _categories(placed[name], np.arange(len(which)), lengths)
        if name in placed
        else _typed(rows[name], kind)
        for name, kind in COLUMNS[table].items()
    }
    return pd.DataFrame(columns, copy=False)


def _typed(column: pa.ChunkedArray, kind: str) -> Any:
    """One column in its dtype, by the shortest way: a frame's own conversions take far longer."""
    if kind == "category":
        encoded = column.combine_chunks().dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return _categories(encoded.dictionary.to_pylist(), codes)
    if kind in {"Int64", "string"}:
        dtype: Any = pd.Int64Dtype() if kind == "Int64" else pd.StringDtype()
        return dtype.__from_arrow__(column)
    values = column.to_numpy()
    return values if kind == "float64" else pd.to_datetime(values, utc=True).array


def _categories(
    values: list[str | None], codes: np.ndarray, lengths: np.ndarray | None = None
) -> pd.Categorical:
    """Return `values[codes]` as categories in the order of the alphabet; -1 and None are missing.

    Args:
        values: what is chosen from; a value may be there twice.
        codes: place in *values* of each element.
        lengths: how often each element is repeated; once without.
    """
    names = sorted(set(values) - {None})  # type: ignore[type-var]
    place = {name: i for i, name in enumerate(names)}
    known = [place.get(value, -1) for value in values] if names else [-1] * len(values)
    found = np.array([*known, -1], dtype=np.int64)
    chosen = found[codes]  # the code -1 takes the last, which is missing
    if lengths is not None:
        chosen = np.repeat(chosen, lengths)
    return pd.Categorical.from_codes(chosen, categories=pd.Index(names, dtype=CATEGORIES))


def _schema(table: Trained) -> pa.Schema:
    return pa.schema([(name, _TYPES[kind]) for name, kind in COLUMNS[table].items()])


@cache
def _version(table: Trained) -> str:
    """Everything that decides how a record becomes rows."""
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
