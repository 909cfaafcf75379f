"""One configuration over repeated measurements: where its speed changed, and what changed then.

Steps are found by circular binary segmentation (Olshen et al. 2004) of the logarithms. Of every
stretch of at least three measurements, the mean is compared with that of all others; the largest
difference, in standard errors, is compared with the largest of the same measurements in random
order (`scipy.stats.permutation_test`), so that the choice among all stretches is accounted for. If
p is at most 0.01, the series is cut where the stretch begins and ends, and each part is searched
in the same way. An end within the series is no cut if the parts beside it do not differ (Welch's
test). From fewer than ten measurements no step can be that certain.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from statistics import geometric_mean
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import permutation_test, ttest_ind

from bench.measurement.repeats import CONFIGURATION, circumstances
from bench.report.findings.fastest import case, network_name, way

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from bench.store.measurements import MeasurementRecord

SIGNIFICANT = 0.01
FEWEST = 10  # measurements, below which no p is as small
_SHORTEST = 3  # measurements on each side of a step
_FLOOR = 1e-6  # relative range below which all speeds are equal


@dataclass(frozen=True)
class Step:
    """A change of speed.

    Attributes:
        place: number of the first measurement after it, from 0.
        ratio: geometric mean after it over that before it, up to the neighbouring steps.
        p: by the permutation test.
    """

    place: int
    ratio: float
    p: float


@dataclass(frozen=True)
class History:
    """One configuration in every measurement that has it, oldest first.

    Attributes:
        network: its name.
        way: backend, precision, memory format and streams.
        case: batch size and what else tells it from other comparisons.
        rows: its rows of the `throughput` table.
        records: the measurements they belong to.
        ratio_steps: steps of the ratio to the reference.
        speed_steps: steps of images/s.
    """

    network: str
    way: str
    case: str
    rows: Sequence[dict[str, Any]]
    records: Sequence[MeasurementRecord]
    ratio_steps: Sequence[Step]
    speed_steps: Sequence[Step]

    def changes(self, place: int) -> list[str]:
        """Return what differs in the environment from the measurement before; empty for the first.

        Args:
            place: number of a measurement, from 0.
        """
        if place == 0:
            return []
        before, now = (
            circumstances(self.records[i].environment, self.rows[i]) for i in (place - 1, place)
        )
        return [
            f"{name} {before.get(name) or 'unknown'} → {value or 'unknown'}"
            for name, value in now.items()
            if value != before.get(name)
        ]


def histories(
    measured: Iterable[tuple[MeasurementRecord, Sequence[dict[str, Any]]]],
) -> list[History]:
    """Collect the configurations that were measured more than once.

    Args:
        measured: measurements, oldest first, each with its rows of the `throughput` table.
    """
    groups: dict[tuple[Any, ...], list[tuple[MeasurementRecord, dict[str, Any]]]] = {}
    for record, rows in measured:
        for row in rows:
            if row["status"] == "complete" and row["images_per_second"]:
                key = tuple(row[name] for name in CONFIGURATION)
                groups.setdefault(key, []).append((record, row))
    return [_history([*found]) for found in groups.values() if len(found) > 1]


def find_steps(values: Sequence[float]) -> list[Step]:
    """Find the steps of a series of positive values, in order (see the module)."""
    logs = np.log(np.asarray(values, dtype=np.float64))
    places = _cuts(logs, 0)
    ends = [0, *(place for place, _ in places), len(values)]
    return [
        Step(
            place,
            geometric_mean(values[place : ends[number + 2]])
            / geometric_mean(values[ends[number] : place]),
            p,
        )
        for number, (place, p) in enumerate(places)
    ]


def _cuts(logs: npt.NDArray[np.float64], first: int) -> list[tuple[int, float]]:
    """Return the places of cuts, from *first* on, each with its p."""
    count = len(logs)
    stretches = _stretches(count)
    if not len(stretches) or np.ptp(logs) < _FLOOR:
        return []

    def largest(series: npt.NDArray[np.float64], axis: int = -1) -> Any:
        return _differences(np.moveaxis(series, axis, -1), stretches).max(axis=-1)

    found = permutation_test(
        (logs,),
        largest,
        permutation_type="pairings",
        alternative="greater",
        batch=500,
        random_state=0,
    )
    p = float(found.pvalue)
    if p > SIGNIFICANT:
        return []
    begin, end = stretches[int(_differences(logs, stretches).argmax())]
    ends = sorted({0, *_real_cuts(logs, [c for c in (begin, end) if 0 < c < count]), count})
    cuts = [(first + cut, p) for cut in ends[1:-1]]
    for low, high in itertools.pairwise(ends):
        cuts += _cuts(logs[low:high], first + low)
    return sorted(cuts)


def _real_cuts(logs: npt.NDArray[np.float64], cuts: list[int]) -> list[int]:
    """Drop a cut beside which the parts do not differ, unless it is the only one."""
    ends = [0, *cuts, len(logs)]
    pieces = [logs[low:high] for low, high in itertools.pairwise(ends)]
    p = [
        float(ttest_ind(before, after, equal_var=False).pvalue)
        for before, after in itertools.pairwise(pieces)
    ]
    return [cut for cut, one in zip(cuts, p, strict=True) if one <= SIGNIFICANT or one == min(p)]


def _stretches(count: int) -> npt.NDArray[np.int64]:
    """Return begin and end of each stretch with three or more in it, and none or so before it."""
    ends = [0, *range(_SHORTEST, count - _SHORTEST + 1), count]
    found = [
        (begin, end)
        for begin, end in itertools.combinations(ends, 2)
        if _SHORTEST <= end - begin <= count - _SHORTEST
    ]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _differences(
    series: npt.NDArray[np.float64], stretches: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return how far each stretch's mean is from that of the others, up to a common factor."""
    centred = np.asarray(series - series.mean(axis=-1, keepdims=True))
    sums = np.concatenate([np.zeros((*series.shape[:-1], 1)), centred.cumsum(axis=-1)], axis=-1)
    begin, end = stretches.T
    lengths = end - begin
    spread = np.sqrt(lengths * (1 - lengths / series.shape[-1]))
    found: npt.NDArray[np.float64] = np.abs(sums[..., end] - sums[..., begin]) / spread
    return found


def _history(found: list[tuple[MeasurementRecord, dict[str, Any]]]) -> History:
    records, rows = [record for record, _ in found], [row for _, row in found]
    first = rows[0]
    ratios = [row["ratio"] for row in rows]
    references = {row["reference"] for row in rows}
    comparable = all(ratios) and len(references) == 1 and first["difference"] != "reference"
    return History(
        network=network_name(first),
        way=way(first),
        case=f"{case(first)}, {first['threads']} threads, {first['cpu']}",
        rows=rows,
        records=records,
        ratio_steps=find_steps(ratios) if comparable else [],
        speed_steps=find_steps([row["images_per_second"] for row in rows]),
    )
