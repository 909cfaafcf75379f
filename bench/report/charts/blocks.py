"""Charts of what a network's blocks do, and of gradients by depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.report.charts.chart import Axis, Chart, EntryOf, LegendEntry, line

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

_MOST_NAMED = 30  # blocks on an axis; more names would not be readable
_DEPTH = "block, from input to output"
_RATIO = "‖F(x)‖ / ‖h(x)‖"


_Line = tuple[LegendEntry, "pd.DataFrame", bool]  # faint if a later epoch of it is drawn, too


def lesion_charts(rows: pd.DataFrame, entry_of: EntryOf) -> tuple[Chart, ...]:
    """Chart the accuracy without each block, and the share of its residual branch.

    Args:
        rows: rows of the `lesions` table, with one analysis per run.
        entry_of: the legend entry of a run.

    Returns:
        Accuracy without each block (Veit et al. 2016, figure 3); where they were measured,
        accuracy with pairs swapped, norm ratios and gradient norms before training.
    """
    dropped = rows[rows["lesion"].isin(["none", "drop"])]
    dropped = dropped.assign(block=dropped["block"].fillna("whole"))
    blocks = rows[rows["lesion"] == "drop"]
    made = [
        _by_block(
            _lines(dropped, entry_of),
            "test_accuracy",
            key="lesion-drop",
            title="Accuracy without each block",
            caption="Test accuracy with one block replaced by its shortcut, without further "
            "training (Veit et al. 2016, section 4.1); the first point is the whole network.",
            x="block left out, from input to output",
            y=Axis("test accuracy (%)"),
            first=0,
            scale=100,
        )
    ]
    swaps = rows[rows["lesion"] == "swap"].sort_values("test_accuracy", kind="stable")
    if len(swaps):
        made.append(
            Chart(
                key="lesion-swap",
                title="Two blocks swapped",
                caption="Test accuracy with two blocks of the same stage and shape exchanged "
                "(Veit et al. 2016, section 4.3), one point per pair.",
                x=Axis("pair, from the worst", whole=True),
                y=Axis("test accuracy (%)"),
                series=tuple(
                    line(
                        entry,
                        part,
                        "test_accuracy",
                        "{label}, {block} ↔ {other}: {value:.2f} %",
                        scale=100,
                        kind="points",
                    )
                    for entry, part, _ in _lines(swaps, entry_of)
                ),
                table="lesions",
            )
        )
    ratios = blocks[blocks["norm_ratio"].notna()]
    if len(ratios):
        made.append(
            _by_block(
                _lines(ratios, entry_of),
                "norm_ratio",
                key="lesion-ratio",
                title="Branch against shortcut, test images",
                caption="Median of the norms of residual branch and shortcut where they are added; "
                "bands reach from the 10th to the 90th percentile of the images.",
                y=Axis(_RATIO),
            )
        )
    if blocks["initial_gradient_norm"].notna().any():
        made.append(
            _by_block(
                _lines(blocks, entry_of),
                "initial_gradient_norm",
                key="lesion-gradient",
                title="Gradients of the first batch",
                caption="L2 norm of the first batch's gradient with respect to a block's "
                "convolutions, before any training.",
                y=Axis("gradient norm", log=True),
            )
        )
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
    made = [
        _by_block(
            _ends(rows, entry_of),
            "gradient_norm",
            key="gradient-depth",
            title="Gradient norm by depth",
            caption="L2 norm of one batch's gradient with respect to a block's convolutions; "
            "dashed lines are before training, if that was recorded. The data has every epoch.",
            y=Axis("gradient norm", log=True),
        )
    ]
    known = rows[rows["norm_ratio"].notna()]
    if len(known):
        made.append(
            _by_block(
                _ends(known, entry_of),
                "norm_ratio",
                key="gradient-ratio",
                title="Branch against shortcut, one batch",
                caption="Median over a training batch of the norms of residual branch and shortcut "
                "where they are added; dashed lines are before training.",
                y=Axis(_RATIO),
            )
        )
    if len(correlations):
        series = tuple(
            line(
                entry_of(target),
                part,
                "correlation",
                "{label}: {value:.3f} at {lag} places",
                x="lag",
            )
            for target, part in correlations.groupby("target", sort=False)
        )
        made.append(
            Chart(
                key="gradient-correlation",
                title="Correlation of gradients at nearby inputs",
                caption="Autocorrelation of the network's derivative along lines between test "
                "images; white noise has none (Balduzzi et al. 2017, figure 1).",
                x=Axis("distance (places on the line)", whole=True),
                y=Axis("correlation", zero=True),
                series=series,
                table="correlations",
            )
        )
    return tuple(made)


def _lines(rows: pd.DataFrame, entry_of: EntryOf) -> list[_Line]:
    """Return all rows of each run."""
    return [(entry_of(run), part, False) for run, part in rows.groupby("run", sort=False)]


def _ends(rows: pd.DataFrame, entry_of: EntryOf) -> list[_Line]:
    """Return the first and last epoch of each target, and whether it is the first of two."""
    return [
        (entry_of(target), part[part["epoch"] == epoch], bool(epoch < part["epoch"].max()))
        for target, part in rows.groupby("target", sort=False)
        for epoch in dict.fromkeys((part["epoch"].min(), part["epoch"].max()))
    ]


def _by_block(
    lines: Sequence[_Line],
    column: str,
    *,
    key: str,
    title: str,
    caption: str,
    y: Axis,
    x: str = _DEPTH,
    first: int = 1,
    scale: float = 1.0,
) -> Chart:
    """Chart one line per network, with one point per block.

    Blocks are named if all networks have the same ones, and otherwise numbered from *first*.
    """
    names = {tuple(map(str, part["block"])) for _, part, _ in lines}
    named = next(iter(names)) if len(names) == 1 else ()
    if not 0 < len(named) <= _MOST_NAMED:
        named = ()
    series = []
    for entry, rows, earlier in lines:
        epoch = int(rows["epoch"].iloc[0]) if "epoch" in rows else None
        when = "" if epoch is None else f", epoch {epoch}" if epoch else ", before training"
        unit = " %" if scale == 100 else ""  # noqa: PLR2004 - per cent
        ends: dict[str, Any] = {}
        if column == "norm_ratio" and "norm_ratio_low" in rows:
            ends = {
                end: rows[f"norm_ratio_{end}"].astype(float).tolist() for end in ("low", "high")
            }
        hover = f"{{label}}, {{block}}{when}: {{value:.4g}}{unit}"
        start = 0 if named else first
        look = {"dashed": earlier, "faint": earlier, **ends}
        series.append(line(entry, rows, column, hover, first=start, scale=scale, **look))
    return Chart(
        key=key,
        title=title,
        caption=caption,
        x=Axis(x, categories=named, whole=not named),
        y=y,
        series=tuple(series),
        table="lesions" if key.startswith("lesion") else "gradients",
    )
