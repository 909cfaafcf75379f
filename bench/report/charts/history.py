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


def history_charts(histories: Sequence[History]) -> list[Chart]:
    """Make two charts of each network and batch size: of ratios to the reference, of images/s."""
    groups: dict[tuple[str, str], list[History]] = {}
    for one in histories:
        groups.setdefault((one.network, one.case), []).append(one)
    charts = []
    for number, ((network, case), members) in enumerate(groups.items(), 1):
        for name, title in (("ratio", "Ratio to the reference"), ("images", "Images/s")):
            chart = _chart(name, f"{title}: {network}, {case}", members, number)
            if chart.missing is None:
                charts.append(chart)
    return charts


def _chart(name: str, title: str, members: Sequence[History], number: int) -> Chart:
    identities = sorted({r.measurement for one in members for r in one.records})
    dates = {r.measurement: r.created_at[:10] for one in members for r in one.records}
    column = "ratio" if name == "ratio" else "images_per_second"
    low, high = ("ratio_low", "ratio_high") if name == "ratio" else ("ci_low", "ci_high")
    series: list[Series] = []
    for style, one in enumerate(members):
        kept = [
            (identities.index(record.measurement), row)
            for record, row in zip(one.records, one.rows, strict=True)
            if row[column] is not None and not (name == "ratio" and _is_reference(row))
        ]
        x, values = [float(place) for place, _ in kept], [row[column] for _, row in kept]
        series.append(
            Series(
                one.way, x, values, "line", style,
                low=[row[low] or row[column] for _, row in kept],
                high=[row[high] or row[column] for _, row in kept],
            )
        )  # fmt: skip
        steps = one.ratio_steps if name == "ratio" else one.speed_steps
        series += _levels(x, values, steps, style)
    slug = re.sub(r"[^a-z]+", "-", members[0].network.lower()).strip("-")
    return Chart(
        key=f"history-{name}-{slug}-{number}",
        title=title,
        caption="Bands are the 95 % intervals of the measurements; dashed levels are the means "
        "between two steps, where there is one.",
        x=Axis("measurement", categories=tuple(dates[identity] for identity in identities)),
        y=Axis("ratio" if name == "ratio" else "images/s"),
        series=tuple(series),
    )


def _is_reference(row: dict[str, object]) -> bool:
    return row["difference"] == "reference"


def _levels(
    x: Sequence[float], values: Sequence[float], steps: Sequence[Step], style: int
) -> list[Series]:
    """Return a dashed line at the mean of each stretch between two steps; none without a step."""
    if not steps:
        return []
    ends = [0, *(step.place for step in steps), len(values)]
    return [
        Series(
            "mean between steps", [x[begin], x[end - 1]],
            [geometric_mean(values[begin:end])] * 2, "line", style, dashed=True,
        )
        for begin, end in itertools.pairwise(ends)
    ]  # fmt: skip
