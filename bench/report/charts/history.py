"""Charts of a configuration's speed over repeated measurements."""

from __future__ import annotations

import itertools
import re
from statistics import geometric_mean
from typing import TYPE_CHECKING

from bench.report.charts.chart import Axis, Chart, Series

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.findings.history import History, Step

# In the key → title, unit, and columns of the value and the ends of its interval.
_FIGURES = {
    "ratio": ("Ratio to the reference", "ratio", "ratio", "ratio_low", "ratio_high"),
    "images": ("Images/s", "images/s", "images_per_second", "ci_low", "ci_high"),
}


def history_charts(histories: Sequence[History]) -> list[Chart]:
    """Make two charts of each network and batch size: of ratios to the reference, of images/s."""
    groups: dict[tuple[str, str], list[History]] = {}
    for one in histories:
        groups.setdefault((one.network, one.case), []).append(one)
    charts = [
        _chart(figure, members, number)
        for number, members in enumerate(groups.values(), 1)
        for figure in _FIGURES
    ]
    return [chart for chart in charts if chart.missing is None]


def _chart(figure: str, members: Sequence[History], number: int) -> Chart:
    title, unit, column, low, high = _FIGURES[figure]
    network, case = members[0].network, members[0].case
    dates = {r.measurement: r.created_at[:10] for one in members for r in one.records}
    identities = sorted(dates)
    series: list[Series] = []
    for style, one in enumerate(members):
        kept = [
            (identities.index(record.measurement), row)
            for record, row in zip(one.records, one.rows, strict=True)
            if row[column] is not None
            and not (figure == "ratio" and row["difference"] == "reference")
        ]
        x, values = [float(place) for place, _ in kept], [row[column] for _, row in kept]
        lows, highs = ([row[end] or row[column] for _, row in kept] for end in (low, high))
        series.append(Series(one.way, x, values, "line", style, lows, highs))
        if figure == "ratio":
            series += _levels(x, values, one.steps, style)
    slug = re.sub(r"[^a-z]+", "-", network.lower()).strip("-")
    return Chart(
        key=f"history-{figure}-{slug}-{number}",
        title=f"{title}: {network}, {case}",
        caption="Bands are the 95 % intervals of the measurements; dashed levels are the means "
        "between two steps, where there is one (of ratios only).",
        x=Axis("measurement", categories=tuple(dates[identity] for identity in identities)),
        y=Axis(unit),
        series=tuple(series),
    )


def _levels(
    x: Sequence[float], values: Sequence[float], steps: Sequence[Step], style: int
) -> list[Series]:
    """Return a dashed line at the mean of each stretch between two steps; none without a step."""
    if not steps:
        return []
    ends = [0, *(step.place for step in steps), len(values)]
    levels = []
    for begin, end in itertools.pairwise(ends):
        across, mean = [x[begin], x[end - 1]], geometric_mean(values[begin:end])
        levels.append(Series("mean between steps", across, [mean] * 2, "line", style, dashed=True))
    return levels
