"""The roofline: measured networks beneath what the machine itself was measured to do.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model" (CACM
52(4), 2009). Across: arithmetic intensity, FLOPs a byte, as `bench.measure.traffic` counts it
from the network alone. Up: attained FLOP/s, 2 × multiply-adds of convolutions and matrix
products a second. The roof is the lower of what this machine multiplies in that precision and
of its copy through memory times the intensity (`bench.measure.ceiling`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.report.chart import Axis, Chart, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd

NOT_MEASURED = "Nothing has been measured of these runs: `bench throughput RUN` does."
NO_INTENSITY = (
    "What was measured lacks the bytes it moves or the machine's ceiling: it was measured by an "
    "older version, or is an engine, or computed in two precisions. Measure the network again."
)
_CAPTION = (
    "FLOP/s: 2 × multiply-adds of convolutions and matrix products. FLOPs a byte: each of these "
    "layers reads its input and weights once and writes its output once (weights once a batch); "
    "what stands between them counts as fused. Roofs are measured: torch's fastest matrix product "
    "or 7×7 convolution in the precision, and a copy from memory to memory. A point can lie above "
    "its roof: "
    "Winograd convolutions need fewer operations than are counted, a runtime's int8 kernels can "
    "beat torch's product, and a cache can hold what is counted as moved. Faint marks are noisy."
)
_LABELLED = 24  # marks; the labels of more overlap

Look = tuple[str, int]  # name in the legend, number of the style


def rooflines(
    rows: pd.DataFrame,
    ceilings: Mapping[str, Mapping[str, Any]],
    look: Callable[[Any], Look],
) -> tuple[Chart, ...]:
    """Make a chart for each machine that rows were measured on, or one that says why not.

    Args:
        rows: of the `throughput` table.
        ceilings: measurement → its ceiling, as recorded.
        look: name and style of a row's series.
    """
    complete = rows[(rows["status"] == "complete") & rows["flops_per_second"].notna()]
    known = complete[
        complete["arithmetic_intensity"].notna()
        & complete["executed_precision"].notna()
        & complete["measurement"].isin(list(ceilings))
    ]
    if known.empty:
        return (_chart("", 1, (), absent=NOT_MEASURED if complete.empty else NO_INTENSITY),)
    machines = known.groupby(["cpu", "device", "threads"], observed=True, sort=False)
    return tuple(
        _chart(
            f"{threads} thread(s), {device}, {cpu}" if device == "cpu" else f"{device}, {cpu}",
            number,
            (*_roofs(part, ceilings), *_marks(part, look)),
        )
        for number, ((cpu, device, threads), part) in enumerate(machines, 1)
    )


def _chart(
    machine: str, number: int, series: tuple[Series, ...], absent: str | None = None
) -> Chart:
    return Chart(
        key="roofline" if number == 1 else f"roofline-{number}",
        title="Roofline",
        caption=f"{machine}. {_CAPTION}",
        x=Axis("arithmetic intensity (FLOPs a byte)", log=True),
        y=Axis("attained FLOP/s", log=True),
        series=series,
        table="throughput",
        absent=absent,
    )


def _marks(rows: pd.DataFrame, look: Callable[[Any], Look]) -> list[Series]:
    """One series a name, and another for what of it is noisy."""
    groups: dict[tuple[Look, bool], list[Any]] = {}
    for row in rows.itertuples():
        groups.setdefault((look(row), _is_noisy(row)), []).append(row)
    return [
        Series(
            name=name,
            x=[row.arithmetic_intensity for row in found],
            y=[row.flops_per_second for row in found],
            style=style,
            faint=noisy,
            hover=[_hover(row) for row in found],
            labels=[str(row.batch_size) for row in found] if len(rows) <= _LABELLED else (),
        )
        # What is not noisy first: the legend takes the first of a name.
        for ((name, style), noisy), found in sorted(groups.items(), key=lambda item: item[0][1])
    ]


def _is_noisy(row: Any) -> bool:
    import pandas as pd

    return not pd.isna(row.noisy) and bool(row.noisy)


def _hover(row: Any) -> str:
    share = f", {row.peak_fraction:.0%} of the ceiling" if row.peak_fraction > 0 else ""
    return (
        f"{row.backend} {row.executed_precision}, {row.memory_format}, batch {row.batch_size}: "
        f"{row.flops_per_second / 1e9:.3g} GFLOP/s{share} at {row.arithmetic_intensity:.3g} FLOPs "
        f"a byte, {row.images_per_second:,.4g} images/s{', noisy' if _is_noisy(row) else ''}"
    )


def _roofs(rows: pd.DataFrame, ceilings: Mapping[str, Mapping[str, Any]]) -> list[Series]:
    """One line a precision, through the point where memory stops being the limit."""
    found = [ceilings[name] for name in rows["measurement"].unique()]
    peaks: dict[str, float] = {}
    copies: dict[str, float] = {}
    for ceiling in found:
        for precision, peak in ceiling["flops_per_second"].items():
            copied = ceiling.get("copied", {}).get(precision, ceiling["bytes_per_second"])
            peaks[precision] = max(float(peak), peaks.get(precision, 0.0))
            copies[precision] = max(float(copied), copies.get(precision, 0.0))
    ridges = {precision: peak / copies[precision] for precision, peak in peaks.items()}
    reached = [*rows["arithmetic_intensity"], *ridges.values()]
    low, high = min(reached) / 2, max(reached) * 2
    return [
        Series(
            name=f"roof, {precision}",
            x=[low, ridge, high],
            y=[low * copies[precision], peaks[precision], peaks[precision]],
            kind="line",
            dashed=number > 0,
            hover=[
                f"copy: {copies[precision] / 1e9:.3g} GB/s",
                f"memory limits to the left of {ridge:.3g} FLOPs a byte",
                f"{precision} at most: {peaks[precision] / 1e9:,.0f} GFLOP/s",
            ],
            labels=["", f"{precision}: {peaks[precision] / 1e9:,.0f} GFLOP/s", ""],
        )
        for number, (precision, ridge) in enumerate(ridges.items())
    ]
