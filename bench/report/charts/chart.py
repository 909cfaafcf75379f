"""A chart as data, drawn alike on the page (plotly) and on paper (matplotlib)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

Kind = Literal["line", "points", "bars", "steps"]


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        title: what it shows, with its unit.
        log: logarithmic.
        categories: labels at 0, 1, 2, …; empty for numbers.
        zero: draw a line at zero.
        whole: ticks at whole numbers only.
    """

    title: str
    log: bool = False
    categories: tuple[str, ...] = ()
    zero: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Series:
    """Marks of one colour.

    Attributes:
        name: what the legend calls it; series of one name are shown and hidden together.
        x: positions.
        y: positions, of the same length.
        kind: how they are drawn; `steps` hold their value until the next point, `bars` lie
            from zero to x, behind bars of earlier series at the same y.
        style: number of its colour and symbol; None for a neutral line of reference.
        low: lower ends of intervals, of the same length; empty for none.
        high: upper ends.
        interval: drawn as a band (along y) or as bars along an axis.
        dashed: drawn with dashes.
        hover: text of each mark; empty for its two values.
        faint: drawn lightly, behind the others.
        labels: text beside each mark; empty for none.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    kind: Kind = "points"
    style: int | None = None
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    interval: Literal["band", "x", "y"] = "band"
    dashed: bool = False
    hover: Sequence[str] = ()
    faint: bool = False
    labels: Sequence[str] = ()

    @property
    def drawn(self) -> bool:
        """Whether it has a mark at all: a point that is finite in both directions."""
        x, y = np.asarray(self.x, dtype=float), np.asarray(self.y, dtype=float)
        return bool((np.isfinite(x) & np.isfinite(y)).any())


@dataclass(frozen=True)
class Chart:
    """One picture with its words and its data.

    Attributes:
        key: a word of letters and hyphens, unique on a page; also the file's name.
        title: what it shows.
        caption: how to read it: what lines, bands and marks are.
        x: horizontal axis.
        y: vertical axis.
        series: in drawing order.
        table: name of the page's table with the data behind it.
        data: the data behind it, where that is no table of the results folder.
        absent: why there is nothing to draw and what would change that; None if there is.
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

    @property
    def missing(self) -> str | None:
        """Why nothing is drawn, None if something is."""
        if self.absent is not None:
            return self.absent
        if not any(s.drawn for s in self.series):
            return "Every value is missing or not a number: nothing can be drawn."
        return None


@dataclass(frozen=True)
class Section:
    """A heading of the page with its charts.

    Attributes:
        key: a word, unique on a page.
        title: the heading.
        charts: in order.
        notes: paragraphs below the heading.
    """

    key: str
    title: str
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = field(default=())
