"""Charts of the loss around trained weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bench.report.charts.chart import Axis, Chart, EntryOf, LegendEntry, Series, line

if TYPE_CHECKING:
    import pandas as pd

_LEVELS = 9  # of a map
_STEP = "step (1: the length of each filter)"


def landscape_charts(rows: pd.DataFrame, entry_of: EntryOf) -> tuple[Chart, ...]:
    """Chart lines and planes through the weights of trained networks.

    Args:
        rows: rows of the `landscapes` table, with at most one line and one plane per run.
        entry_of: the legend entry of a run.

    Returns:
        For lines, a chart of losses and one of accuracies (Li et al. 2018, figure 2); for planes,
        a contour map for each run, with the same levels (figure 1).
    """
    lines, planes = rows[rows["y"].isna()], rows[rows["y"].notna()]
    charts = []
    if len(lines):
        hover = "{label}: {value:.4g} at {x:+.3g}"
        for column, y, scale in (
            ("loss", Axis("loss", log=True), 1),
            ("accuracy", Axis("accuracy (%)"), 100),
        ):
            series = [
                line(entry_of(run), part, column, hover, x="x", scale=scale)
                for run, part in lines.groupby("run", sort=False)
            ]
            charts.append(
                Chart(
                    key=f"landscape-{column}",
                    title=f"{column.capitalize()} around the weights",
                    caption="Along one random direction, scaled filter by filter (Li et al. "
                    f"2018); {_images(lines)}",
                    x=Axis(_STEP),
                    y=y,
                    series=tuple(series),
                    table="landscapes",
                )
            )
    maps = list(planes.groupby("run", sort=False))
    levels = _levels(planes["loss"]) if maps else []
    for number, (run, part) in enumerate(maps, 1):
        key = "landscape-map" if number == 1 else f"landscape-map-{number}"
        charts.append(_map(part, entry_of(run), key, levels))
    return tuple(charts)


def _images(rows: pd.DataFrame) -> str:
    """Name the images that the loss was computed on."""
    kinds = rows[["split", "images"]].drop_duplicates().itertuples(index=False)
    return "; ".join(f"{images:,} {split} images" for split, images in kinds) + "."


def _levels(losses: pd.Series[float]) -> list[float]:
    """Return losses at equal ratios between the lowest and the highest."""
    known = losses[losses > 0]
    if known.empty:
        return []
    found: list[float] = np.geomspace(known.min(), known.max(), _LEVELS + 2)[1:-1].tolist()
    return found


def _map(rows: pd.DataFrame, entry: LegendEntry, key: str, levels: list[float]) -> Chart:
    """Chart a network's contour lines, with the network itself in the middle."""
    from contourpy import LineType, contour_generator

    grid = rows.pivot_table(index="y", columns="x", values="loss", dropna=False)
    heights = np.ma.masked_invalid(grid.to_numpy(dtype=float))
    contours = contour_generator(
        grid.columns.to_numpy(), grid.index.to_numpy(), heights, line_type=LineType.Separate
    )
    series = [
        _contour(level, lines) for level in levels if (lines := cast("Any", contours.lines(level)))
    ]
    nearest = rows.iloc[int((rows["x"].abs() + rows["y"].abs()).argmin())]
    middle = Series(
        name="nearest to the trained weights",
        x=[float(nearest["x"])],
        y=[float(nearest["y"])],
        style=entry.style,
        hover=[f"{entry.label}: {nearest['loss']:.4g}"],
    )
    return Chart(
        key=key,
        title=f"Loss around {entry.label}",
        caption="Lines of equal loss over two random directions, scaled filter by filter "
        f"(Li et al. 2018); {_images(rows)}",
        x=Axis(_STEP),
        y=Axis(_STEP),
        series=(*series, middle),
        table="landscapes",
    )


def _contour(level: float, lines: list[np.ndarray]) -> Series:
    """Return the contour lines of one loss, with its value beside the longest."""
    gap = np.full((1, 2), np.nan)
    points = np.concatenate([part for line in sorted(lines, key=len) for part in (gap, line)])
    labels = [""] * len(points)
    text = f"{level:.3g}" if level < 1000 else f"{level:,.0f}"  # noqa: PLR2004 - no exponent
    labels[len(points) - len(max(lines, key=len)) // 2 - 1] = text
    return Series(
        name="loss",
        x=points[:, 0].tolist(),
        y=points[:, 1].tolist(),
        kind="line",
        hover=[f"loss {level:.4g}"] * len(points),
        labels=labels,
    )
