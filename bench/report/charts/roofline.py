"""Roofline charts: measured networks below the measured ceilings of the machine.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model" (CACM
52(4), 2009). The horizontal axis is the arithmetic intensity in FLOPs per byte, which
`bench.networks.memory_traffic` computes from the network alone. The vertical axis is the attained
FLOP/s: 2 × multiply-adds of convolutions and matrix products per second. The roof is the lower of
the peak FLOP/s in that precision and of the memory bandwidth times the intensity
(`bench.measurement.machine.ceiling`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.report.charts.chart import Axis, Chart, EntryOf, LegendEntry, Series, absent_chart
from bench.report.findings.fastest import rounded

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

NOT_MEASURED = "The speed of these networks has not been measured yet."
NO_INTENSITY = (
    "The measurements lack the bytes moved or the machine's ceiling: they were made by an older "
    "version, of an engine, or in two precisions at once. Measure the network again."
)
_CAPTION = (
    "FLOP/s: 2 × multiply-adds of convolutions and matrix products. FLOPs per byte: each of these "
    "layers reads its input and weights once and writes its output once (weights once per batch); "
    "layers between them count as fused. Roofs are measured ({kernels}), and by a copy "
    "from memory to memory. A point can lie above its roof: "
    "Winograd convolutions and kernels that skip the padding need fewer operations than are "
    "counted, a runtime's kernels can be faster, and a cache can hold data that is counted as "
    "moved. Faint points are noisy."
)
_WHOLE = 100e9  # FLOP/s above which no decimals are shown
_LABELLED = 24  # points; labels of more would overlap


def rooflines(
    rows: pd.DataFrame,
    ceilings: Mapping[str, Mapping[str, Any]],
    entry_of: EntryOf,
    marks: tuple[str, ...] = (),
) -> tuple[Chart, ...]:
    """Chart the rows of each machine, or state why that is not possible.

    Args:
        rows: rows of the `throughput` table.
        ceilings: measurement → its ceiling, as recorded.
        entry_of: the legend entry of a row.
        marks: what symbols stand for.
    """
    complete = rows[(rows["status"] == "complete") & rows["flops_per_second"].notna()]
    known = complete[
        complete["arithmetic_intensity"].notna()
        & complete["executed_precision"].notna()
        & complete["measurement"].isin(list(ceilings))
    ]
    known = known.assign(noisy=known["noisy"].fillna(value=False).astype(bool))
    if known.empty:
        why = NOT_MEASURED if complete.empty else NO_INTENSITY
        return (absent_chart("roofline", "Roofline", why),)
    place = ["cpu", "gpu", "device", "threads"]
    machines = known.groupby(place, observed=True, sort=False, dropna=False)
    charts = []
    for number, ((cpu, gpu, device, threads), part) in enumerate(machines, 1):
        named = f"{device}, {gpu}" if isinstance(gpu, str) else device
        machine = f"{threads} thread(s), {device}, {cpu}" if device == "cpu" else f"{named}, {cpu}"
        roofs = _highest(part, ceilings)
        kernels = ", ".join(f"{precision} by a {roof.kernel}" for precision, roof in roofs.items())
        charts.append(
            Chart(
                key="roofline" if number == 1 else f"roofline-{number}",
                title="Roofline",
                caption=f"{machine}. {_CAPTION.format(kernels=kernels)}",
                x=Axis("arithmetic intensity (FLOPs per byte)", log=True),
                y=Axis("attained FLOP/s", log=True),
                series=(*_lines(part, roofs), *_points(part, roofs, entry_of)),
                table="throughput",
                marks=marks,
            )
        )
    return tuple(charts)


@dataclass(frozen=True)
class _Roof:
    """The highest measured ceiling of a machine in one precision."""

    peak: float  # FLOP/s
    kernel: str  # that reached it
    copied: float  # bytes per second


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


def _points(rows: pd.DataFrame, roofs: Mapping[str, _Roof], entry_of: EntryOf) -> list[Series]:
    """Return one series per legend entry, and another one for its noisy rows."""
    groups: dict[tuple[LegendEntry, bool], list[Any]] = {}
    for row in rows.itertuples():
        groups.setdefault((entry_of(row), bool(row.noisy)), []).append(row)
    return [
        Series(
            name=entry.name,
            x=[row.arithmetic_intensity for row in found],
            y=[row.flops_per_second for row in found],
            style=entry.style,
            mark=entry.mark,
            faint=noisy,
            hover=[_hover(row, roofs.get(row.executed_precision)) for row in found],
            labels=[str(row.batch_size) for row in found] if len(rows) <= _LABELLED else (),
        )
        # Rows that are not noisy come first: the legend shows the first series of a name.
        for (entry, noisy), found in sorted(groups.items(), key=lambda item: item[0][1])
    ]


def _hover(row: Any, roof: _Roof | None) -> str:
    share = f", {row.flops_per_second / roof.peak * 100:.0f} % of the ceiling" if roof else ""
    streams = f", {row.streams} streams" if row.streams > 1 else ""
    return (
        f"{row.backend} {row.executed_precision}, {row.memory_format}, batch {row.batch_size}"
        f"{streams}: {_gigaflops(row.flops_per_second)}{share} "
        f"at {row.arithmetic_intensity:.3g} FLOPs per byte, "
        f"{rounded(row.images_per_second)} images/s{', noisy' if row.noisy else ''}"
    )


def _gigaflops(value: float) -> str:
    shown = f"{value / 1e9:,.0f}" if value >= _WHOLE else f"{value / 1e9:.3g}"
    return f"{shown} GFLOP/s"


def _lines(rows: pd.DataFrame, roofs: Mapping[str, _Roof]) -> list[Series]:
    """Return one line per precision, with its ridge point, where memory stops limiting."""
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
                f"memory limits to the left of {ridges[precision]:.3g} FLOPs per byte",
                f"{precision} by a {roof.kernel}: {_gigaflops(roof.peak)}",
            ],
            labels=["", f"{precision}: {_gigaflops(roof.peak)}", ""],
        )
        for number, (precision, roof) in enumerate(roofs.items())
    ]
