"""Charts as SVG and PNG files for papers and Markdown pages.

matplotlib is imported inside functions: a report without pictures does not need it.
"""

from __future__ import annotations

import textwrap
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bench.report.charts.chart import (
    DASHES,
    SYMBOLS,
    Chart,
    Series,
    linear_range,
    log_axis,
    tick_text,
)
from bench.store.files import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bench.report.charts.confusion import Matrix

STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "svg.fonttype": "none",  # keep text as text
    "pdf.fonttype": 42,  # fonts that publishers accept
    "svg.hashsalt": "bench",  # the same picture as the same bytes
    "text.parse_math": False,  # a $ in a name is a $
    "figure.dpi": 120,
}

_MARKERS = dict(zip(SYMBOLS, ("o", "s", "D", "^", "x", "P", "v", "*"), strict=True))
_DASHES = dict(zip(DASHES, ("-", "--", ":", "-."), strict=True))
_NEUTRAL = "#595f69"
_WIDTH, _HEIGHT = 4.5, 3.0  # inches; a column of a paper
_KINDS: dict[str, Any] = {  # file ending → how it is saved, the same picture as the same bytes
    "svg": {"metadata": {"Date": None}},
    "png": {"metadata": {"Software": None}, "dpi": 160},
    "pdf": {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
}
FOR_SCREENS = ("svg", "png")
FOR_PAPERS = ("svg", "png", "pdf")
_ROW, _DENSE_ROW = 0.28, 0.17  # inches per category
_DARK = 0.6  # share above which black text is hard to read
_LEGEND_SIZE = 8  # points
_ONE_LINE = 0.21  # inches; height of a legend of one line
_DENSE = 20  # categories above which they are set closer and smaller
_MOST_ROWS = 100  # labels of categories; of more, not every one is written
_MOST_NAMED = 40  # names in a legend; more would be larger than the chart
_LEVEL = 3  # categories across whose names fit without rotation


@contextmanager
def style() -> Iterator[None]:
    """Draw in our style, without warnings about signs that the font lacks: SVG keeps the text."""
    import matplotlib as mpl

    with warnings.catch_warnings(), mpl.rc_context(STYLE):
        warnings.filterwarnings("ignore", "Glyph .* missing")
        yield


def save_charts(
    charts: Iterable[Chart],
    folder: Path,
    kinds: Sequence[str] = FOR_SCREENS,
    width: float | None = None,
) -> list[Path]:
    """Save every chart that has something to show under its key; return the files.

    Args:
        charts: the charts.
        folder: where to write; made if it is not there.
        kinds: file endings: `svg`, `png`, `pdf`.
        width: of each figure, inches (default: a column of a paper).

    Raises:
        StorageError: the folder cannot be written.
    """
    drawn = [(draw(chart, width), chart.key) for chart in charts if chart.missing is None]
    return [path for figure, key in drawn for path in save_figure(figure, folder, key, kinds)]


def save_figure(
    figure: Figure, folder: Path, name: str, kinds: Sequence[str] = FOR_SCREENS
) -> list[Path]:
    """Save a figure into *folder*, once for each of *kinds*; return the files.

    Raises:
        StorageError: the folder cannot be written.
    """
    paths = [folder / f"{name}.{kind}" for kind in kinds]
    with storage_errors(folder), style():
        folder.mkdir(parents=True, exist_ok=True)
        for path, kind in zip(paths, kinds, strict=True):
            figure.savefig(path, **_KINDS[kind])
    return paths


def draw(chart: Chart, width: float | None = None) -> Figure:
    """Draw a chart without its title and caption, as wide as a column of a paper by default."""
    from matplotlib.figure import Figure

    rows = len(chart.y.categories)
    with style():
        figure = Figure(figsize=(width or _WIDTH, _height([chart])), layout="constrained")
        handles = _draw_chart(figure.subplots(), chart)
        if len(handles) > 1 or not rows:
            _legend(figure, handles, columns=3)
    return figure


def draw_row(charts: Sequence[Chart]) -> Figure:
    """Draw charts side by side, with their titles and one legend.

    A chart with nothing to show is replaced by the reason.
    """
    from matplotlib.figure import Figure

    with style():
        size = (3.4 * len(charts), max(_HEIGHT, _height(charts)))
        figure = Figure(figsize=size, layout="constrained")
        handles: dict[str, Any] = {}
        for axes, chart in zip(
            figure.subplots(1, len(charts), squeeze=False)[0], charts, strict=True
        ):
            # Long variant names leave narrow axes, and room to their left.
            side = "right" if chart.y.categories else "center"
            axes.set_title(textwrap.fill(chart.title, 32), loc=side)
            if chart.missing is None:
                handles = {**handles, **_draw_chart(axes, chart), **handles}
                axes.set_xlabel(axes.get_xlabel(), loc=side)
            else:
                axes.set_axis_off()
                words = textwrap.fill(chart.missing, 32)
                axes.text(0.5, 0.5, words, ha="center", va="center", color=_NEUTRAL)
        _legend(figure, handles, columns=2 * len(charts))
    return figure


def draw_matrix(matrix: Matrix) -> Figure:
    """Draw a confusion matrix: true classes down, predicted classes across, shares as shades."""
    from matplotlib.figure import Figure

    count = len(matrix.classes)
    shares = np.array([[share for _, share in cells] for _, cells in matrix.rows])
    with style():
        figure = Figure(figsize=(1.6 + 0.32 * count, 1.4 + 0.3 * count), layout="constrained")
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), images in np.ndenumerate(matrix.counts):
            shade = "white" if shares[row, column] > _DARK else "black"
            text = str(images) if images else ""
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=shade)
        axes.set_xticks(range(count), matrix.classes, rotation=90)
        axes.set_yticks(range(count), matrix.classes)
        axes.set(xlabel="taken for", ylabel="true class")
    return figure


def _height(charts: Sequence[Chart]) -> float:
    rows = min(_MOST_ROWS, max(len(chart.y.categories) for chart in charts))
    each = _ROW if rows <= _DENSE else _DENSE_ROW
    return max(2.0, 0.8 + each * rows) if rows else _HEIGHT


def _legend(figure: Figure, handles: dict[str, Any], *, columns: int) -> None:
    """Place the legend above the axes in as many columns as fit, and make the figure higher."""
    if not handles:
        return
    placed: dict[str, Any] = {"loc": "outside upper left", "frameon": False}
    if len(handles) > _MOST_NAMED:
        figure.legend([], [], title=f"{len(handles)} names, which are not listed", **placed)
        return
    room = figure.bbox.width - _LEGEND_SIZE * figure.dpi / 72  # the gaps on both sides
    for count in range(min(columns, len(handles)), 0, -1):
        legend = figure.legend(
            handles.values(), handles, fontsize=_LEGEND_SIZE, ncols=count, **placed
        )
        wider = legend.get_window_extent().width - room
        if wider <= 0 or count == 1:
            break
        legend.remove()
    if wider > 0:
        most = max(text.get_window_extent().width for text in legend.get_texts()) - wider
        for text in legend.get_texts():
            name, lines = text.get_text(), 1
            while text.get_window_extent().width > most:
                lines += 1
                text.set_text(textwrap.fill(name, -(-len(name) // lines)))
    height = legend.get_window_extent().height / figure.dpi
    figure.set_figheight(figure.get_figheight() + max(0, height - _ONE_LINE))


def _draw_chart(axes: Axes, chart: Chart) -> dict[str, Any]:
    """Draw a chart; return name → handle for a legend, of series with one name the first."""
    ends: dict[float, float] = {}
    handles: dict[str, Any] = {}
    for series in chart.series:
        if series.drawn and not series.detail:
            bars = series.kind == "bars"
            drawn = _draw_bars(axes, series, ends) if bars else _draw_points(axes, series)
            if chart.marks and series.mark is not None:
                drawn = _swatch(series)  # symbols are explained by themselves
            handles.setdefault(series.name, drawn)
    for name, symbol in zip(chart.marks, SYMBOLS, strict=False):
        (handles[name],) = axes.plot([], [], _MARKERS[symbol], color=_NEUTRAL)
    _set(axes, "x", chart)
    _set(axes, "y", chart)
    return handles


def _swatch(series: Series) -> Any:
    """Return a rectangle for the legend in the colour of a series, filled as its symbols are."""
    from matplotlib.patches import Patch

    face = "none" if series.hollow else series.colour
    return Patch(facecolor=face, edgecolor=series.colour)


def _draw_bars(axes: Axes, series: Series, ends: dict[float, float]) -> Any:
    """Draw bars stacked on earlier ones at the same position; *ends* is where those end."""
    starts = [ends.get(place, 0.0) for place in series.y]
    ends |= {y: start + x for y, start, x in zip(series.y, starts, series.x, strict=True)}
    colour = series.colour or _NEUTRAL
    return axes.barh(list(series.y), list(series.x), left=starts, color=colour, height=0.75)


def _draw_points(axes: Axes, series: Series) -> Any:
    """Draw points, a line or steps, with their intervals and labels; return their handle."""
    colour = series.colour or _NEUTRAL
    x, y = list(series.x), list(series.y)
    if series.has_band:
        axes.fill_between(x, series.low, series.high, color=colour, alpha=0.17, lw=0)
    look: dict[str, Any] = {
        "color": colour,
        "alpha": 0.5 if series.faint else 1,
        "markersize": 3 if series.faint else 5,
        "linestyle": "none" if series.kind == "points" else _DASHES[series.dash],
    }
    if series.stepped:
        look["drawstyle"] = "steps-post"
    if series.marked:
        look["marker"] = _MARKERS[series.symbol or "circle"]
    if series.hollow:
        look["markerfacecolor"] = "none"
    if series.error_bars is not None:
        ends: Any = {f"{series.interval}err": series.error_bars}
        handle: Any = axes.errorbar(x, y, **ends, capsize=2, **look)
    else:
        (handle,) = axes.plot(x, y, **look)
    for text, across, up in zip(series.labels, x, y, strict=bool(series.labels)):
        if text:
            place: Any = {"textcoords": "offset points", "ha": "center"}
            axes.annotate(text, (across, up), (0, 5), fontsize=7, color=_NEUTRAL, **place)
    return handle


def _set(axes: Axes, which: Literal["x", "y"], chart: Chart) -> None:
    from matplotlib.ticker import MaxNLocator

    axis = chart.x if which == "x" else chart.y
    own = getattr(axes, f"{which}axis")
    axes.set(**{f"{which}label": axis.title})
    if axis.log:
        _set_log(axes, which, chart)
    elif axis.whole:
        own.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if axis.zero:
        (axes.axvline if which == "x" else axes.axhline)(0, color=_NEUTRAL, lw=0.8)
        axes.set(**{f"{which}lim": linear_range(chart, which)})
    if axis.categories:
        turned = which == "x" and len(axis.categories) > _LEVEL
        step = -(-len(axis.categories) // _MOST_ROWS)
        own.set_ticks(
            range(0, len(axis.categories), step),
            labels=axis.categories[::step],
            fontsize=7 if turned or len(axis.categories) > _DENSE else None,
            rotation=90 if turned else 0,
        )
        axes.set(**{f"{which}lim": (-0.6, len(axis.categories) - 0.4)})


def _set_log(axes: Axes, which: Literal["x", "y"], chart: Chart) -> None:
    from matplotlib.ticker import NullLocator

    ticks, ends = log_axis(chart, which)
    axes.set(**{f"{which}scale": "log", f"{which}lim": ends})
    own = getattr(axes, f"{which}axis")
    own.set_ticks(ticks, labels=[tick_text(tick) for tick in ticks])
    own.set_minor_locator(NullLocator())
