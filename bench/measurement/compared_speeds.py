"""What `bench compare` can read, each as figures of configurations with intervals."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.store.measurements import RECORD, Measurements, read_measurement

if TYPE_CHECKING:
    import pandas as pd

KEY = (
    "model", "options", "run", "backend", "precision", "memory_format", "batch_size",
    "input_size", "scenario", "threads", "boundary",
)  # fmt: skip
_TRAINING_KEY = ("model", "options", "dataset", "input_size", "recipe", "precision", "threads")
_MACHINE = ("cpu", "device")
_WORDS = {"threads": "{} threads", "batch_size": "batch {}", "input_size": "{} px"}


@dataclass(frozen=True)
class Figure:
    """A speed with its interval; higher is faster.

    Attributes:
        value: images/s, or runs/s of a pytest-benchmark.
        low: lower end of its 95 % interval.
        high: upper end.
        relative: the same as a ratio to the measurement's own reference, if there is one.
        noisy: whether no claim may rest on it.
    """

    value: float
    low: float
    high: float
    relative: tuple[float, float, float] | None = None
    noisy: bool = False


@dataclass(frozen=True)
class Side:
    """One of the two that are compared.

    Attributes:
        name: as the person gave it.
        machine: what it ran on.
        figures: configuration → figure.
        boundaries: those it holds.
    """

    name: str
    machine: str
    figures: dict[str, Figure]
    boundaries: frozenset[str] = field(default_factory=frozenset)


def load_side(path: str | Path) -> Side:
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
        return _from_rows(str(path), rows)
    if given.is_dir():
        return _from_folder(str(path), given)
    try:
        document = json.loads(given.read_text())
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path} is no JSON: {error}") from None
    if isinstance(document, dict) and "benchmarks" in document:
        return _reading(path, lambda: _from_pytest(str(path), document))
    if isinstance(document, dict) and "rows" in document:
        return _reading(path, lambda: _from_rows(str(path), document["rows"]))
    raise BenchError(
        f"{path}: give a measurement's folder, a results folder, a run's folder, or the JSON of "
        "'bench throughput --json' or pytest-benchmark"
    )


def _reading(path: str | Path, read: Any) -> Side:
    """Read a file that may hold anything."""
    try:
        side: Side = read()
    except BenchError:
        raise
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise BenchError(
            f"{path} is no JSON of 'bench throughput --json' or pytest-benchmark "
            f"({type(error).__name__}: {error}); write it again"
        ) from None
    return side


def _from_folder(name: str, folder: Path) -> Side:
    """Read a results folder, or a run's folder in one."""
    records = list(Measurements(folder).records())
    trained = _from_runs(name, folder)
    sides = [] if trained is None else [trained]
    if records and (trained is None or any(map(_has_interval, records[-1].rows))):
        sides.insert(0, _from_rows(name, records[-1].rows))
    if not sides:
        raise BenchError(
            f"{name} holds no measurement and no complete training run; 'bench throughput "
            "--results' and 'bench train --results' make them"
        )
    machines = dict.fromkeys(side.machine for side in sides)
    figures = {key: figure for side in sides for key, figure in side.figures.items()}
    boundaries = frozenset(b for side in sides for b in side.boundaries)
    return Side(name, "; ".join(machines), figures, boundaries)


def _from_rows(name: str, rows: list[dict[str, Any]]) -> Side:
    complete = [row for row in rows if _has_interval(row)]
    if not complete:
        raise BenchError(f"{name} holds no complete row with an interval")
    figures = {}
    for row in complete:
        relative = (row.get("ratio"), row.get("ratio_low"), row.get("ratio_high"))
        figures[_key(row, KEY)] = Figure(
            row["images_per_second"], row["ci_low"], row["ci_high"],
            relative if all(relative) else None,  # type: ignore[arg-type]
            bool(row.get("noisy")),
        )  # fmt: skip
    machine = ", ".join(str(complete[0].get(part)) for part in _MACHINE)
    return Side(name, machine, figures, frozenset(str(r["boundary"]) for r in complete))


def _has_interval(row: dict[str, Any]) -> bool:
    return bool(row.get("status") == "complete" and row.get("ci_low"))


def _from_runs(name: str, folder: Path) -> Side | None:
    """Read how fast networks were trained: the epochs of all runs of one configuration."""
    from bench.store.tables.frames import load_results, rows_of

    runs = load_results(folder)
    runs = runs[runs["status"] == "complete"].drop_duplicates("run")
    if runs.empty:
        return None
    epochs = load_results(folder, "epochs").drop_duplicates(["run", "epoch"])
    rows = rows_of(runs)
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(f"training / {_key(row, _TRAINING_KEY)}", []).append(row["run"])
    figures = {
        key: figure
        for key, names in groups.items()
        if (figure := _training_figure(epochs[epochs["run"].isin(names)])) is not None
    }
    machines = dict.fromkeys(", ".join(str(row[part]) for part in _MACHINE) for row in rows)
    return Side(name, "; ".join(machines), figures)


def _training_figure(epochs: pd.DataFrame) -> Figure | None:
    """Median of the epochs' images/s; few epochs carry no interval and make no claim."""
    from bench.measurement.timing.intervals import median_interval

    rates = [rate for rate in epochs["images_per_second"].dropna() if rate > 0]
    if not rates:
        return None
    found = median_interval([[1 / rate] for rate in rates])
    return Figure(1 / found.median, 1 / found.high, 1 / found.low, noisy=not found.confident)


def _key(row: dict[str, Any], parts: tuple[str, ...]) -> str:
    values = ((part, row.get(part)) for part in parts)
    return " / ".join(_WORDS.get(k, "{}").format(v) for k, v in values if v not in {None, ""})


def _from_pytest(name: str, document: dict[str, Any]) -> Side:
    machine = document.get("machine_info", {})
    cpu = machine.get("cpu", {}).get("brand_raw") or machine.get("machine", "unknown")
    figures = {b["fullname"]: _pytest_figure(b["stats"]) for b in document["benchmarks"]}
    if not figures:
        raise BenchError(f"{name} holds no benchmark")
    return Side(name, str(cpu), figures)


def _pytest_figure(stats: dict[str, Any]) -> Figure:
    """Speed of a pytest-benchmark: from its samples where they were saved, else its quartiles."""
    median = float(stats["median"])
    data = stats.get("data")
    if data:
        from bench.measurement.timing.intervals import median_interval

        found = median_interval([[value] for value in data])
        return Figure(1 / median, 1 / found.high, 1 / found.low, noisy=not found.confident)
    # The notch of a box plot (McGill, Tukey and Larsen 1978).
    half = 1.57 * float(stats["iqr"]) / math.sqrt(stats["rounds"])
    if half >= median:
        return Figure(1 / median, 1 / (2 * median), 1 / median, noisy=True)
    return Figure(1 / median, 1 / (median + half), 1 / (median - half))
