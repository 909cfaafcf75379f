"""Charts of what a network's blocks do, and of gradients by depth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.report.charts.chart import Axis, Chart, EntryOf, LegendEntry, line

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    Line = tuple[LegendEntry, pd.DataFrame, dict[str, Any]]  # and further fields of its `Series`

_MOST_NAMED = 30  # blocks on an axis; more names would not be readable
_RATIO = "‖F(x)‖ / ‖h(x)‖"


def lesion_charts(rows: pd.DataFrame, entry_of: EntryOf) -> tuple[Chart, ...]:
    """Chart the accuracy without each block, and the share of its residual branch.

    Args:
        rows: rows of the `lesions` table, with one analysis per run.
        entry_of: the legend entry of a run.

    Returns:
        Accuracy without each block (Veit et al. 2016, figure 3); where they were measured,
        accuracy with pairs swapped, norm ratios and gradient norms before training.
    """

    def lines(kept: pd.DataFrame) -> list[Line]:
        return [(entry_of(run), part, {}) for run, part in kept.groupby("run", sort=False)]

    dropped = rows[rows["lesion"].isin(["none", "drop"])]
    without = Chart(
        "lesion-drop",
        "Accuracy without each block",
        "Test accuracy with one block replaced by its shortcut, without further training (Veit et "
        "al. 2016, section 4.1); the first point is the whole network.",
        Axis("block left out, from input to output"),
        Axis("test accuracy (%)"),
        table="lesions",
    )
    named = dropped.assign(block=dropped["block"].fillna("whole"))
    made = [_by_block(without, lines(named), "test_accuracy", first=0, scale=100)]
    swaps = rows[rows["lesion"] == "swap"].sort_values("test_accuracy", kind="stable")
    if len(swaps):
        hover = "{label}, {block} ↔ {other}: {value:.2f} %"
        made.append(
            Chart(
                "lesion-swap",
                "Two blocks swapped",
                "Test accuracy with two blocks of the same stage and shape exchanged (Veit et al. "
                "2016, section 4.3), one point per pair.",
                Axis("pair, from the worst", whole=True),
                Axis("test accuracy (%)"),
                tuple(
                    line(entry, part, "test_accuracy", hover, scale=100, kind="points")
                    for entry, part, _ in lines(swaps)
                ),
                table="lesions",
            )
        )
    blocks = rows[rows["lesion"] == "drop"]
    ratios = blocks[blocks["norm_ratio"].notna()]
    if len(ratios):
        chart = Chart(
            "lesion-ratio",
            "Branch against shortcut, test images",
            "Median ratio of the norms of residual branch and shortcut where they meet, before "
            "the shortcut's scale, gate or dropout acts on them; bands reach from the 10th to "
            "the 90th percentile of the images.",
            Axis("block, from input to output"),
            Axis(_RATIO),
            table="lesions",
        )
        made.append(_by_block(chart, lines(ratios), "norm_ratio"))
    if blocks["initial_gradient_norm"].notna().any():
        chart = Chart(
            "lesion-gradient",
            "Gradients of the first batch",
            "L2 norm of the first batch's gradient with respect to a block's convolutions, before "
            "any training.",
            Axis("block, from input to output"),
            Axis("gradient norm", log=True),
            table="lesions",
        )
        made.append(_by_block(chart, lines(blocks), "initial_gradient_norm"))
    return tuple(made)


def gradient_charts(
    rows: pd.DataFrame, correlations: pd.DataFrame, entry_of: EntryOf
) -> tuple[Chart, ...]:
    """Chart gradient norms by depth, and the correlation of gradients at nearby inputs.

    Args:
        rows: rows of the `gradients` table, with one analysis per target.
        correlations: rows of the `correlations` table, likewise; may be empty.
        entry_of: the legend entry of a target.

    Returns:
        Gradient norm by depth; where they were measured, norm ratios by depth and correlations
        by distance (Balduzzi et al. 2017, figure 1). If the training was recorded from its
        beginning, the untrained network is drawn dashed, below the trained one.
    """

    def lines(kept: pd.DataFrame) -> Iterable[Line]:
        """Yield the first and last epoch of each target; the first of two is drawn faint."""
        for target, part in kept.groupby("target", sort=False):
            for epoch in dict.fromkeys((part["epoch"].min(), part["epoch"].max())):
                earlier = bool(epoch < part["epoch"].max())
                look = {"dashed": earlier, "faint": earlier}
                yield entry_of(target), part[part["epoch"] == epoch], look

    norms = Chart(
        "gradient-depth",
        "Gradient norm by depth",
        "L2 norm of one batch's gradient with respect to a block's convolutions; dashed lines are "
        "before training, if that was recorded. The data has every epoch.",
        Axis("block, from input to output"),
        Axis("gradient norm", log=True),
        table="gradients",
    )
    made = [_by_block(norms, lines(rows), "gradient_norm")]
    known = rows[rows["norm_ratio"].notna()]
    if len(known):
        chart = Chart(
            "gradient-ratio",
            "Branch against shortcut, one batch",
            "Median over a training batch of the ratio of the norms of residual branch and "
            "shortcut where they meet, before the shortcut's scale, gate or dropout acts on them; "
            "dashed lines are before training.",
            Axis("block, from input to output"),
            Axis(_RATIO),
            table="gradients",
        )
        made.append(_by_block(chart, lines(known), "norm_ratio"))
    if len(correlations):
        hover = "{label}: {value:.3f} at {lag} places"
        made.append(
            Chart(
                "gradient-correlation",
                "Correlation of gradients at nearby inputs",
                "Autocorrelation of the network's derivative along lines between test images; "
                "white noise has none (Balduzzi et al. 2017, figure 1).",
                Axis("distance (places on the line)", whole=True),
                Axis("correlation", zero=True),
                tuple(
                    line(entry_of(target), part, "correlation", hover, x="lag")
                    for target, part in correlations.groupby("target", sort=False)
                ),
                table="correlations",
            )
        )
    return tuple(made)


def _by_block(
    chart: Chart, lines: Iterable[Line], column: str, *, first: int = 1, scale: float = 1.0
) -> Chart:
    """Fill a chart with one line per network, with one point per block.

    Blocks are named if all networks have the same ones, and otherwise numbered from *first*.
    """
    lines = list(lines)
    names = {tuple(map(str, rows["block"])) for _, rows, _ in lines}
    named = next(iter(names)) if len(names) == 1 else ()
    if len(named) > _MOST_NAMED:
        named = ()
    series = []
    for entry, rows, look in lines:
        epoch = int(rows["epoch"].iloc[0]) if "epoch" in rows else None
        when = "" if epoch is None else f", epoch {epoch}" if epoch else ", before training here"
        bands: dict[str, Any] = {}
        if column == "norm_ratio" and "norm_ratio_low" in rows:
            low, high = (
                rows[f"norm_ratio_{end}"].astype(float).tolist() for end in ("low", "high")
            )
            bands = {"low": low, "high": high}
        hover = f"{{label}}, {{block}}{when}: {{value:.4g}}{' %' if scale != 1 else ''}"
        start = 0 if named else first
        series.append(line(entry, rows, column, hover, first=start, scale=scale, **look, **bands))
    across = replace(chart.x, categories=named, whole=not named)
    return replace(chart, x=across, series=tuple(series))
