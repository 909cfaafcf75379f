"""The page's charts as SVG and PNG files for papers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.report.page.material import gather
from bench.report.page.sections import sections
from bench.report.plots import PALETTE, STYLE, save_figure

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bench.report.page.chart import Axis, Chart, Series
    from bench.store import Store

# In the order of `bench.report.page.marks.SYMBOLS`.
_MARKERS = ("o", "s", "D", "^", "x", "P", "v", "*")
_DASHES = ("-", "--", ":", "-.")
_NEUTRAL = "#595f69"
_THOUSAND = 1000  # below, a prefix (milli) would stand beside the unit


def save_figures(store: Store, study: str, folder: Path) -> list[Path]:
    """Save every chart of a study's page that has something to show; returns the files.

    Raises:
        BenchError: there is no such study.
        StorageError: the folder cannot be written.
    """
    written = []
    for section in sections(gather(store, study)):
        for chart in section.charts:
            if chart.missing is None:
                written += save_figure(draw(chart), folder, chart.key)
    return written


def draw(chart: Chart) -> Figure:
    """Draw a chart, as wide as a column of a paper, without its title and caption."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = len(chart.y.categories)
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(4.5, max(2.0, 0.8 + 0.28 * rows) if rows else 3), layout="constrained"
        )
        axes = figure.subplots()
        for series in chart.series:
            if series.drawn:
                _draw(axes, series)
        _set(axes, "x", chart.x)
        _set(axes, "y", chart.y)
        shown = {
            name: handle for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        if len(shown) > 1 or not rows:
            columns = 1 if max(map(len, shown)) > 24 else 3  # noqa: PLR2004 - what fits beside
            lines = -(-len(shown) // columns)
            figure.set_figheight(figure.get_figheight() + 0.18 * (lines - 1))
            figure.legend(
                shown.values(), shown.keys(), loc="outside upper left", frameon=False, fontsize=8,
                ncols=columns,
            )  # fmt: skip
    return figure


def _draw(axes: Axes, series: Series) -> None:
    style = series.style
    colour = _NEUTRAL if style is None else PALETTE[style % len(PALETTE)]
    x, y = list(series.x), list(series.y)
    if series.kind == "bars":
        axes.barh(y, x, color=colour, label=series.name, height=0.75)
        return
    if len(series.low) and series.interval == "band":
        axes.fill_between(x, series.low, series.high, color=colour, alpha=0.17, lw=0)
    look: dict[str, Any] = {
        "color": colour, "label": series.name, "alpha": 0.5 if series.faint else 1,
        "markersize": 3 if series.faint else 5,
    }  # fmt: skip
    if style is not None and (series.kind == "points" or len(x) <= 40):  # noqa: PLR2004 - as on the page
        look["marker"] = _MARKERS[style % len(_MARKERS)]
    look["linestyle"] = "none" if series.kind == "points" else _dash(series)
    if series.kind == "steps":
        look["drawstyle"] = "steps-post"
    if len(series.low) and series.interval != "band":
        centre = x if series.interval == "x" else y
        ends = [
            [c - low for c, low in zip(centre, series.low, strict=True)],
            [high - c for c, high in zip(centre, series.high, strict=True)],
        ]
        look[f"{series.interval}err"] = ends
        axes.errorbar(x, y, capsize=2, **look)
    else:
        axes.plot(x, y, **look)


def _dash(series: Series) -> str:
    if series.dashed:
        return "--"
    return _DASHES[(series.style or 0) // len(PALETTE) % len(_DASHES)]


def _set(axes: Axes, which: str, axis: Axis) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

    own = axes.xaxis if which == "x" else axes.yaxis
    own.set_label_text(axis.title)
    if axis.log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
        narrow = high < 10 * low  # a decade's power alone would be one tick or none
        thousands = EngFormatter(sep="")
        own.set_major_locator(LogLocator(subs=(1, 1.5, 2, 2.5, 3, 4, 5, 6, 8) if narrow else (1,)))
        own.set_major_formatter(
            lambda value, _: thousands(value) if abs(value) >= _THOUSAND else f"{value:g}"
        )
        own.set_minor_formatter(NullFormatter())
    elif axis.whole:
        own.set_major_locator(MaxNLocator(integer=True))
    if axis.zero:
        (axes.axvline if which == "x" else axes.axhline)(0, color=_NEUTRAL, lw=0.8)
    if axis.categories:
        own.set_ticks(range(len(axis.categories)), labels=list(axis.categories))
        (axes.set_xlim if which == "x" else axes.set_ylim)(-0.6, len(axis.categories) - 0.4)
