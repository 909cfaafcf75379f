"""What a network's blocks do, and how gradients pass them, as charts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.report.charts.chart import Axis, Chart, Series

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

_MOST_NAMED = 30  # blocks on an axis, from which on their names cannot be read
_DEPTH = "block, from input to output"
_RATIO = "‖F(x)‖ / ‖h(x)‖"


class Look(NamedTuple):
    """How a network is shown.

    Attributes:
        name: in the legend.
        style: number of its colour and symbol.
        label: in the text of a mark.
    """

    name: str
    style: int
    label: str


Looks = Callable[[str], Look]
_Line = tuple[Look, "pd.DataFrame", bool]  # drawn lightly where a later one of it is drawn, too


def looks(names: Mapping[str, str]) -> Looks:
    """Give every network a colour of its own.

    Args:
        names: key of a network → what it is called.
    """
    places = {key: place for place, key in enumerate(names)}
    return lambda key: Look(names[key], places[key], names[key])


def lesion_charts(rows: pd.DataFrame, look: Looks) -> tuple[Chart, ...]:
    """Chart what is left without each block, and what its branch does.

    Args:
        rows: of the `lesions` table, with one analysis a run.
        look: how each run is shown.

    Returns:
        Accuracy without each block (Veit et al. 2016, figure 3); where they were measured,
        accuracy with pairs swapped, norm ratios and gradient norms before training.
    """
    dropped = rows[rows["lesion"].isin(["none", "drop"])]
    dropped = dropped.assign(block=dropped["block"].fillna("whole"))
    blocks = rows[rows["lesion"] == "drop"]
    made = [
        _by_block(
            _lines(dropped, look), "test_accuracy",
            key="lesion-drop",
            title="Accuracy without each block",
            caption="Test accuracy with the shortcut alone in one block's place, nothing trained "
            "again (Veit et al. 2016, section 4.1); the first mark is the whole network.",
            x="block left out, from input to output",
            y=Axis("test accuracy (%)"),
            first=0,
            scale=100,
        )
    ]  # fmt: skip
    swaps = rows[rows["lesion"] == "swap"]
    if len(swaps):
        made.append(_swapped(swaps, look))
    if blocks["norm_ratio"].notna().any():
        made.append(_ratios(blocks[blocks["norm_ratio"].notna()], look))
    if blocks["initial_gradient_norm"].notna().any():
        made.append(
            _by_block(
                _lines(blocks, look),
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
    rows: pd.DataFrame, correlations: pd.DataFrame, look: Looks
) -> tuple[Chart, ...]:
    """Chart gradients by depth, and how alike those of neighbours are.

    Args:
        rows: of the `gradients` table, with one analysis a target.
        correlations: of the `correlations` table, likewise; may be empty.
        look: how each target is shown.

    Returns:
        Gradient norm by depth; where they were measured, norm ratios by depth and correlations
        by distance (Balduzzi et al. 2017, figure 1). Of a training followed from its beginning,
        the untrained network is drawn with dashes, below the trained one.
    """
    made = [
        _by_block(
            _ends(rows, look), "gradient_norm",
            key="gradient-depth",
            title="Gradient norm by depth",
            caption="L2 norm of one batch's gradient with respect to a block's convolutions; "
            "dashes are before training, where that was recorded. The data has every epoch.",
            y=Axis("gradient norm", log=True),
        )
    ]  # fmt: skip
    known = rows[rows["norm_ratio"].notna()]
    if len(known):
        made.append(
            _by_block(
                _ends(known, look), "norm_ratio",
                key="gradient-ratio",
                title="Branch against shortcut, one batch",
                caption="Median over a training batch of the norms of residual branch and shortcut "
                "where they are added; dashes are before training.",
                y=Axis(_RATIO),
            )
        )  # fmt: skip
    if len(correlations):
        made.append(_correlated(correlations, look))
    return tuple(made)


def _each(rows: pd.DataFrame, column: str) -> list[tuple[str, pd.DataFrame]]:
    return [(str(key), part) for key, part in rows.groupby(column, sort=False)]


def _lines(rows: pd.DataFrame, look: Looks) -> list[_Line]:
    """All rows of each run."""
    return [(look(run), part, False) for run, part in _each(rows, "run")]


def _ends(rows: pd.DataFrame, look: Looks) -> list[_Line]:
    """The first and the last epoch of each target, and whether it is the first of two."""
    return [
        (look(target), part[part["epoch"] == epoch], bool(epoch < part["epoch"].max()))
        for target, part in _each(rows, "target")
        for epoch in dict.fromkeys((part["epoch"].min(), part["epoch"].max()))
    ]


def _by_block(
    lines: Sequence[_Line], column: str, *,
    key: str, title: str, caption: str, y: Axis, x: str = _DEPTH, first: int = 1,
    scale: float = 1.0,
) -> Chart:  # fmt: skip
    """Draw a line for each network, a mark a block.

    Blocks are named where all networks have the same ones, and counted from *first* elsewhere.
    """
    names = {tuple(map(str, part["block"])) for _, part, _ in lines}
    named = next(iter(names)) if len(names) == 1 else ()
    if not 0 < len(named) <= _MOST_NAMED:
        named = ()
    return Chart(
        key=key,
        title=title,
        caption=caption,
        x=Axis(x, categories=named, whole=not named),
        y=y,
        series=tuple(_line(*line, column, 0 if named else first, scale) for line in lines),
        table="lesions" if key.startswith("lesion") else "gradients",
    )


def _line(
    look: Look, rows: pd.DataFrame, earlier: bool, column: str, first: int, scale: float
) -> Series:
    values = (rows[column].astype(float) * scale).tolist()
    epoch = int(rows["epoch"].iloc[0]) if "epoch" in rows else None
    when = "" if epoch is None else f", epoch {epoch}" if epoch else ", before training"
    banded = column == "norm_ratio" and "norm_ratio_low" in rows
    unit = " %" if scale == 100 else ""  # noqa: PLR2004 - per cent
    return Series(
        name=look.name,
        x=[float(place) for place in range(first, first + len(rows))],
        y=values,
        kind="line",
        style=look.style,
        low=rows["norm_ratio_low"].astype(float).tolist() if banded else (),
        high=rows["norm_ratio_high"].astype(float).tolist() if banded else (),
        dashed=earlier,
        faint=earlier,
        hover=[
            f"{look.label}, {block}{when}: {value:.4g}{unit}"
            for block, value in zip(rows["block"], values, strict=True)
        ],
    )


def _ratios(blocks: pd.DataFrame, look: Looks) -> Chart:
    return _by_block(
        _lines(blocks, look),
        "norm_ratio",
        key="lesion-ratio",
        title="Branch against shortcut, test images",
        caption="Median of the norms of residual branch and shortcut where they are added; bands "
        "reach from the 10th to the 90th percentile of the images.",
        y=Axis(_RATIO),
    )


def _swapped(swaps: pd.DataFrame, look: Looks) -> Chart:
    series = []
    for run, part in _each(swaps, "run"):
        worst = part.sort_values("test_accuracy", kind="stable")
        values = (worst["test_accuracy"] * 100).tolist()
        pairs: list[tuple[Any, Any]] = list(zip(worst["block"], worst["other"], strict=True))
        series.append(
            Series(
                name=look(run).name, x=[float(i) for i in range(1, len(worst) + 1)], y=values,
                style=look(run).style,
                hover=[
                    f"{look(run).label}, {one} ↔ {other}: {value:.2f} %"
                    for (one, other), value in zip(pairs, values, strict=True)
                ],
            )
        )  # fmt: skip
    return Chart(
        key="lesion-swap",
        title="Two blocks swapped",
        caption="Test accuracy with two blocks of one stage and shape in each other's place "
        "(Veit et al. 2016, section 4.3), one pair a mark.",
        x=Axis("pair, from the worst", whole=True),
        y=Axis("test accuracy (%)"),
        series=tuple(series),
        table="lesions",
    )


def _correlated(correlations: pd.DataFrame, look: Looks) -> Chart:
    series = [
        Series(
            name=look(target).name,
            x=part["lag"].astype(float).tolist(),
            y=part["correlation"].astype(float).tolist(),
            kind="line",
            style=look(target).style,
            hover=[
                f"{look(target).label}: {value:.3f} at {lag} places"
                for lag, value in zip(part["lag"], part["correlation"], strict=True)
            ],
        )
        for target, part in _each(correlations, "target")
    ]
    return Chart(
        key="gradient-correlation",
        title="Gradients of neighbours",
        caption="Autocorrelation of the network's derivative along lines between test images; "
        "white noise has none (Balduzzi et al. 2017, figure 1).",
        x=Axis("distance (places on the line)", whole=True),
        y=Axis("correlation", zero=True),
        series=tuple(series),
        table="correlations",
    )
