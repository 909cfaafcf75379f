"""The picture of a network's lesions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.report.plots import PALETTE, STYLE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_lesions(rows: pd.DataFrame) -> Figure:
    """Draw what `bench.lesions.lesion.lesion` returned, block by block from input to output.

    Returns:
        A figure of four panels: test accuracy without each block (Veit et al. 2016, figure 3),
        accuracy with each pair swapped, norm ratios with the band from the 10th to the 90th
        percentile of the images, and gradient norms at initialisation.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    whole = float(rows.loc[rows["lesion"] == "none", "test_accuracy"].iloc[0]) * 100
    blocks, swaps = (rows[rows["lesion"] == kind] for kind in ("drop", "swap"))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 6), layout="constrained")
        drops, pairs, ratios, gradients = figure.subplots(2, 2).ravel()
        _draw_blocks(drops, blocks, blocks["test_accuracy"] * 100)
        drops.axhline(whole, color="#888888", lw=1)
        drops.set(ylabel="test accuracy (%)", title="Without one block (line: the whole network)")
        _draw_swaps(pairs, swaps, whole)
        _draw_blocks(ratios, blocks, blocks["norm_ratio"])
        ratios.fill_between(
            range(len(blocks)), blocks["norm_ratio_low"].astype(float),
            blocks["norm_ratio_high"].astype(float), color=PALETTE[0], alpha=0.15, lw=0,
        )  # fmt: skip
        ratios.set(ylabel="‖F(x)‖ / ‖h(x)‖", title="Residual branch against shortcut")
        _draw_blocks(gradients, blocks, blocks["initial_gradient_norm"])
        gradients.set(ylabel="gradient norm", title="Before training", yscale="log")
    return figure


def _draw_blocks(axes: Axes, blocks: pd.DataFrame, values: pd.Series) -> None:
    axes.plot(range(len(blocks)), values.astype(float), "o-", color=PALETTE[0], markersize=3, lw=1)
    if values.isna().all():
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", color="#888888")
    axes.set_xticks(range(len(blocks)), blocks["block"], rotation=90, fontsize=7)


def _draw_swaps(axes: Axes, swaps: pd.DataFrame, whole: float) -> None:
    values = (swaps["test_accuracy"] * 100).sort_values()
    axes.plot(range(len(values)), values.astype(float), "o", color=PALETTE[1], markersize=3)
    axes.axhline(whole, color="#888888", lw=1)
    axes.set(
        xlabel="pair, from the worst", ylabel="test accuracy (%)",
        title=f"Two blocks swapped ({len(values)} pairs)",
    )  # fmt: skip
