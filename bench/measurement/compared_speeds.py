"""What `bench compare` can read, each as speeds of configurations with intervals."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.measurement.machine.noise import is_tick_warning
from bench.store.measurements import RECORD, Measurements, read_measurement
from bench.store.tables.frames import load_table, rows_of
from bench.system.intervals import Interval, median_interval
from bench.system.processor_use import too_busy

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import pandas as pd


_KEY = (
    *("model", "options", "run", "backend", "precision", "memory_format", "batch_size"),
    *("input_size", "scenario", "latency_bound_ms", "threads", "streams", "boundary", "timing"),
)
_TRAINING_KEY = (
    *("model", "options", "dataset", "input_size", "recipe", "precision", "threads", "workers"),
)
_MACHINE = ("cpu", "gpu", "device")
_WORDS = {
    "streams": "{} streams",
    "threads": "{} threads",
    "workers": "{} runs at a time",
    "batch_size": "batch {}",
    "input_size": "{} px",
    "latency_bound_ms": "p99 within {:g} ms",
}


@dataclass(frozen=True)
class ComparedSpeed:
    """A speed with its interval; higher is faster.

    Attributes:
        value: images/s, or runs/s of pytest-benchmark, with its 95 % interval `low` to `high`.
        machine: what it ran on.
        relative: the ratio to the measurement's own reference with its interval, if there is one.
        repeated: whether `low` to `high` contain the spread between three measurements or more.
        reference: that reference; None if there is none.
        busy: what other programs used of the machine, if that forbids any claim.
        doubt: why no claim may be based on it alone; None if one may.
        has_interval: whether `low` and `high` are ends of a 95 % interval; of one process with few
            samples they are only those of its smallest and largest block.
        is_reference: whether others of its measurement are compared with it.
        processes: number of fresh processes that its interval is over.
        ratio_processes: the same of the ratio.
        file_sha256: of the file, if one was measured.
        warnings: what to know when reading it.
        macs: multiply-adds of the network for one image, if they are known.
    """

    value: float
    low: float
    high: float
    machine: str = ""
    relative: tuple[float, float, float] | None = None
    repeated: bool = False
    reference: str | None = None
    busy: str | None = None
    doubt: str | None = None
    has_interval: bool = True
    is_reference: bool = False
    processes: int = 1
    ratio_processes: int = 1
    file_sha256: str | None = None
    warnings: tuple[str, ...] = ()
    macs: int | None = None

    @property
    def measured(self) -> tuple[float, float, float]:
        """The speed with its interval: value, low, high."""
        return self.value, self.low, self.high

    def is_other_file(self, other: ComparedSpeed) -> bool:
        """Return whether both ran a given file, and not the same one."""
        return None not in {self.file_sha256, other.file_sha256} and (
            self.file_sha256 != other.file_sha256
        )


@dataclass(frozen=True)
class ComparedSpeeds:
    """The speeds of one of the two that are compared.

    Attributes:
        name: as given.
        speeds: by the configuration's name.
        boundaries: those of its configurations.
        failed: what could not be measured: error by the configuration's name.
        unsupported: what the machine cannot run, likewise.
    """

    name: str
    speeds: dict[str, ComparedSpeed]
    boundaries: frozenset[str] = field(default_factory=frozenset)
    failed: dict[str, str] = field(default_factory=dict)
    unsupported: dict[str, str] = field(default_factory=dict)


def load_speeds(path: str | Path) -> ComparedSpeeds:
    """Read a measurement, trained runs, or a JSON file.

    Args:
        path: a measurement's folder, a results folder (its last measurement and its runs), one
            run's folder, or the JSON of `bench throughput --json` or of pytest-benchmark.

    Raises:
        BenchError: it is none of these, or cannot be read.
    """
    given = Path(path)
    if (given / RECORD).is_file():
        try:
            rows = read_measurement(given).rows
        except BenchError as error:
            raise BenchError(f"{path} cannot be compared: {error}; measure again") from None
        return speeds_of(str(path), rows)
    if given.is_dir():
        return _from_folder(str(path), given)
    try:
        document = json.loads(given.read_bytes())  # in UTF-8 or, as PowerShell writes, UTF-16
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path} is no JSON: {error}") from None
    try:
        if isinstance(document, dict) and "benchmarks" in document:
            return _from_pytest(str(path), document)
        if isinstance(document, dict) and "rows" in document:
            return speeds_of(str(path), document["rows"])
    except BenchError:
        raise
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise BenchError(
            f"{path} is no JSON of 'bench throughput --json' or pytest-benchmark "
            f"({type(error).__name__}: {error}); write it again"
        ) from None
    raise BenchError(
        f"{path}: give a measurement's folder, a results folder, a run's folder, or the JSON of "
        "'bench throughput --json' or pytest-benchmark"
    )


def _from_folder(name: str, folder: Path) -> ComparedSpeeds:
    """Read a results folder, or a run's folder in one."""
    records = list(Measurements(folder).records())
    trained = _from_runs(name, folder)
    found = [] if trained is None else [trained]
    if records and (trained is None or any(map(_has_interval, records[-1].rows))):
        found.insert(0, speeds_of(name, records[-1].rows))
    if not found:
        raise BenchError(
            f"{name} holds no measurement and no complete training run; 'bench throughput "
            "--results' and 'bench train --results' make them"
        )
    speeds = {key: speed for part in found for key, speed in part.speeds.items()}
    boundaries = frozenset(b for part in found for b in part.boundaries)
    failed = {key: error for part in found for key, error in part.failed.items()}
    unsupported = {key: error for part in found for key, error in part.unsupported.items()}
    return ComparedSpeeds(name, speeds, boundaries, failed, unsupported)


def speeds_of(name: str, rows: list[dict[str, Any]]) -> ComparedSpeeds:
    """Return the speeds of rows of the `throughput` table.

    Raises:
        BenchError: none is complete and has an interval.
    """
    complete = [row for row in rows if _has_interval(row)]
    if not complete:
        raise BenchError(f"{name} holds no complete row with an interval")
    apart = _keys_of_several_files(rows)
    speeds = {}
    for row in complete:
        relative = (row.get("ratio"), row.get("ratio_low"), row.get("ratio_high"))
        speeds[_key(row, _KEY, apart)] = ComparedSpeed(
            value=row["images_per_second"],
            low=row.get("repeat_low") or row["ci_low"],
            high=row.get("repeat_high") or row["ci_high"],
            machine=_machine(row),
            relative=relative if all(relative) else None,  # type: ignore[arg-type]
            repeated=bool(row.get("repeat_low")),
            reference=row.get("reference"),
            busy=too_busy(row.get("other_processes")),
            doubt=_doubt(row),
            has_interval=_processes(row) > 1 or not row.get("noisy"),
            is_reference=row.get("difference") == "reference",
            processes=_processes(row),
            ratio_processes=row.get("ratio_processes") or _processes(row),
            file_sha256=row.get("file_sha256") if _is_file(row) else None,
            warnings=_warnings(row),
            macs=row.get("macs"),
        )
    boundaries = frozenset(str(row["boundary"]) for row in complete)
    failed = {_key(row, _KEY, apart): why for row in rows if (why := _failure(row)) is not None}
    unsupported = {
        _key(row, _KEY, apart): f"unsupported: {row['error']}"
        for row in rows
        if row["status"] == "unsupported"
    }
    return ComparedSpeeds(name, speeds, boundaries, failed, unsupported)


def _machine(row: Mapping[str, Any]) -> str:
    return ", ".join(str(row[part]) for part in _MACHINE if row.get(part))


def _processes(row: Mapping[str, Any]) -> int:
    return row.get("processes") or 1


def _failure(row: Mapping[str, Any]) -> str | None:
    """Return why a row that was to be compared has no speed; those of a cold start are not."""
    if "phase" in row or _has_interval(row) or row["status"] == "unsupported":
        return None
    if row["status"] == "complete":
        return "it has no interval"
    return f"{str(row['status']).replace('_', ' ')}: {row['error']}"


def _doubt(row: Mapping[str, Any]) -> str | None:
    """Return why a row supports no claim; a wide interval over enough processes holds."""
    sliced = next(filter(is_tick_warning, _warnings(row)), None)
    if sliced is not None:
        return sliced.partition(":")[0]
    if row.get("noisy") and row.get("scenario") == "server":
        return "too few queries for a p99, or a process failed; give more --max-seconds"
    return None


def _warnings(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row["warnings"].split("; ")) if row.get("warnings") else ()


def _is_file(row: dict[str, Any]) -> bool:
    """Return whether a file was named, not a network of which a file was made."""
    return str(row.get("model")).endswith((".onnx", ".engine"))


def _has_interval(row: Mapping[str, Any]) -> bool:
    return bool(row.get("status") == "complete" and row.get("ci_low"))


def _from_runs(name: str, folder: Path) -> ComparedSpeeds | None:
    """Read how fast networks were trained: the epochs of all runs of one configuration."""
    runs = load_table(folder)
    runs = runs[runs["status"] == "complete"].drop_duplicates("run")
    if runs.empty:
        return None
    epochs = load_table(folder, "epochs").drop_duplicates(["run", "epoch"])
    rows = rows_of(runs)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(f"training / {_key(row, _TRAINING_KEY)}", []).append(row)
    speeds = {}
    for key, group in groups.items():
        speed = _training_speed(epochs[epochs["run"].isin([row["run"] for row in group])])
        if speed is not None:
            machines = sorted({_machine(row) for row in group})
            speeds[key] = replace(speed, machine="; ".join(machines))
    return ComparedSpeeds(name, speeds)


def _training_speed(epochs: pd.DataFrame) -> ComparedSpeed | None:
    """Return the median of the epochs' images/s; with few epochs it is noisy."""
    rates = [rate for rate in epochs["images_per_second"].dropna() if rate > 0]
    if not rates:
        return None
    return _speed(median_interval([[1 / rate] for rate in rates]))


def _speed(seconds: Interval) -> ComparedSpeed:
    found = seconds.per_second()
    doubt = None if found.confident else "too few samples"
    return ComparedSpeed(found.median, found.low, found.high, doubt=doubt)


def _keys_of_several_files(rows: list[dict[str, Any]]) -> set[str]:
    """Return the keys that rows of different files share, such as two int8 exports of a run."""
    files: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.get("file_sha256"):
            files[_key(row, _KEY)].add(row["file_sha256"])
    return {key for key, found in files.items() if len(found) > 1}


def _key(row: dict[str, Any], parts: tuple[str, ...], apart: Collection[str] = ()) -> str:
    """Name a row by the values of *parts*; if the name is in *apart*, also by its file."""
    values = [(part, row.get(part)) for part in parts]
    # Not named, since older measurements and runs have no such column.
    values = [pair for pair in values if pair not in {("streams", 1), ("workers", 1)}]
    if "input_size" in parts and not row.get("input_size"):
        values.append(("input_shape", row.get("input_shape")))  # not square
    key = " / ".join(_WORDS.get(k, "{}").format(v) for k, v in values if v not in {None, ""})
    sha256 = row.get("file_sha256")
    return f"{key} / file {sha256[:8]}" if sha256 and key in apart else key


def _from_pytest(name: str, document: dict[str, Any]) -> ComparedSpeeds:
    machine = document.get("machine_info", {})
    cpu = machine.get("cpu", {}).get("brand_raw") or machine.get("machine", "unknown")
    speeds = {
        b["fullname"]: replace(_pytest_speed(b["stats"]), machine=str(cpu))
        for b in document["benchmarks"]
    }
    if not speeds:
        raise BenchError(f"{name} holds no benchmark")
    return ComparedSpeeds(name, speeds)


def _pytest_speed(stats: dict[str, Any]) -> ComparedSpeed:
    """Return the speed of a pytest-benchmark, from its samples or, without them, its quartiles."""
    median = float(stats["median"])
    data = stats.get("data")
    if data:
        return replace(_speed(median_interval([[value] for value in data])), value=1 / median)
    # The notch of a box plot (McGill, Tukey and Larsen 1978).
    half = 1.57 * float(stats["iqr"]) / math.sqrt(stats["rounds"])
    if half >= median:
        return ComparedSpeed(1 / median, 1 / (2 * median), 1 / median, doubt="too few samples")
    return ComparedSpeed(1 / median, 1 / (median + half), 1 / (median - half))
