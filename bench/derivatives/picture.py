"""The picture of gradients by depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.report.plots import PALETTE, STYLE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_gradients(blocks: pd.DataFrame, correlations: pd.DataFrame) -> Figure:
    """Draw what `bench.derivatives.profile.gradients` returned.

    Returns:
        A figure of gradient norms by depth, branch against shortcut by depth, and, where they
        were measured, correlations by distance (Balduzzi et al. 2017, figure 1). A target is a
        colour; epochs go from pale (before training) to full (the last).
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels = 2 if correlations.empty else 3
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * panels, 3.4), layout="constrained")
        axes = figure.subplots(1, panels)
        _draw_depth(axes[0], blocks, "gradient_norm")
        axes[0].set(ylabel="gradient norm", yscale="log", title="Gradient by depth")
        _draw_depth(axes[1], blocks, "norm_ratio")
        axes[1].set(ylabel="‖F(x)‖ / ‖h(x)‖", title="Residual branch against shortcut")
        if not correlations.empty:
            _draw_correlations(axes[2], correlations)
        axes[0].legend(frameon=False, fontsize=7)
    return figure


def _draw_depth(axes: Axes, blocks: pd.DataFrame, column: str) -> None:
    for (target, rows), colour in _coloured(blocks):
        epochs = sorted(rows["epoch"].unique())
        for epoch in epochs:
            part = rows[rows["epoch"] == epoch]
            last = epoch == epochs[-1]
            share = (epochs.index(epoch) + 1) / len(epochs)
            axes.plot(
                part["depth"], part[column].astype(float), "o-", color=colour, lw=1, markersize=2,
                alpha=0.2 + 0.8 * share, label=f"{target} (epoch {epoch})" if last else None,
            )  # fmt: skip
    if blocks[column].isna().all():
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", color="#888888")
    axes.set_xlabel("block, from input to output")


def _draw_correlations(axes: Axes, correlations: pd.DataFrame) -> None:
    for (_, rows), colour in _coloured(correlations):
        axes.plot(rows["lag"], rows["correlation"].astype(float), color=colour)
    axes.axhline(0, color="#888888", lw=1)
    axes.set(
        xlabel="distance (places on the line)", ylabel="correlation", title="Neighbours' gradients"
    )


def _coloured(frame: pd.DataFrame) -> list[tuple[tuple[str, pd.DataFrame], str]]:
    groups = list(frame.groupby("target", sort=False))
    return [
        ((str(name), rows), PALETTE[place % len(PALETTE)])
        for place, (name, rows) in enumerate(groups)
    ]
