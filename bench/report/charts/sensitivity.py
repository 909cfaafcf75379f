"""What int8 costs, layer by layer, as a chart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.report.charts.chart import Axis, Chart, Series

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def sensitivity_chart(
    effects: Sequence[Mapping[str, Any]], key: str, title: str, *, most: int | None = None
) -> Chart:
    """Make a bar for each layer that int8 alone was given to, the most sensitive on top.

    Args:
        effects: `bench.export.sensitivity.Effect` as dictionaries, the most sensitive first.
        key: of the chart.
        title: of the chart.
        most: show so many; all without.
    """
    shown = list(effects[:most])[::-1]
    series = []
    for kept, name in ((False, "int8"), (True, "kept in fp32")):
        places = [place for place, effect in enumerate(shown) if effect["kept"] is kept]
        values = [shown[place]["effect"] * 100 for place in places]
        hover = [
            f"{shown[place]['layer']}: {value:.3g} %"
            for place, value in zip(places, values, strict=True)
        ]
        series.append(Series(name, values, places, "bars", int(kept), hover=hover))
    left = len(effects) - len(shown)
    others = f" The most sensitive {len(shown)} of {len(effects)} layers." if left else ""
    return Chart(
        key=key,
        title=title,
        caption="How far the logits move when this layer alone is quantised, relative to their "
        f"length (root of the mean square over calibration images).{others}",
        x=Axis("change of the logits (%)"),
        y=Axis("", categories=tuple(str(effect["layer"]) for effect in shown)),
        series=tuple(series),
        data=pd.DataFrame([dict(effect) for effect in effects]),
    )
