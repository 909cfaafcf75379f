"""Which measured network to ship: bounds, the Pareto front, and one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.errors import BenchError
from bench.export.settings import Settings
from bench.measurement.ranking import fastest_of
from bench.measurement.timing.percentiles import bounding_count
from bench.report.findings.fastest import case, layout_and_streams, network_name, rounded
from bench.store.exports import Exports, outdated_files
from bench.store.runs import short_hash
from bench.store.tables.frames import load_table, rows_of, study_runs
from bench.studies import ADHOC
from bench.system.guessing import ROUNDING
from bench.system.intervals import FEWEST_PROCESSES, share_interval
from bench.system.processor_use import too_busy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.store import Store
    from bench.store.exports import ExportRecord

_FEW_PROCESSES = f"fewer than {FEWEST_PROCESSES} processes"

# Note of a row that cannot be chosen → what it means, and what helps.
REASONS = {
    "no p99": "a p99 needs {count} batches: measure with --scenario single-stream --batch-size 1, "
    "or a longer --max-seconds",
    "noisy": "times are multiples of a time slice, a server rate has no p99, or there is no ratio "
    "and the interval of images/s is too wide: measure while nothing else runs, or with a longer "
    "--max-seconds",
    _FEW_PROCESSES: "nothing is claimed from so few: measure with --processes auto, the default",
    "busy": "other processes used too much of the processor meanwhile: stop them, measure again",
    "no accuracy": "the accuracy of the network or file itself is not known: measure a run (bench "
    "import makes one of a trained network), or a file that bench export-onnx made and tested",
    "other dataset": "its accuracy is of other images than that of the others",
    "other measurement": "images/s of different measurements do not compare: measure all in one "
    "bench throughput (bench tune for several numbers of threads)",
}
_SHIPPABLE = ("onnx", "complete")  # format and status of an export
_PLURALS = {"boundary": "boundaries", "scenario": "scenarios"}
_PLACE = ["device", "cpu", "gpu"]
_SAME = [
    "threads",
    "model",
    "options",
    "run",
    "file_sha256",
    "backend",
    "precision",
    "memory_format",
    "streams",
    "batch_size",
    "input_size",
    "input_shape",
    "boundary",
    "scenario",
    "latency_bound_ms",
]


@dataclass(frozen=True)
class Choice:
    """The chosen configuration, and those it was chosen among.

    Attributes:
        rows: the measured configurations, fastest first, with `latency_ms` (of a batch: the
            upper 95 % bound of p99),
            `drop_points` (points of accuracy below the most accurate), `accuracy_low` and
            `accuracy_high` (95 % interval of the test accuracy), `bytes`, `note` (why the row
            cannot be chosen, of `REASONS`; empty if it can), `front` (no other of the same
            measurement that can be chosen is at once as accurate, as low in latency and as fast),
            `mixed_threads` (whether some of them ran with another number of threads),
            `mixed_files` (whether another file has the row's name), `fits` and `chosen`.
        chosen: the row to ship, or None.
        sentence: the answer.
        passed_over: why measured rows are not among `rows` → how many.
    """

    rows: pd.DataFrame
    chosen: dict[str, Any] | None
    sentence: str
    passed_over: dict[str, int]

    @property
    def reasons(self) -> list[str]:
        """What each note of the rows means, with the number of rows that have it."""
        counts = self.rows["note"].value_counts()
        return [
            f"{counts[note]} {note}: {text.format(count=bounding_count(0.99))}"
            for note, text in REASONS.items()
            if note in counts
        ]


def measured_rows(store: Store, study: str | None = None) -> pd.DataFrame:
    """Return the `throughput` table with the `dataset` and file size in `bytes` of each row.

    Args:
        store: the results folder.
        study: only rows of this study's runs; all rows if None.

    Raises:
        BenchError: there is no such study, or nothing was measured.
    """
    if study is None:
        rows = load_table(store.root, "throughput")
    else:
        rows = study_runs(store, store.find_study(study).name, "throughput")
    if not (rows["status"] == "complete").any():
        tried = f" ({len(rows)} did not run)" if len(rows) else ""
        raise BenchError(f"nothing to choose from{tried}; {_missing(store, study)}")
    old = outdated_files(store, set(rows["run"].dropna()))
    rows = rows[~rows["file_sha256"].isin(old)].copy()
    files = Exports(store.root).known_files()
    sizes, tested, data = (
        {sha256: known.get(name) for sha256, known in files.items()}
        for name in ("bytes", "test_accuracy", "dataset")
    )
    records = {run: store.read_run(run) for run in rows["run"].dropna().unique()}
    datasets = {run: record.request["dataset"] for run, record in records.items() if record}
    imported = [run for run, record in records.items() if record and record.imported]
    # Older rows have one, of images that the network may have been trained on.
    rows.loc[rows["run"].isin(imported), "validation_accuracy"] = float("nan")
    rows["variant"] = rows["run"].map(store.variants_of_runs()).astype(object)
    rows["bytes"] = rows["file_sha256"].map(sizes).astype("Int64")
    # The test of an export is ONNX Runtime's.
    runtime = rows["backend"] == "onnxruntime"
    of_file = rows["file_sha256"].map(tested).astype("float64").where(runtime)
    rows["test_accuracy"] = rows["test_accuracy"].fillna(of_file)
    of_run = rows["run"].map(datasets).astype(object)
    known = rows["dataset"].astype(object).fillna(of_run)
    rows["dataset"] = known.fillna(rows["file_sha256"].map(data).astype(object))
    return rows


def _missing(store: Store, study: str | None) -> str:
    """Say what is missing before one can choose, with the command."""
    exports = Exports(store.root)
    made = [e for e in exports.records() if (e.row.get("format"), e.row["status"]) == _SHIPPABLE]
    of_runs, of_files = [e for e in made if e.run], [e for e in made if "file_sha256" in e.request]
    if study is not None:
        own = store.find_study(study).runs
        of_runs, of_files = [e for e in of_runs if e.run in own], []
    if of_runs:
        usual = [e for e in of_runs if _has_usual_settings(e)]
        runs = {str(e.run) for e in of_runs}
        if usual == of_runs:
            targets = [study] if study else _named(store, runs)
            precisions = dict.fromkeys(["fp32", *(str(e.row["precision"]) for e in usual)])
            targets += [word for one in precisions for word in ("--precision", one)]
        else:  # each by its file, but for those that the runs give
            given = [e for e in usual if e.row["precision"] == "fp32"]
            targets = [*map(short_hash, sorted(runs))]
            targets += [str(exports.file(e)) for e in of_runs if e not in given]
    else:
        sources = [str(e.proof["source"]) for e in of_files if Path(e.proof["source"]).is_file()]
        targets = [*dict.fromkeys(sources), *(str(exports.file(e)) for e in of_files)]
    count = len(of_runs) or len(of_files)
    measure = ("--scenario", "single-stream", "--batch-size", "1")
    if not count:
        name = study or "STUDY"
        return (
            f"measure exported runs first: {store.command('export-onnx', name)}, "
            f"then {store.command('throughput', name, *measure)}"
        )
    there = "1 export is there, and its" if count == 1 else f"{count} exports are there, and their"
    return f"{there} measurement is missing: {store.command('throughput', *targets, *measure)}"


def _has_usual_settings(export: ExportRecord) -> bool:
    """Return whether `bench throughput RUN` makes the same file, and so measures it."""
    given = export.request.get("settings")
    if given is None:
        return True
    return bool(Settings(precision=given["precision"]).as_dict() == given)


def _named(store: Store, runs: set[str]) -> list[str]:
    """Name runs for a command: by the studies that have no other runs, else by their hashes."""
    studies = {
        study.name: {run for entry in study.variants.values() for run in entry["runs"].values()}
        for study in store.studies()
        if study.name != ADHOC
    }
    whole = {name: own for name, own in studies.items() if own and own <= runs}
    return [*whole, *map(short_hash, sorted(runs.difference(*whole.values())))]


def choose(
    rows: pd.DataFrame,
    *,
    max_latency_ms: float,
    max_accuracy_drop: float,
    boundary: str | None = None,
    scenario: str | None = None,
) -> Choice:
    """Choose the fastest measured configuration within a latency and an accuracy.

    Every row's accuracy is that of the very file or network that was timed. Rows are selected by
    their validation accuracy if all have one, else by test accuracy, which then is a little too
    high for what is chosen. Only rows of one
    machine, the one measured last, are compared; of repeated ones the newest that can be chosen
    counts. Among those that fit, the newest measurement decides: by the ratios to one reference,
    or by images/s between networks and batch sizes, whose intervals may overlap.

    Args:
        rows: of `measured_rows`.
        max_latency_ms: of a batch, which p99 of a new process does not exceed at 95 % confidence,
            of each row alone.
        max_accuracy_drop: points of accuracy below the most accurate row of that machine,
            also if its speed cannot be trusted.
        boundary: only rows of this boundary.
        scenario: only rows of this scenario.

    Raises:
        BenchError: the rows are of several datasets, boundaries or scenarios, or none is of the
            given ones.
    """
    for name, value in {"boundary": boundary, "scenario": scenario}.items():
        if value is not None:
            rows = _only(rows, name, value)
    rows, passed_over = _candidates(rows)
    comparable, usable = rows["note"] != "other dataset", rows["note"] == ""
    # If a network was exported again since, the older file can no longer be shipped.
    accurate = _newest(
        rows[comparable & rows["test_accuracy"].notna()].sort_values("measurement"),
        [name for name in _SAME if name not in {"file_sha256", "threads"}],
    )
    validated = len(accurate) > 0 and accurate["validation_accuracy"].notna().all()
    split = "validation" if validated else "test"
    rows["accuracy"] = rows[f"{split}_accuracy"]
    ranked: list[dict[Any, Any]] = accurate.sort_values(f"{split}_accuracy").to_dict("records")
    best = ranked[-1] if ranked else {}
    rows["latency_ms"] = _latencies(rows)
    drops = (best.get(f"{split}_accuracy", float("nan")) - rows["accuracy"]) * 100
    rows["drop_points"] = drops.where(comparable)
    rows[["accuracy_low", "accuracy_high"]] = [_interval(row) for row in rows.to_dict("records")]
    # 99.0 - 98.5 is a little more than 0.5 in binary, and older accuracies are rounded.
    rows["fits"] = (
        usable
        & (rows["latency_ms"] <= max_latency_ms)
        & (rows["drop_points"] <= max_accuracy_drop + 100 * ROUNDING)
    )
    if rows["fits"].any():
        decides = rows["measurement"] == rows.loc[rows["fits"], "measurement"].max()
        rows.loc[usable & ~decides, "note"] = "other measurement"
        rows["fits"] &= decides
    rivals = rows[rows["note"] == ""]
    rows["front"] = [
        row["note"] == "" and _undominated(row, rivals[rivals["measurement"] == row["measurement"]])
        for _, row in rows.iterrows()
    ]
    rows = rows.sort_values(["images_per_second", "accuracy"], ascending=False)
    fitting = rows_of(rows[rows["fits"]])
    rows["chosen"] = False
    if fitting:
        together = rows["measurement"] == fitting[0]["measurement"]
        chosen, as_fast = fastest_of(fitting, rows_of(rows[together]))
        place = next(number for number, row in enumerate(fitting) if row is chosen)
        rows.loc[rows.index[rows["fits"]][place], "chosen"] = True
        sentence = (
            f"Ship {describe(chosen)}: {rounded(chosen['images_per_second'])} images/s; "
            f"{_within(chosen, max_latency_ms)}; {_accuracy(chosen)}; "
            f"{chosen['drop_points']:.2f} points of {split} accuracy below the most accurate "
            f"measured, {describe(best)}; {_rank(fitting, chosen, as_fast)}, among {len(rows)}."
        )
        if not validated and len(ranked) > 1:
            without = accurate[accurate["validation_accuracy"].isna()].to_dict("records")[0]
            sentence += (
                " It was chosen by test accuracy, which is therefore probably a little too high: "
                f"{describe(without)} has no validation accuracy."
            )
        return Choice(rows, chosen, sentence, passed_over)
    sentence = _nothing(rows, max_latency_ms, max_accuracy_drop)
    if best and rows.loc[rows["note"] == "", "drop_points"].min() > 0:
        sentence += f" The most accurate, {describe(best)}, cannot be chosen ({best['note']})."
    return Choice(rows, None, sentence, passed_over)


def _only(rows: pd.DataFrame, name: str, value: str) -> pd.DataFrame:
    """Return the rows with a value in a column.

    Raises:
        BenchError: none of them is complete.
    """
    there = sorted(rows.loc[rows["status"] == "complete", name].dropna().unique())
    if value not in there:
        raise BenchError(f"--{name} {value}: nothing was measured so; there is: {', '.join(there)}")
    return rows[rows[name] == value].copy()


def _rank(
    fitting: list[dict[str, Any]], chosen: Mapping[str, Any], as_fast: list[dict[str, Any]]
) -> str:
    """Say what the chosen row is among those that fit."""
    if len(fitting) == 1:
        return "the only one that fits"
    if as_fast:
        names = ", ".join(map(describe, [chosen, *as_fast]))
        return f"as fast, within their intervals: {names}; of {len(fitting)} that fit"
    return f"the fastest of {len(fitting)} that fit"


def _latencies(rows: pd.DataFrame) -> pd.Series[Any]:
    """Return what p99 does not exceed; of measurements without that bound, p99 of the sample."""
    return rows["latency_p99_high_ms"].fillna(rows["latency_p99_ms"])


def _interval(row: Mapping[Any, Any]) -> tuple[float, float]:
    if pd.isna(row["test_accuracy"]) or pd.isna(row["test_images"]):
        return float("nan"), float("nan")
    return share_interval(float(row["test_accuracy"]), int(row["test_images"]))


def _within(row: Mapping[Any, Any], max_latency_ms: float) -> str:
    if pd.isna(row["latency_p99_high_ms"]):
        latency = f"{row['latency_ms']:.3g} ms"
        return f"p99 {latency} in the sample, without a recorded bound (measure again)"
    if row["latency_p99_scope"] != "new process":
        return (
            f"p99 of its processes is at most {row['latency_ms']:.3g} ms if batches are "
            "independent; of a new process it is unknown"
        )
    return (
        f"ships within {max_latency_ms:g} ms: p99 is at most {row['latency_ms']:.3g} ms (95 %, of "
        "this row alone)"
    )


def _accuracy(row: Mapping[Any, Any]) -> str:
    text = f"test accuracy {row['test_accuracy'] * 100:.2f} %"
    if pd.isna(row["accuracy_low"]):
        return text
    low, high = row["accuracy_low"] * 100, row["accuracy_high"] * 100
    return f"{text} [{low:.2f}, {high:.2f}] on {int(row['test_images']):,} images"


def describe(row: Mapping[Any, Any]) -> str:
    """Name a measured configuration: network, precision, backend, and the case it ran in."""
    backend = f"{row['backend']}{layout_and_streams(row)}"
    if row["mixed_threads"]:
        backend += f" on {row['threads']} thread{'s' * (row['threads'] != 1)}"
    file = f" (file {row['file_sha256'][:8]})" if row["mixed_files"] else ""
    return f"{network_name(row)} in {row['precision']}{file} on {backend}, {case(row)}"


def _candidates(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the newest rows of the machine measured last, and why others are left out."""
    ran = frame[frame["status"] == "complete"].copy()
    passed_over = {"did not run": len(frame) - len(ran)}
    ran["note"] = ""
    # An interval over processes holds however wide it is: where it overlaps, rows are as fast.
    noisy = ran["noisy"].fillna(value=False).astype(bool)
    without = ran["ratio"].isna() | (ran["scenario"] == "server")
    for note, doubtful in {
        "no p99": _latencies(ran).isna(),
        "noisy": noisy & without,
        # Rows of before there were several processes do not say how many.
        _FEW_PROCESSES: ran["processes"].fillna(1) < FEWEST_PROCESSES,
        "busy": ran["other_processes"].map(too_busy).notna(),
        "no accuracy": ran["test_accuracy"].isna(),
    }.items():
        ran.loc[doubtful, "note"] = note
    ran["usable"] = ran["note"] == ""
    ran = ran.sort_values(["usable", "measurement"])
    places = ran[_PLACE].astype(str).fillna("")
    here = ran[(places == places.iloc[-1]).all(axis=1)]
    passed_over["of another machine"] = len(ran) - len(here)
    rows = _newest(here)
    rows["mixed_threads"] = len(set(rows["threads"])) > 1
    named = [column for column in _SAME if column != "file_sha256"]
    alike = rows[named].astype(str).fillna("").agg(" / ".join, axis=1)
    files = rows["file_sha256"].groupby(alike).transform("nunique")
    rows["mixed_files"] = (files > 1) & rows["file_sha256"].notna()
    passed_over["measured again later"] = len(here) - len(rows)
    datasets = sorted(rows.loc[rows["usable"], "dataset"].dropna().unique())
    if len(datasets) > 1:
        raise BenchError(
            f"the measured runs are of {len(datasets)} datasets ({', '.join(datasets)}), whose "
            "accuracies do not compare; name one study with --study"
        )
    if datasets:
        other = rows["dataset"].notna() & ~rows["dataset"].isin(datasets)
        rows.loc[other, "note"] = "other dataset"
    for name in ("boundary", "scenario"):
        several = sorted(rows.loc[rows["note"] == "", name].dropna().unique())
        if len(several) > 1:
            raise BenchError(
                f"the measured rows are of {len(several)} {_PLURALS[name]} ({', '.join(several)}), "
                f"whose speeds do not compare; name one with --{name}"
            )
    kept = {reason: count for reason, count in passed_over.items() if count}
    return rows.drop(columns=["dataset", "usable"]), kept


def _newest(frame: pd.DataFrame, same: list[str] = _SAME) -> pd.DataFrame:
    """Keep the last of the rows that are equal in the columns *same*."""
    return frame[~frame[same].astype(str).duplicated(keep="last")].copy()


def _undominated(row: pd.Series[Any], rows: pd.DataFrame) -> bool:
    """Whether no other row is as good in all of accuracy, latency and speed, and better in one."""
    gains = pd.DataFrame(
        {
            "accuracy": rows["accuracy"] - row["accuracy"],
            "latency": row["latency_ms"] - rows["latency_ms"],
            "speed": rows["images_per_second"] - row["images_per_second"],
        }
    )
    return not bool(((gains >= 0).all(axis=1) & (gains > 0).any(axis=1)).any())


def _nothing(rows: pd.DataFrame, max_latency: float, max_drop: float) -> str:
    """Say that nothing fits, and what comes nearest from either side."""
    usable = rows[rows["note"] == ""]
    if not rows["note"].isin(["", "no accuracy"]).any():
        return f"None of {len(rows)} measured can be judged; see the notes."
    within = usable[usable["latency_ms"] <= max_latency]
    accurate = usable[usable["drop_points"] <= max_drop + 1e-9]
    parts = [
        f"Nothing of {len(rows)} measured fits within {max_latency:g} ms and {max_drop:g} points"
    ]
    if len(within):
        best = within.sort_values("accuracy").iloc[-1].to_dict()
        parts.append(f"within the latency {describe(best)} loses {best['drop_points']:.2f} points")
    if len(accurate):
        best = accurate.sort_values("latency_ms").iloc[0].to_dict()
        parts.append(f"within the accuracy {describe(best)} takes {best['latency_ms']:.3g} ms")
    unknown = rows[(rows["note"] == "no accuracy") & (rows["latency_ms"] <= max_latency)]
    if len(unknown):
        parts.append(
            f"{describe(unknown.iloc[0].to_dict())} is within the latency, of unknown accuracy"
        )
    return "; ".join(parts) + "."
