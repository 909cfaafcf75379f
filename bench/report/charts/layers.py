"""Charts of where the time goes, and one line on the cost of the shortcuts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.measurement.profile.layer_time import PARTS
from bench.report.charts.chart import Axis, Chart, Series

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Shares = Sequence[Mapping[str, Any]]

_MOST = 20  # kinds of operator in a chart
_COVERED = 0.1  # relative difference from the measured time that needs no explanation


def layer_charts(configuration: str, shares: Shares) -> tuple[Chart, ...]:
    """Make two charts of a profiled configuration: by block of the network, by operator.

    Args:
        configuration: its name.
        shares: rows of `bench.measurement.profile.layer_time.layer_rows`.
    """
    key = re.sub(r"[^a-z0-9]+", "-", configuration.lower()).strip("-")
    layers = [share for share in shares if share["by"] == "layer"]
    operators = [share for share in shares if share["by"] == "operator"]
    left = len(operators) - _MOST
    return (
        Chart(
            key=f"layers-{key}",
            title=f"Time by block: {configuration}",
            caption="One batch under the profiler, which slows it down; bars of one block are "
            f"stacked in the order of the legend.{_fusion(layers)}",
            data=pd.DataFrame(layers),
            **_stacked(layers, "block"),
        ),
        Chart(
            key=f"operators-{key}",
            title=f"Time by kind of operator: {configuration}",
            caption="Time in each kind of operator itself, without the operators that it calls."
            + (f" The slowest {_MOST} of {len(operators)}." if left > 0 else ""),
            data=pd.DataFrame(operators),
            **_stacked(operators[:_MOST], "name"),
        ),
    )


def _stacked(shares: Shares, column: str) -> dict[str, Any]:
    """Return axes and series: a bar per value of *column*, a series per part of the network."""
    rows = list(dict.fromkeys(share[column] for share in shares))[::-1]
    series = []
    for style, part in enumerate(PARTS):  # the same colour in every chart
        own = pd.DataFrame([share for share in shares if share["part"] == part])
        if len(own):
            sums = own.groupby(column, sort=False)[["milliseconds", "share"]].sum()
            hover = [
                f"{name}, {part}: {t:.3g} ms, {s * 100:.1f} %" for name, t, s in sums.itertuples()
            ]
            times, places = sums["milliseconds"].tolist(), [rows.index(name) for name in sums.index]
            series.append(Series(part, times, places, "bars", style, hover=hover))
    return {
        "x": Axis("milliseconds per batch"),
        "y": Axis("", categories=tuple(rows)),
        "series": tuple(series),
    }


def _fusion(layers: Shares) -> str:
    fused = sum(bool(share.get("with_addition")) for share in layers)
    if not fused:
        return ""
    return f" {fused} additions are fused into convolutions and counted there."


def coverage_line(shares: Shares, measured: float) -> str | None:
    """Say how the profiled operators compare with the measured time; None if within 10 %.

    Args:
        shares: of one configuration.
        measured: milliseconds of one batch, without a profiler.
    """
    profiled = sum(share["milliseconds"] for share in shares if share["by"] == "operator")
    if not profiled or abs(profiled / measured - 1) <= _COVERED:
        return None
    why = (
        "the profiler takes time of its own, operators that run side by side are added up, or "
        "other programs ran meanwhile"
        if profiled > measured
        else "the runtime's own work between operators is in no operator"
    )
    return (
        f"The operators add up to {profiled:.3g} ms, {profiled / measured * 100:.0f} % of the "
        f"{measured:.3g} ms measured without the profiler: {why}."
    )


def shortcut_line(shares: Shares) -> str:
    """Return one line on the share of the time that projections and additions take.

    An addition that the runtime fuses into a convolution has no time of its own; such additions
    are counted instead.
    """
    layers = [share for share in shares if share["by"] == "layer"]
    additions = [share for share in layers if share["part"] == "addition"]
    if not additions:  # networks that add without a module have the operators only
        additions = [s for s in shares if s["by"] == "operator" and s["part"] == "addition"]
    projections = [share for share in layers if share["part"] == "projection"]
    normalised = [
        s for s in layers if s["part"] == "normalisation" and s["kind"].endswith("the shortcut")
    ]
    fused = sum(bool(share.get("with_addition")) for share in layers)
    parts = [_total(projections, "1×1 projections")]
    if normalised:
        parts.append(_total(normalised, "the normalisation after them"))
    if additions or not fused:
        parts.append(_total(additions, "additions"))
    if fused:
        more = f"{fused} {'more ' * bool(additions)}addition{'s' * (fused > 1)}"
        parts.append(f"{more} fused into convolutions, whose own time cannot be measured")
    return f"The shortcuts: {'; '.join(parts)}."


def _total(shares: Shares, what: str) -> str:
    if not shares:
        return f"no {what}"
    milliseconds = sum(share["milliseconds"] for share in shares)
    share = sum(share["share"] for share in shares)
    return f"{what} {milliseconds:.3g} ms, {share * 100:.1f} % of the time"
