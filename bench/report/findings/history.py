"""One configuration over repeated measurements: where its speed changed, and what changed then.

Steps are looked for in the ratio to the reference that was measured beside it. Images/s of
measurements that follow each other share a state of the machine that lasts for longer than one of
them, so that a random order would be no comparison, and steps be found where nothing changed.

Steps are found by circular binary segmentation (Olshen et al. 2004) of the logarithms. Of every
stretch of at least three measurements, the mean is compared with that of all others; the largest
difference, in standard errors, is compared with the largest of the same measurements in random
order (`scipy.stats.permutation_test`), so that the choice among all stretches is accounted for. If
p, times the number of series that are searched (Bonferroni), is at most 0.01, the series is cut
where the stretch begins and ends, and each part is searched in the same way. An end within the
series is no cut if the parts beside it do not differ (Welch's test). From fewer than ten
measurements no step can be that certain; of several series, from a few more.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from statistics import geometric_mean
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import permutation_test, ttest_ind

from bench.measurement.repeats import CONFIGURATION, circumstances, counts
from bench.report.findings.fastest import case, network_name, way

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from bench.store.measurements import MeasurementRecord

    _Found = list[tuple[MeasurementRecord, dict[str, Any]]]

SIGNIFICANT = 0.01
FEWEST = 10  # measurements, below which no p is as small
_ORDERS = 9999  # random ones, at least
_SHORTEST = 3  # measurements on each side of a step
_NUMBERS = 10**7  # differences in memory at a time
_FLOOR = 1e-6  # relative range below which all speeds are equal


@dataclass(frozen=True)
class Step:
    """A change of speed.

    Attributes:
        place: number of the first measurement after it, from 0.
        ratio: geometric mean after it over that before it, up to the neighbouring steps.
        p: by the permutation test, times the number of series.
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
        steps: those of the ratio to the reference.
        searched: number of series that were searched for steps, with this one; 0 if it was not.
    """

    network: str
    way: str
    case: str
    rows: Sequence[dict[str, Any]]
    records: Sequence[MeasurementRecord]
    steps: Sequence[Step]
    searched: int

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

    Only rows count that are over six processes or more, on a machine that others left alone.

    Args:
        measured: measurements, oldest first, each with its rows of the `throughput` table.
    """
    groups: dict[tuple[Any, ...], _Found] = {}
    for record, rows in measured:
        for row in rows:
            if counts(row):
                key = tuple(row[name] for name in CONFIGURATION)
                groups.setdefault(key, []).append((record, row))
    repeated = [found for found in groups.values() if len(found) > 1]
    searched = sum(map(_can_be_searched, repeated))
    return [_history(found, searched) for found in repeated]


def find_steps(values: Sequence[float], searched: int = 1) -> list[Step]:
    """Find the steps of a series of positive values, in order (see the module).

    Args:
        values: independent of each other, but for the steps.
        searched: number of series, of which this is one.
    """
    logs = np.log(np.asarray(values, dtype=np.float64))
    places = _cuts(logs, searched)
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


def _cuts(logs: npt.NDArray[np.float64], searched: int) -> list[tuple[int, float]]:
    """Return the places of cuts, each with its p for so many series."""
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
        batch=max(1, min(500, _NUMBERS // len(stretches))),
        n_resamples=max(_ORDERS, math.ceil(searched / SIGNIFICANT)),  # p can be small enough
        random_state=0,
    )
    p = float(found.pvalue) * searched
    if p > SIGNIFICANT:
        return []
    begin, end = map(int, stretches[_differences(logs, stretches).argmax()])
    ends = sorted({0, *_real_cuts(logs, [c for c in (begin, end) if 0 < c < count]), count})
    cuts = [(cut, p) for cut in ends[1:-1]]
    for low, high in itertools.pairwise(ends):
        cuts += [(low + cut, own) for cut, own in _cuts(logs[low:high], searched)]
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


def _can_be_searched(found: _Found) -> bool:
    """Return whether there are enough, all with a ratio to one reference, and not it themselves."""
    rows = [row for _, row in found]
    one_reference = len({row["reference"] for row in rows}) == 1
    others = all(row["ratio"] and row["difference"] != "reference" for row in rows)
    return len(rows) >= FEWEST and one_reference and others


def _history(found: _Found, searched: int) -> History:
    records, rows = [record for record, _ in found], [row for _, row in found]
    first = rows[0]
    is_searched = _can_be_searched(found)
    return History(
        network=network_name(first),
        way=way(first),
        case=f"{case(first)}, {first['threads']} threads, {first['cpu']}",
        rows=rows,
        records=records,
        steps=find_steps([row["ratio"] for row in rows], searched) if is_searched else [],
        searched=searched if is_searched else 0,
    )
