"""Two measurements, configuration by configuration: has anything become slower?"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.store.measurements import RECORD, Measurements, read_measurement

KEY = (
    "model", "options", "run", "backend", "precision", "memory_format", "batch_size",
    "input_size", "scenario", "threads", "boundary",
)  # fmt: skip
_MACHINE = ("cpu", "device")


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


@dataclass(frozen=True)
class Change:
    """One configuration in both.

    Attributes:
        configuration: which.
        ratio: candidate's speed over the baseline's; below 1 is slower.
        low: lower end of its 95 % interval.
        high: upper end.
        verdict: slower or faster (the whole interval lies beyond the threshold), same, or
            noisy (no claim).
    """

    configuration: str
    ratio: float
    low: float
    high: float
    verdict: str


def load_side(path: str | Path) -> Side:
    """Read a measurement's folder, a results folder (its last measurement), or a JSON file.

    JSON files are those of `bench throughput --json` and pytest-benchmark's.

    Raises:
        BenchError: it is none of these, or cannot be read.
    """
    given = Path(path)
    if (given / RECORD).is_file():
        return _from_rows(str(path), read_measurement(given).rows)
    if given.is_dir():
        records = list(Measurements(given).records())
        if not records:
            raise BenchError(f"{path} holds no measurement; 'bench throughput --results' makes one")
        return _from_rows(str(path), records[-1].rows)
    try:
        document = json.loads(given.read_text())
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path} is no JSON: {error}") from None
    try:
        if isinstance(document, dict) and "benchmarks" in document:
            return _from_pytest(str(path), document)
        if isinstance(document, dict) and "rows" in document:
            return _from_rows(str(path), document["rows"])
    except BenchError:
        raise
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise BenchError(
            f"{path} is no JSON of 'bench throughput --json' or pytest-benchmark "
            f"({type(error).__name__}: {error}); write it again"
        ) from None
    raise BenchError(
        f"{path}: give a measurement's folder, a results folder, or the JSON of 'bench throughput "
        "--json' or pytest-benchmark"
    )


def compare(baseline: Side, candidate: Side, threshold: float) -> tuple[list[Change], list[str]]:
    """Compare what both sides hold.

    Args:
        baseline: what was before.
        candidate: what is now.
        threshold: relative change that matters; 0.05 is 5 %.

    Returns:
        The changes, and remarks on how they were compared and what only one side holds.

    Raises:
        BenchError: nothing is in both, or machines differ and there is no reference.
    """
    if not 0 <= threshold < 1:
        raise BenchError(f"--threshold {threshold:g}: it is relative, 0 … 1, such as 0.05")
    shared = [key for key in baseline.figures if key in candidate.figures]
    if not shared:
        raise BenchError(_nothing_shared(baseline, candidate))
    remarks = []
    relative = baseline.machine != candidate.machine
    if relative:
        shared = [
            k for k in shared if baseline.figures[k].relative and candidate.figures[k].relative
        ]
        if not shared:
            raise BenchError(
                f"{baseline.name} is of {baseline.machine}, {candidate.name} of "
                f"{candidate.machine}, and without a reference in each they cannot be compared: "
                "measure both on one machine"
            )
        remarks.append(
            f"Different machines ({baseline.machine}; {candidate.machine}): compared by the ratio "
            "to each one's own reference, not by images/s."
        )
    for one, other in ((baseline, candidate), (candidate, baseline)):
        only = len(one.figures.keys() - other.figures.keys())
        if only:
            remarks.append(f"{only} configuration(s) only in {one.name}.")
    changes = [
        _change(key, baseline.figures[key], candidate.figures[key], threshold, relative=relative)
        for key in shared
    ]
    return changes, remarks


def ratio_of(
    top: tuple[float, float, float], bottom: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Return top/bottom with its interval, from each one's (value, low, high).

    The ends are recovered from the two intervals on a logarithmic scale (MOVER; Donner and
    Zou 2012), which needs no symmetry and no samples.
    """
    a, a_low, a_high = map(math.log, top)
    b, b_low, b_high = map(math.log, bottom)
    difference = a - b
    low = difference - math.hypot(a - a_low, b_high - b)
    high = difference + math.hypot(a_high - a, b - b_low)
    return math.exp(difference), math.exp(low), math.exp(high)


def _change(key: str, before: Figure, now: Figure, threshold: float, *, relative: bool) -> Change:
    pair = [
        f.relative if relative and f.relative else (f.value, f.low, f.high) for f in (now, before)
    ]
    ratio, low, high = ratio_of(*pair)
    verdict = "same"
    if before.noisy or now.noisy:
        verdict = "noisy"
    elif high < 1 - threshold:
        verdict = "slower"
    elif low > 1 + threshold:
        verdict = "faster"
    return Change(key, ratio, low, high, verdict)


def _nothing_shared(baseline: Side, candidate: Side) -> str:
    if baseline.boundaries and not baseline.boundaries & candidate.boundaries:
        sides = (", ".join(sorted(s.boundaries)) for s in (baseline, candidate))
        return "the boundaries differ ({} and {}): what is timed is not the same".format(*sides)
    return f"{baseline.name} and {candidate.name} have no configuration in common"


def _from_rows(name: str, rows: list[dict[str, Any]]) -> Side:
    complete = [r for r in rows if r.get("status") == "complete" and r.get("ci_low")]
    if not complete:
        raise BenchError(f"{name} holds no complete row with an interval")
    figures = {}
    for row in complete:
        relative = (row.get("ratio"), row.get("ratio_low"), row.get("ratio_high"))
        figures[_key(row)] = Figure(
            row["images_per_second"], row["ci_low"], row["ci_high"],
            relative if all(relative) else None,  # type: ignore[arg-type]
            bool(row.get("noisy")),
        )  # fmt: skip
    machine = ", ".join(str(complete[0].get(part)) for part in _MACHINE)
    return Side(name, machine, figures, frozenset(str(r["boundary"]) for r in complete))


def _key(row: dict[str, Any]) -> str:
    words = {"threads": "{} threads", "batch_size": "batch {}", "input_size": "{} px"}
    parts = ((part, row.get(part)) for part in KEY)
    return " / ".join(words.get(k, "{}").format(v) for k, v in parts if v not in {None, ""})


def _from_pytest(name: str, document: dict[str, Any]) -> Side:
    machine = document.get("machine_info", {})
    cpu = machine.get("cpu", {}).get("brand_raw") or machine.get("machine", "unknown")
    figures = {b["fullname"]: _pytest_figure(b["stats"]) for b in document["benchmarks"]}
    return Side(name, str(cpu), figures)


def _pytest_figure(stats: dict[str, Any]) -> Figure:
    """Speed of a pytest-benchmark: from its samples where they were saved, else its quartiles."""
    median = float(stats["median"])
    data = stats.get("data")
    if data:
        from bench.measure.intervals import median_interval

        found = median_interval([[value] for value in data])
        return Figure(1 / median, 1 / found.high, 1 / found.low, noisy=not found.confident)
    # The notch of a box plot (McGill, Tukey and Larsen 1978).
    half = 1.57 * float(stats["iqr"]) / math.sqrt(stats["rounds"])
    if half >= median:
        return Figure(1 / median, 1 / (2 * median), 1 / median, noisy=True)
    return Figure(1 / median, 1 / (median + half), 1 / (median - half))
