"""Which measured network to ship: bounds, the Pareto front, and one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.errors import BenchError
from bench.measurement.timing.percentiles import honest_count
from bench.store.exports import Exports
from bench.store.tables.frames import load_results, study_runs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.store import Store

_ENOUGH = "--scenario single-stream --batch-size 1, or a longer --max-seconds"
_PLACE = ["device", "cpu", "threads"]
_SAME = [
    "model",
    "options",
    "run",
    "file_sha256",
    "backend",
    "precision",
    "memory_format",
    "batch_size",
    "input_size",
    "input_shape",
    "boundary",
    "scenario",
]


@dataclass(frozen=True)
class Choice:
    """The chosen configuration, and those it was chosen among.

    Attributes:
        rows: the measured configurations with `latency_ms` (p99, of a batch), `drop_points`
            (points of test accuracy below the most accurate, which may be among those left out),
            `bytes`, `front` (no other is at once as accurate, as quick and as fast) and
            `fits`; fastest first.
        chosen: the row to ship, or None.
        sentence: the answer.
        passed_over: why measured rows were left out → how many.
    """

    rows: pd.DataFrame
    chosen: dict[str, Any] | None
    sentence: str
    passed_over: dict[str, int]


def measured_rows(store: Store, study: str | None = None) -> pd.DataFrame:
    """Return the `throughput` table with the `dataset` and file size in `bytes` of each row.

    Args:
        store: the results folder.
        study: only rows of this study's runs; all rows if None.

    Raises:
        BenchError: there is no such study.
    """
    name = None if study is None else store.find_study(study).name
    rows = (
        load_results(store.root, "throughput")
        if name is None
        else study_runs(store, name, "throughput")
    )
    sizes = {r.row["sha256"]: r.row["bytes"] for r in Exports(store.root).records()}
    records = {run: store.read_run(run) for run in rows["run"].dropna().unique()}
    datasets = {run: record.request["dataset"] for run, record in records.items() if record}
    rows["bytes"] = rows["file_sha256"].map(sizes).astype("Int64")
    rows["dataset"] = rows["run"].map(datasets)
    return rows


def choose(rows: pd.DataFrame, *, max_latency_ms: float, max_accuracy_drop: float) -> Choice:
    """Choose the fastest measured configuration within a latency and an accuracy.

    Every row's accuracy is that of the very file or network that was timed. Only rows of one
    machine, the one measured last, are compared; of repeated ones the newest counts.

    Args:
        rows: of `measured_rows`.
        max_latency_ms: of a batch, at the 99th percentile.
        max_accuracy_drop: points of test accuracy below the most accurate row of that machine,
            also if its speed cannot be trusted.

    Raises:
        BenchError: nothing comparable was measured, or the rows are of several datasets.
    """
    rows, best, passed_over = _candidates(rows)
    rows = rows.drop(columns="dataset")
    rows["latency_ms"] = rows["latency_p99_ms"]
    rows["drop_points"] = (best["test_accuracy"] - rows["test_accuracy"]) * 100
    rows["front"] = [_undominated(row, rows) for _, row in rows.iterrows()]
    # 99.0 - 98.5 is a little more than 0.5 in binary.
    rows["fits"] = (rows["latency_ms"] <= max_latency_ms) & (
        rows["drop_points"] <= max_accuracy_drop + 1e-9
    )
    rows = rows.sort_values(["images_per_second", "test_accuracy"], ascending=False)
    fitting = rows[rows["fits"]]
    if len(fitting):
        chosen = {str(k): v for k, v in fitting.iloc[0].items()}
        sentence = (
            f"Ship {describe(chosen)}: {chosen['images_per_second']:,.4g} images/s, p99 "
            f"{chosen['latency_ms']:.3g} ms, test accuracy {chosen['test_accuracy'] * 100:.2f} %, "
            f"{chosen['drop_points']:.2f} points below the most accurate measured, "
            f"{describe(best)}; the fastest of {len(fitting)} that fit, among {len(rows)}."
        )
        return Choice(rows, chosen, sentence, passed_over)
    sentence = _nothing(rows, max_latency_ms, max_accuracy_drop)
    if rows["drop_points"].min() > 0:
        sentence += f" The most accurate, {describe(best)}, is among those left out."
    return Choice(rows, None, sentence, passed_over)


def describe(row: Mapping[Any, Any]) -> str:
    """Name a measured configuration: network, precision, backend, batch size."""
    name = row["run"] if isinstance(row["run"], str) else row["model"]
    scenario = "" if row["scenario"] == "offline" else f", {row['scenario']}"
    return f"{name} in {row['precision']} on {row['backend']}, batch {row['batch_size']}{scenario}"


def _candidates(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[Any, Any], dict[str, int]]:
    """Return rows to choose among, the most accurate of their machine, and why others are out."""
    passed_over: dict[str, int] = {}
    accurate = frame[(frame["status"] == "complete") & frame["test_accuracy"].notna()]
    for reason, fine in _filters(frame).items():
        kept = fine.reindex(frame.index)
        if not kept.all():
            passed_over[reason] = int((~kept).sum())
        frame = frame[kept]
    if frame.empty:
        reasons = "; ".join(f"{n} {reason}" for reason, n in passed_over.items())
        raise BenchError(
            f"nothing to choose from{f' ({reasons})' if reasons else ''}; measure exported runs "
            "first: bench export-onnx STUDY, then bench throughput STUDY"
        )
    last = frame.sort_values("measurement").iloc[-1]
    here = _of_the_place(frame, last)
    if len(here) < len(frame):
        passed_over["of another machine or number of threads"] = len(frame) - len(here)
    newest = _newest(here)
    if len(newest) < len(here):
        passed_over["measured again later"] = len(here) - len(newest)
    datasets = sorted(newest["dataset"].dropna().unique())
    if len(datasets) > 1:
        raise BenchError(
            f"the measured runs are of {len(datasets)} datasets ({', '.join(datasets)}), whose "
            "accuracies do not compare; name one study with --study"
        )
    accurate = _of_the_place(accurate, last)
    accurate = accurate[accurate["dataset"].isin(datasets) | accurate["dataset"].isna()]
    # If a network was exported again since, the older file can no longer be shipped.
    accurate = _newest(accurate, [name for name in _SAME if name != "file_sha256"])
    best = accurate.sort_values("test_accuracy").iloc[-1]
    return newest, best.to_dict(), passed_over


def _of_the_place(frame: pd.DataFrame, row: pd.Series[Any]) -> pd.DataFrame:
    return frame[(frame[_PLACE].astype(str) == row[_PLACE].astype(str)).all(axis=1)]


def _newest(frame: pd.DataFrame, same: list[str] = _SAME) -> pd.DataFrame:
    frame = frame.sort_values("measurement")
    return frame[~frame[same].astype(str).duplicated(keep="last")].copy()


def _filters(frame: pd.DataFrame) -> dict[str, pd.Series[bool]]:
    return {
        "did not run": frame["status"] == "complete",
        "without a test accuracy": frame["test_accuracy"].notna(),
        f"without a p99, which needs {honest_count(0.99)} batches ({_ENOUGH})": frame[
            "latency_p99_ms"
        ].notna(),
        "noisy": ~frame["noisy"].fillna(value=False).astype(bool),
    }


def _undominated(row: pd.Series[Any], rows: pd.DataFrame) -> bool:
    """Whether no other row is as good in all of accuracy, latency and speed, and better in one."""
    gains = pd.DataFrame(
        {
            "accuracy": rows["test_accuracy"] - row["test_accuracy"],
            "latency": row["latency_ms"] - rows["latency_ms"],
            "speed": rows["images_per_second"] - row["images_per_second"],
        }
    )
    return not bool(((gains >= 0).all(axis=1) & (gains > 0).any(axis=1)).any())


def _nothing(rows: pd.DataFrame, max_latency: float, max_drop: float) -> str:
    """Say that nothing fits, and what comes nearest from either side."""
    quick = rows[rows["latency_ms"] <= max_latency]
    right = rows[rows["drop_points"] <= max_drop + 1e-9]
    parts = [
        f"Nothing of {len(rows)} measured fits within {max_latency:g} ms and {max_drop:g} points"
    ]
    if len(quick):
        best = quick.sort_values("test_accuracy").iloc[-1].to_dict()
        parts.append(f"within the latency {describe(best)} loses {best['drop_points']:.2f} points")
    if len(right):
        best = right.sort_values("latency_ms").iloc[0].to_dict()
        parts.append(f"within the accuracy {describe(best)} takes {best['latency_ms']:.3g} ms")
    return "; ".join(parts) + "."
