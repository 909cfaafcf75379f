"""Chart of what int8 costs, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.report.charts.chart import Axis, Chart, Series

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def sensitivity_chart(
    effects: Sequence[Mapping[str, Any]], key: str, title: str, *, most: int | None = None
) -> Chart:
    """Chart the effect of quantising each layer alone, the most sensitive on top.

    Args:
        effects: `bench.export.sensitivity.Effect` as dictionaries, the most sensitive first.
        key: key of the chart.
        title: title of the chart.
        most: number of layers to show (default: all).
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
        caption="Change of the logits when this layer alone is quantised, relative to their norm "
        f"(root mean square over the calibration images).{others}",
        x=Axis("change of the logits (%)"),
        y=Axis("", categories=tuple(str(effect["layer"]) for effect in shown)),
        series=tuple(series),
        data=pd.DataFrame([dict(effect) for effect in effects]),
    )
