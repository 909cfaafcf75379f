"""Charts as plotly traces and layouts."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any, Literal

from bench.report.charts.chart import SYMBOLS, linear_range, log_axis, tick_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.report.charts.chart import Axis, Chart, Series


def figure(chart: Chart) -> dict[str, Any]:
    """Return a chart as `data` and `layout` for plotly; the page fills in the colours.

    Each trace's `meta` holds the name in the legend and the colour (null for the text's
    colour), which the page adapts to a light or dark background.
    """
    traces = [trace for series in chart.series if series.drawn for trace in _traces(series)]
    layout = {"xaxis": _axis(chart, "x", chart.x), "yaxis": _axis(chart, "y", chart.y)}
    marks = [[name, symbol] for name, symbol in zip(chart.marks, SYMBOLS, strict=False)]
    return {"data": traces, "layout": layout, "rows": len(chart.y.categories), "marks": marks}


def _traces(series: Series) -> list[dict[str, Any]]:
    trace: dict[str, Any] = {
        "type": "bar" if series.kind == "bars" else "scatter",
        "x": _numbers(series.x),
        "y": _numbers(series.y),
        "name": plain(series.name),
        "meta": _meta(series, faint=series.faint),
        "marker": {"symbol": f"{series.symbol}-open" if series.hollow else series.symbol},
        "hovertext": [plain(text) for text in series.hover],
        "hoverinfo": "text+name" if len(series.hover) else "x+y+name",
    }
    if len(series.labels):
        # plotly drops texts that stand among empty ones
        texts = [plain(text) or " " for text in series.labels]
        trace |= {"text": texts, "textposition": "top center"}
    if series.kind == "bars":
        trace["orientation"] = "h"
    else:
        parts = ["lines"] if series.kind == "line" else []
        parts += ["markers"] * series.marked + ["text"] * (len(series.labels) > 0)
        trace["mode"] = "+".join(parts)
        trace["marker"]["size"] = 6 if series.faint or series.kind == "line" else 10
        if series.hollow:
            trace["marker"]["line"] = {"width": 2}
    if series.kind == "line":
        width = 1 if series.detail else (1.5 if series.style is None else 2)
        trace["line"] = {"width": width, "dash": series.dash}
        if series.stepped:
            trace["line"]["shape"] = "hv"
    if series.error_bars is not None:
        below, above = series.error_bars
        trace[f"error_{series.interval}"] = {
            "type": "data",
            "symmetric": False,
            "array": above,
            "arrayminus": below,
            "thickness": 2,
            "width": 5,
        }
    return [_band(series), trace] if series.has_band else [trace]


def _meta(series: Series, **more: Any) -> dict[str, Any]:
    """Return what the page needs of a trace, besides plotly."""
    found = {"name": series.name, "colour": series.colour, **more}
    if len(series.seconds):
        found["seconds"] = _numbers(series.seconds)
    return found | ({"detail": True} if series.detail else {})


def _band(series: Series) -> dict[str, Any]:
    x = _numbers(series.x)
    meta = _meta(series, band=True)
    if "seconds" in meta:
        meta["seconds"] += meta["seconds"][::-1]
    return {
        "type": "scatter",
        "x": [*x, *x[::-1]],
        "y": [*_numbers(series.high), *_numbers(series.low)[::-1]],
        "mode": "lines",
        "line": {"width": 0},
        "fill": "toself",
        "hoverinfo": "skip",
        "meta": meta,
    }


def _axis(chart: Chart, which: Literal["x", "y"], axis: Axis) -> dict[str, Any]:
    made: dict[str, Any] = {"title": {"text": plain(axis.title)}, "zeroline": axis.zero}
    if axis.zero:
        made["range"] = linear_range(chart, which)
    if axis.log:
        ticks, (low, high) = log_axis(chart, which)
        made |= {"type": "log", "range": [math.log10(low), math.log10(high)], "tickmode": "array"}
        made |= {"tickvals": ticks, "ticktext": [tick_text(tick) for tick in ticks]}
    if axis.whole:
        made["whole"] = True
    if axis.categories:
        count = len(axis.categories)
        made |= {
            "tickmode": "array",
            "tickvals": list(range(count)),
            "ticktext": [plain(label) for label in axis.categories],
            "range": [-0.6, count - 0.4],
            "showgrid": False,
        }
    return made


def _numbers(values: Iterable[float]) -> list[float | None]:
    """Return values with seven digits, more than a picture shows; JSON has no NaN."""
    return [float(f"{float(v):.7g}") if math.isfinite(v) else None for v in values]


def plain(text: str) -> str:
    """Escape text so that plotly does not interpret tags and entities in it."""
    return html.escape(text, quote=False)
