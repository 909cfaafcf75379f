"""The picture of loss landscapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.report.plots import PALETTE, STYLE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def draw_landscape(rows: pd.DataFrame) -> Figure:
    """Draw what `bench.landscapes.landscape.landscape` returned.

    Returns:
        For lines, a panel of losses and one of accuracies, a colour a run (Li et al. 2018,
        figure 2); for planes, a contour map a run, all of the same levels (figure 1).
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    runs = [rows[rows["run"] == run] for run in rows["run"].unique()]
    flat = rows["y"].isna().all()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.2) if flat else (3.8 * len(runs), 3.4), layout="constrained")
        if flat:
            _draw_lines(figure, runs)
        else:
            _draw_planes(figure, runs, rows)
    return figure


def _draw_lines(figure: Figure, runs: list[pd.DataFrame]) -> None:
    losses, accuracies = figure.subplots(1, 2)
    for place, part in enumerate(runs):
        colour = PALETTE[place % len(PALETTE)]
        losses.plot(part["x"], part["loss"], color=colour, label=_title(part))
        accuracies.plot(part["x"], part["accuracy"] * 100, color=colour)
    for axes in (losses, accuracies):
        axes.locator_params(axis="x", nbins=5)
    losses.set(xlabel="step, in lengths of the filters", ylabel="loss", yscale="log")
    accuracies.set(xlabel="step, in lengths of the filters", ylabel="accuracy (%)")
    losses.legend(frameon=False, fontsize=7)


def _draw_planes(figure: Figure, runs: list[pd.DataFrame], rows: pd.DataFrame) -> None:
    import numpy as np

    levels = np.geomspace(max(rows["loss"].min(), 1e-4), rows["loss"].max() * 1.001, 16)
    panels: Any = figure.subplots(1, len(runs), squeeze=False)[0]
    for axes, part in zip(panels, runs, strict=True):
        grid = part.pivot_table(index="y", columns="x", values="loss")
        lines = axes.contour(
            grid.columns, grid.index, grid.to_numpy(), levels=levels, cmap="viridis"
        )
        axes.clabel(lines, fontsize=6, fmt="%.2g")
        axes.set(title=_title(part), aspect="equal")


def _title(part: pd.DataFrame) -> str:
    first = part.iloc[0]
    return f"{first['model']} ({str(first['run']).rsplit('-', 1)[-1]})"
