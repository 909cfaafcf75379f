"""Results folders as tidy pandas frames: one row an observation."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from bench.errors import BenchError, nearest
from bench.store import RunRecord, Store
from bench.store.exports import Exports
from bench.store.measurements import Measurements

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Table = Literal["runs", "epochs", "exports", "throughput"]

COLUMNS: dict[str, dict[str, str]] = {
    "runs": {
        "run": "string",
        "study": "category",
        "variant": "category",
        "model": "category",
        "options": "string",
        "seed": "Int64",
        "dataset": "category",
        "input_size": "Int64",
        "recipe": "string",
        "status": "category",
        "error": "string",
        "epochs": "Int64",
        "parameters": "Int64",
        "macs": "Int64",
        "train_accuracy": "float64",
        "validation_accuracy": "float64",
        "test_accuracy": "float64",
        "train_loss": "float64",
        "validation_loss": "float64",
        "test_loss": "float64",
        "generalization_gap": "float64",
        "images_per_second": "float64",
        "seconds": "float64",
        "parent": "string",
        "device": "category",
        "precision": "category",
        "threads": "Int64",
        "cpu": "category",
        "git_commit": "string",
        "started_at": "datetime64[ns, UTC]",
    },
    "epochs": {
        "run": "string",
        "study": "category",
        "variant": "category",
        "seed": "Int64",
        "epoch": "Int64",
        "train_loss": "float64",
        "train_accuracy": "float64",
        "validation_loss": "float64",
        "validation_accuracy": "float64",
        "test_accuracy": "float64",
        "learning_rate": "float64",
        "gradient_norm": "float64",
        "images_per_second": "float64",
        "seconds": "float64",
    },
    "exports": {
        "export": "string",
        "run": "string",
        "model": "category",
        "format": "category",
        "precision": "category",
        "target": "category",
        "opset": "Int64",
        "file": "string",
        "sha256": "string",
        "bytes": "Int64",
        "max_abs_diff": "float64",
        "max_rel_diff": "float64",
        "flipped_predictions": "Int64",
        "images_compared": "Int64",
        "torch_accuracy": "float64",
        "test_accuracy": "float64",
        "seconds": "float64",
        "cpu": "category",
        "status": "category",
        "error": "string",
        "executed_precision": "category",
    },
    "throughput": {
        "measurement": "string",
        "model": "category",
        "options": "string",
        "run": "string",
        "file_sha256": "string",
        "backend": "category",
        "provider": "string",
        "executed_precision": "category",
        "device": "category",
        "precision": "category",
        "memory_format": "category",
        "batch_size": "Int64",
        "input_size": "Int64",
        "boundary": "category",
        "scenario": "category",
        "threads": "Int64",
        "images_per_second": "float64",
        "ci_low": "float64",
        "ci_high": "float64",
        "width": "float64",
        "ratio": "float64",
        "ratio_low": "float64",
        "ratio_high": "float64",
        "reference": "string",
        "noise_floor": "float64",
        "difference": "category",
        "latency_p50_ms": "float64",
        "latency_p90_ms": "float64",
        "latency_p99_ms": "float64",
        "samples": "Int64",
        "compile_seconds": "float64",
        "macs": "Int64",
        "flops_per_second": "float64",
        "peak_fraction": "float64",
        "peak_memory_mib": "float64",
        "energy_joules_per_image": "float64",
        "test_accuracy": "float64",
        "nodes_elsewhere": "Int64",
        "cpu": "category",
        "noisy": "boolean",
        "warnings": "string",
        "status": "category",
        "error": "string",
    },
}

# Accuracy on made-up images means nothing: it is never shown.
_ACCURACIES = [c for c in COLUMNS["runs"] if "accuracy" in c or "loss" in c or "gap" in c]


def load_results(path: str | Path = "bench-runs", table: Table = "runs") -> pd.DataFrame:
    """Load one table of a results folder, of one study, or of one run.

    Args:
        path: a results folder, its `studies/NAME.json`, or one `runs/ID` folder.
        table: `runs` (a row a run and study that refers to it), `epochs`, `exports` or
            `throughput`.

    Returns:
        A frame with the columns and dtypes of `COLUMNS[table]`, also when it has no row.
        Accuracies are 0…1, seconds wall time, `macs` multiply-adds of one image.

    Raises:
        BenchError: the table is unknown or *path* does not exist.

    Broken run folders are passed over with a warning that names them.
    """
    if table not in COLUMNS:
        known = ", ".join(COLUMNS)
        raise BenchError(f"unknown table '{table}'{nearest(table, COLUMNS)} (known: {known})")
    store, study, run = _locate(Path(path))
    rows: list[dict[str, Any]] = []
    if table == "exports":
        return exports_frame(_export_rows(store, study, run))
    if table == "throughput":
        return throughput_frame(_throughput_rows(store, study, run))
    for record, places in _records(store, study, run):
        for place in places:
            rows += (
                _run_row(record, place) if table == "runs" else _epoch_rows(store, record, place)
            )
    return _frame(rows, COLUMNS[table])


def exports_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows of exports as the `exports` table; what a row lacks is missing in the frame.

    `max_rel_diff` is relative to the largest logit, `seconds` are of export and proof,
    `executed_precision` is the arithmetic that the proof ran in (a CPU computes fp16 files
    in fp32), `cpu` names the instruction sets too.
    """
    return _frame(list(rows), COLUMNS["exports"])


def _export_rows(store: Store, study: str | None, run: str | None) -> Iterator[dict[str, Any]]:
    found = store.read_study(study) if study is not None else None
    wanted = found.runs if found else ({run} if run is not None else None)
    for record in Exports(store.root).records():
        if wanted is None or record.row["run"] in wanted:
            yield record.row


def throughput_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows of measurements as the `throughput` table; what is not known is missing.

    `images_per_second` is the batch over the median time, `ci_low` and `ci_high` its 95 %
    bootstrap interval and `width` half of it, relative. `ratio` is how many times faster than
    `reference`, paired by round; `difference` is `none` where it cannot be told from the
    `noise_floor`, the difference of the reference from itself. `macs` are of one image,
    `flops_per_second` twice those a second, `peak_fraction` that over the machine's own matrix
    product in the precision that ran: Winograd convolutions, which need fewer, can pass 1.
    """
    return _frame(list(rows), COLUMNS["throughput"])


def _throughput_rows(store: Store, study: str | None, run: str | None) -> Iterator[dict[str, Any]]:
    found = store.read_study(study) if study is not None else None
    wanted = found.runs if found else ({run} if run is not None else None)
    for record in Measurements(store.root).records():
        yield from (row for row in record.rows if wanted is None or row["run"] in wanted)


def study_runs(store: Store, name: str, table: Table = "runs") -> pd.DataFrame:
    """Rows of one study, in the study's own order of variants and seeds."""
    return load_results(store.root / "studies" / f"{name}.json", table)


def _locate(path: Path) -> tuple[Store, str | None, str | None]:
    """Find the results folder that *path* is or lies in, with the study or run it names."""
    if not path.exists():
        raise BenchError(f"no results folder at {path}; 'bench run-ablation' makes one")
    if path.suffix == ".json" and path.parent.name == "studies":
        return Store(path.parent.parent), path.stem, None
    if path.parent.name == "runs" and not (path / "runs").exists():
        return Store(path.parent.parent), None, path.name
    return Store(path), None, None


def _records(
    store: Store, study: str | None, run: str | None
) -> Iterator[tuple[RunRecord, list[tuple[str | None, str | None]]]]:
    """Records with the (study, variant) pairs that refer to them."""
    unfinished = {record.run: record for record in store.unfinished()}
    if study is not None:
        found = store.read_study(study)
        for variant, entry in (found.variants if found else {}).items():
            for wanted in entry["runs"].values():
                record = store.read_run(wanted) or unfinished.get(wanted)
                if record is not None:
                    yield record, [(study, variant)]
        return
    places: dict[str, list[tuple[str | None, str | None]]] = {}
    for known in store.studies():
        for variant, entry in known.variants.items():
            for referred in entry["runs"].values():
                places.setdefault(referred, []).append((known.name, variant))
    for record in [*store.runs(), *unfinished.values()]:
        if run is None or record.run == run:
            yield record, places.get(record.run, [(None, None)])


def _run_row(record: RunRecord, place: tuple[str | None, str | None]) -> list[dict[str, Any]]:
    request, result, environment = record.request, record.result, record.environment
    row = {
        "run": record.run,
        "study": place[0],
        "variant": place[1],
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
    return [row]


def _epoch_rows(
    store: Store, record: RunRecord, place: tuple[str | None, str | None]
) -> list[dict[str, Any]]:
    if "history.csv" not in record.files:
        return []
    try:
        text = store.checked_file(record.run, "history.csv").read_text()
    except BenchError as error:
        warnings.warn(str(error), stacklevel=2)
        return []
    if not text.strip():
        return []
    same = {"run": record.run, "study": place[0], "variant": place[1]}
    same["seed"] = record.request["seed"]
    hidden = dict.fromkeys(_ACCURACIES) if record.result.get("timing_only") else {}
    rows = pd.read_csv(io.StringIO(text)).to_dict("records")
    return [{**same, **{str(k): v for k, v in row.items()}, **hidden} for row in rows]


def recipe_name(values: dict[str, Any]) -> str:
    """Name of the recipe with these values, with what was changed: `fast learning_rate=0.1`.

    The recipe that needs the fewest changes is named; epochs are a column of their own.
    """
    from bench.training.recipe import RECIPES

    def changes(name: str) -> list[str]:
        own = RECIPES[name].model_dump(mode="json")
        return [f"{k}={v}" for k, v in values.items() if k != "epochs" and own.get(k) != v]

    closest = min(RECIPES, key=lambda name: len(changes(name)))
    return " ".join([closest, *changes(closest)])


def _frame(rows: list[dict[str, Any]], columns: dict[str, str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(columns))
    times = [name for name, dtype in columns.items() if dtype.startswith("datetime")]
    for name in times:
        frame[name] = pd.to_datetime(frame[name], utc=True)
    typed: pd.DataFrame = frame.astype(columns)
    return typed
