"""The roofline: measured networks beneath what the machine itself was measured to do.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model" (CACM
52(4), 2009). Across: arithmetic intensity, FLOPs a byte, as `bench.networks.memory_traffic`
counts it from the network alone. Up: attained FLOP/s, 2 × multiply-adds of convolutions and matrix
products a second. The roof is the lower of what this machine multiplies in that precision and
of its copy through memory times the intensity (`bench.measurement.machine.ceiling`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.report.charts.chart import Axis, Chart, Series

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
    "what stands between them counts as fused. Roofs are measured in torch{kernels}, with a copy "
    "from memory to memory. A point can lie above its roof: Winograd convolutions need fewer "
    "operations than are counted, a runtime's kernels can beat torch's, and a cache can hold what "
    "is counted as moved. Faint marks are noisy."
)
_WHOLE = 100e9  # FLOP/s from which on no decimals are shown
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
    charts = []
    for number, ((cpu, device, threads), part) in enumerate(machines, 1):
        machine = f"{threads} thread(s), {device}, {cpu}" if device == "cpu" else f"{device}, {cpu}"
        roofs = _highest(part, ceilings)
        series = (*_lines(part, roofs), *_marks(part, roofs, look))
        kernels = ", ".join(f"{precision} by a {roof.kernel}" for precision, roof in roofs.items())
        charts.append(_chart(machine, number, series, kernels=f" ({kernels})"))
    return tuple(charts)


@dataclass(frozen=True)
class _Roof:
    """What a machine does in one precision, at most, over all measurements of it."""

    peak: float  # FLOP/s
    kernel: str  # that reached it
    copied: float  # bytes a second


def _highest(rows: pd.DataFrame, ceilings: Mapping[str, Mapping[str, Any]]) -> dict[str, _Roof]:
    roofs: dict[str, _Roof] = {}
    for ceiling in (ceilings[name] for name in rows["measurement"].unique()):
        for precision, peak in ceiling["flops_per_second"].items():
            copied = ceiling.get("copied", {}).get(precision, ceiling["bytes_per_second"])
            kernel = ceiling.get("kernels", {}).get(precision, "matrix product")
            known = roofs.get(precision, _Roof(0.0, kernel, 0.0))
            most = max(float(copied), known.copied)
            higher = _Roof(float(peak), kernel, most) if peak > known.peak else known
            roofs[precision] = replace(higher, copied=most)
    return roofs


def _chart(
    machine: str,
    number: int,
    series: tuple[Series, ...],
    absent: str | None = None,
    kernels: str = "",
) -> Chart:
    return Chart(
        key="roofline" if number == 1 else f"roofline-{number}",
        title="Roofline",
        caption=f"{machine}. {_CAPTION.format(kernels=kernels)}",
        x=Axis("arithmetic intensity (FLOPs a byte)", log=True),
        y=Axis("attained FLOP/s", log=True),
        series=series,
        table="throughput",
        absent=absent,
    )


def _marks(
    rows: pd.DataFrame, roofs: Mapping[str, _Roof], look: Callable[[Any], Look]
) -> list[Series]:
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
            hover=[_hover(row, roofs.get(row.executed_precision)) for row in found],
            labels=[str(row.batch_size) for row in found] if len(rows) <= _LABELLED else (),
        )
        # What is not noisy first: the legend takes the first of a name.
        for ((name, style), noisy), found in sorted(groups.items(), key=lambda item: item[0][1])
    ]


def _is_noisy(row: Any) -> bool:
    import pandas as pd

    return not pd.isna(row.noisy) and bool(row.noisy)


def _hover(row: Any, roof: _Roof | None) -> str:
    share = f", {row.flops_per_second / roof.peak:.0%} of the ceiling" if roof else ""
    return (
        f"{row.backend} {row.executed_precision}, {row.memory_format}, batch {row.batch_size}: "
        f"{_gigaflops(row.flops_per_second)}{share} at {row.arithmetic_intensity:.3g} FLOPs "
        f"a byte, {row.images_per_second:,.4g} images/s{', noisy' if _is_noisy(row) else ''}"
    )


def _gigaflops(value: float) -> str:
    shown = f"{value / 1e9:,.0f}" if value >= _WHOLE else f"{value / 1e9:.3g}"
    return f"{shown} GFLOP/s"


def _lines(rows: pd.DataFrame, roofs: Mapping[str, _Roof]) -> list[Series]:
    """One line a precision, through the point where memory stops being the limit."""
    ridges = {precision: roof.peak / roof.copied for precision, roof in roofs.items()}
    reached = [*rows["arithmetic_intensity"], *ridges.values()]
    low, high = min(reached) / 2, max(reached) * 2
    return [
        Series(
            name=f"roof, {precision}",
            x=[low, ridges[precision], high],
            y=[low * roof.copied, roof.peak, roof.peak],
            kind="line",
            dashed=number > 0,
            hover=[
                f"copy: {roof.copied / 1e9:.3g} GB/s",
                f"memory limits to the left of {ridges[precision]:.3g} FLOPs a byte",
                f"{precision} by a {roof.kernel}: {_gigaflops(roof.peak)}",
            ],
            labels=["", f"{precision}: {_gigaflops(roof.peak)}", ""],
        )
        for number, (precision, roof) in enumerate(roofs.items())
    ]
