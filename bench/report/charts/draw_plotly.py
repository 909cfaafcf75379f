"""Charts as plotly's traces and layouts."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.report.charts.chart import Axis, Chart, Series

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "triangle-down", "star")


def figure(chart: Chart) -> dict[str, Any]:
    """A chart as `data` and `layout` for plotly, colours left to the page.

    Each trace's `meta` holds the legend's name and the number of its style (null for the
    text's colour), from which the page colours it for a light or a dark ground.
    """
    traces = [trace for series in chart.series if series.drawn for trace in _traces(series)]
    layout = {"xaxis": _axis(chart.x), "yaxis": _axis(chart.y)}
    longest = max(map(len, chart.y.categories), default=0)
    rows = len(chart.y.categories)
    return {"data": traces, "layout": layout, "rows": rows, "longest": longest}


def _traces(series: Series) -> list[dict[str, Any]]:
    traces = []
    if series.interval == "band" and len(series.low):
        traces.append(_band(series))
    trace: dict[str, Any] = {
        "type": "bar" if series.kind == "bars" else "scatter",
        "x": _numbers(series.x),
        "y": _numbers(series.y),
        "name": plain(series.name),
        "meta": {"name": series.name, "style": series.style, "faint": series.faint},
        "hovertext": [plain(text) for text in series.hover],
        "hoverinfo": "text+name" if len(series.hover) else "x+y+name",
    }
    if len(series.labels):
        # plotly drops texts that stand among empty ones
        texts = [plain(text) or " " for text in series.labels]
        trace |= {"text": texts, "textposition": "top center"}
    if series.kind == "bars":
        trace["orientation"] = "h"
    elif series.kind == "points":
        trace |= {"mode": _mode("markers", series), "marker": {"size": 6 if series.faint else 10}}
    else:
        marks = len(series.x) <= 40 and series.style is not None and series.kind == "line"  # noqa: PLR2004 - beyond, marks hide the line
        trace |= {
            "mode": _mode("lines+markers" if marks else "lines", series),
            "marker": {"size": 6},
        }
        trace["line"] = {
            "width": 2,
            "dash": "dash" if series.dashed else "solid",
            "shape": "hv" if series.kind == "steps" else "linear",
        }
    if series.interval != "band" and len(series.low):
        centre = series.x if series.interval == "x" else series.y
        trace[f"error_{series.interval}"] = {
            "type": "data",
            "symmetric": False,
            "array": [h - c for c, h in zip(centre, series.high, strict=True)],
            "arrayminus": [c - low for c, low in zip(centre, series.low, strict=True)],
            "thickness": 2,
            "width": 5,
        }
    return [*traces, trace]


def _mode(mode: str, series: Series) -> str:
    return f"{mode}+text" if len(series.labels) else mode


def _band(series: Series) -> dict[str, Any]:
    x = _numbers(series.x)
    return {
        "type": "scatter",
        "x": [*x, *x[::-1]],
        "y": [*_numbers(series.high), *_numbers(series.low)[::-1]],
        "mode": "lines",
        "line": {"width": 0},
        "fill": "toself",
        "hoverinfo": "skip",
        "meta": {"name": series.name, "style": series.style, "band": True},
    }


def _axis(axis: Axis) -> dict[str, Any]:
    made: dict[str, Any] = {"title": {"text": plain(axis.title)}, "zeroline": axis.zero}
    if axis.log:
        made["type"] = "log"
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
    """JSON knows no NaN; seven digits are more than a picture shows."""
    return [float(f"{float(v):.7g}") if math.isfinite(v) else None for v in values]


def plain(text: str) -> str:
    """Text that plotly shows as it is: it would read tags and entities otherwise."""
    return html.escape(text, quote=False)
