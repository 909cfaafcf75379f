"""The data of a chart. `draw_plotly` renders it for pages, `draw_matplotlib` for paper."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from bench.report.study_data import StudyData

Kind = Literal["line", "points", "bars"]

# Okabe and Ito's palette, distinguishable with every common kind of colour blindness; in place of
# its yellow, which cannot be seen on white, Paul Tol's wine.
PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#882255",
)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "triangle-down", "star")
DASHES = ("solid", "dash", "dot", "dashdot")
_MOST_TICKS = 8
_GAP = 0.1  # share of a logarithmic axis that a label such as 100M needs
_DIGITS = (  # of the ticks of a logarithmic axis, from the densest
    (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9),
    (1, 1.5, 2, 3, 5, 7),
    (1, 2, 5),
    (1,),
)
_MOST_MARKED = 40  # points of a line, beyond which symbols hide it


class LegendEntry(NamedTuple):
    """How a network is shown in a chart.

    Attributes:
        name: name in the legend.
        style: number of its colour, symbol and dashes.
        label: name in hover texts, which may be longer.
        mark: number of its symbol, one of the chart's `marks`; None for that of its style.
    """

    name: str
    style: int
    label: str = ""
    mark: int | None = None


EntryOf = Callable[[Any], LegendEntry]  # from a run, target or row to its legend entry


def variant_entry(data: StudyData, variant: str, seed: int | None = None) -> LegendEntry:
    """Return the legend entry of a study's variant, or of its network of one random seed."""
    label = variant if seed is None else f"{variant}, seed {seed}"
    return LegendEntry(variant, data.style(variant), label)


def legend_entries(names: Mapping[str, str]) -> EntryOf:
    """Return the legend entries of networks, each with a style of its own.

    Args:
        names: key of a network → its name.
    """
    styles = {key: style for style, key in enumerate(names)}
    return lambda key: LegendEntry(names[key], styles[key], names[key])


def choose_marks(names: int, *choices: Sequence[str]) -> tuple[tuple[str, ...], Sequence[str]]:
    """Choose what symbols stand for in a chart whose colours stand for names.

    Args:
        names: number of names.
        choices: the texts of all points, once for each choice, the preferred one first.

    Returns:
        The chart's `marks`, and the text of each point. Without marks, all texts are empty: colours
        and symbols do not suffice for both, so each name has a pair of them.
    """
    for texts in choices:
        marks = tuple(dict.fromkeys(texts))
        if names <= 2 * len(PALETTE) and len(marks) <= len(SYMBOLS):
            return marks, texts
    return (), [""] * len(choices[0])


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        title: the quantity, with its unit.
        log: whether the scale is logarithmic.
        categories: labels at 0, 1, 2, …; empty for numbers.
        zero: whether to draw a line at zero.
        whole: whether ticks are at whole numbers only.
    """

    title: str
    log: bool = False
    categories: tuple[str, ...] = ()
    zero: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Series:
    """Points, lines or bars of one style.

    Attributes:
        name: name in the legend; series of one name are shown and hidden together.
        x: positions.
        y: positions, of the same length.
        kind: how they are drawn; `bars` reach from zero to x and are stacked on bars of earlier
            series at the same y.
        style: number of its colour, symbol and dashes; None for a neutral reference line.
        low: lower ends of intervals, of the same length; empty for none.
        high: upper ends.
        interval: whether intervals are drawn as a band along y, or as error bars along x or y.
        stepped: whether a line goes horizontally to the next point's position, then vertically.
        seconds: alternative positions along x, seconds of training; empty for none.
        detail: whether it is shown on request only, and not at all on paper.
        dashed: whether a line is dashed, whatever its style.
        hover: text of each point; empty for its two values.
        faint: whether to draw it lightly.
        labels: text beside each point; empty for none.
        mark: number of its symbol, one of the chart's `marks`; None for that of its style.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    kind: Kind = "points"
    style: int | None = None
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    interval: Literal["band", "x", "y"] = "band"
    stepped: bool = False
    seconds: Sequence[float] = ()
    detail: bool = False
    dashed: bool = False
    hover: Sequence[str] = ()
    faint: bool = False
    labels: Sequence[str] = ()
    mark: int | None = None

    @property
    def drawn(self) -> bool:
        """Whether anything is visible: a point that is finite in both directions."""
        x, y = np.asarray(self.x, dtype=float), np.asarray(self.y, dtype=float)
        return bool((np.isfinite(x) & np.isfinite(y)).any())

    @property
    def colour(self) -> str | None:
        """Colour of the palette; None for a neutral one."""
        return None if self.style is None else PALETTE[self.style % len(PALETTE)]

    @property
    def symbol(self) -> str | None:
        """Symbol, of `SYMBOLS`; once all colours are used, each is paired with another symbol."""
        if self.style is None:
            return None
        if self.mark is not None:
            return SYMBOLS[self.mark]
        return SYMBOLS[(self.style + self.style // len(PALETTE)) % len(SYMBOLS)]

    @property
    def hollow(self) -> bool:
        """Whether symbols are outlines: those of a second name of the same colour."""
        return self.mark is not None and (self.style or 0) >= len(PALETTE)

    @property
    def dash(self) -> str:
        """Dashes of a line, of `DASHES`."""
        return "dash" if self.dashed else DASHES[(self.style or 0) // len(PALETTE) % len(DASHES)]

    @property
    def marked(self) -> bool:
        """Whether symbols are drawn at the points."""
        if self.kind == "points":
            return True
        return self.kind == "line" and self.style is not None and len(self.x) <= _MOST_MARKED

    @property
    def has_band(self) -> bool:
        """Whether intervals are drawn as a band."""
        return self.interval == "band" and len(self.low) > 0

    @property
    def error_bars(self) -> tuple[list[float], list[float]] | None:
        """Lengths of the error bars below and above each point; None if there are none."""
        if self.interval == "band" or not len(self.low):
            return None
        centres = self.x if self.interval == "x" else self.y
        below = [centre - low for centre, low in zip(centres, self.low, strict=True)]
        return below, [high - centre for centre, high in zip(centres, self.high, strict=True)]


@dataclass(frozen=True)
class Chart:
    """One chart with its caption and its data.

    Attributes:
        key: a word of letters and hyphens, unique on a page; also the file's name.
        title: what it shows.
        caption: how to read it: what lines, bands and symbols are.
        x: horizontal axis.
        y: vertical axis.
        series: in drawing order.
        table: name of the page's table with the data behind it.
        data: the data behind it, if that is not a table of the results folder.
        absent: why there is nothing to draw; None if there is.
        command: the command that would change that, if one would.
        marks: what the symbols stand for, if colours alone stand for the names.
    """

    key: str
    title: str
    caption: str
    x: Axis
    y: Axis
    series: tuple[Series, ...] = ()
    table: str | None = None
    data: pd.DataFrame | None = None
    absent: str | None = None
    command: str | None = None
    marks: tuple[str, ...] = ()

    @property
    def missing(self) -> str | None:
        """Why nothing is drawn; None if something is."""
        if self.absent is not None:
            return self.absent
        if not any(s.drawn for s in self.series):
            return "Every value is missing or not a number: nothing can be drawn."
        return None


def line(
    entry: LegendEntry,
    rows: pd.DataFrame,
    y: str,
    hover: str,
    *,
    x: str | None = None,
    first: int = 1,
    scale: float = 1,
    **look: Any,
) -> Series:
    """Return one network's series, a line unless *look* says otherwise.

    Args:
        entry: the network's name and style.
        rows: one per point, in order.
        y: column of the values.
        hover: format of a point's text, from `label`, `value` and the columns of its row.
        x: column of the positions; None to number the rows from *first*.
        first: position of the first row.
        scale: factor of the values.
        look: further fields of `Series`.
    """
    values = (rows[y].astype(float) * scale).tolist()
    numbered = [float(number) for number in range(first, first + len(rows))]
    records: list[Any] = rows.to_dict("records")
    return Series(
        name=entry.name,
        x=numbered if x is None else rows[x].astype(float).tolist(),
        y=values,
        style=entry.style,
        hover=[
            hover.format(**{**row, "label": entry.label, "value": value})
            for row, value in zip(records, values, strict=True)
        ],
        **{"kind": "line", **look},
    )


def absent_chart(key: str, title: str, why: str, command: str | None = None) -> Chart:
    """Return a chart that only states why there is nothing to draw, and which command helps."""
    axis = Axis("")
    return Chart(key=key, title=title, caption="", x=axis, y=axis, absent=why, command=command)


def spread(chart: Chart, which: Literal["x", "y"]) -> tuple[float, float] | None:
    """Return the smallest and the largest finite value along an axis, ends of intervals too.

    Of a logarithmic axis, only positive values count. Returns None without any.
    """
    axis = chart.x if which == "x" else chart.y
    values: list[float] = [0.0] if axis.zero else []
    for series in chart.series:
        values += getattr(series, which)
        if which == ("y" if series.interval == "band" else series.interval):
            values += [*series.low, *series.high]
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known) & ((known > 0) | (not axis.log))]
    return (float(known.min()), float(known.max())) if known.size else None


def linear_range(chart: Chart, which: Literal["x", "y"]) -> tuple[float, float] | None:
    """Return the range of an axis with a line at zero, which is always within it."""
    ends = spread(chart, which)
    if ends is None:
        return None
    margin = 0.06 * (ends[1] - ends[0]) or 1.0
    return ends[0] - margin, ends[1] + margin


def log_axis(chart: Chart, which: Literal["x", "y"]) -> tuple[list[float], tuple[float, float]]:
    """Return the ticks and the range of a logarithmic axis, at least a third of a decade long."""
    low, high = spread(chart, which) or (1.0, 10.0)
    decades = log10(high / low)
    labels = any(label for series in chart.series for label in series.labels)
    margin = max((0.12 if labels else 0.05) * decades, (1 / 3 - decades) / 2)
    low, high = low / 10**margin, high * 10**margin
    ticks: list[float] = []
    for digits in _DIGITS:
        powers = range(floor(log10(low)), floor(log10(high)) + 1)
        ticks = [digit * 10.0**power for power in powers for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        gaps = [log10(after / before) for before, after in itertools.pairwise(ticks)]
        if len(ticks) <= _MOST_TICKS and min(gaps, default=1.0) >= _GAP * log10(high / low):
            break
    return ticks[:: max(1, -(-len(ticks) // _MOST_TICKS))], (low, high)


def tick_text(value: float) -> str:
    """Write a tick with a prefix from a thousand on; below one, milli would look like a unit."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.4g}{unit}"
    return f"{value:.4g}"


@dataclass(frozen=True)
class Section:
    """A section of the page with its charts.

    Attributes:
        key: a word, unique on a page.
        title: the heading.
        charts: in order.
        notes: paragraphs below the heading.
    """

    key: str
    title: str
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = ()
