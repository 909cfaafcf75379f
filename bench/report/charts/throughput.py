"""Charts of one measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.report.charts.chart import Axis, Chart, EntryOf, LegendEntry, Series
from bench.report.charts.layers import layer_charts
from bench.report.charts.roofline import rooflines
from bench.report.findings.fastest import network_name

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd

    from bench.store.measurements import MeasurementRecord


def by_network_or_backend(rows: pd.DataFrame) -> EntryOf:
    """Return the legend entries of rows.

    Args:
        rows: rows of the `throughput` table. Each of several networks has its own style; of a
            single network, each way to run it has.
    """
    several = len({*map(network_name, rows.to_dict("records"))}) > 1
    names: dict[str, int] = {}

    def entry_of(row: Any) -> LegendEntry:
        layout = "" if row.memory_format == "contiguous" else f" {row.memory_format}"
        streams = f" {row.streams} streams" if row.streams > 1 else ""
        way = f"{row.backend} {row.executed_precision}{layout}{streams}"
        name = network_name(row._asdict()) if several else way
        return LegendEntry(name, names.setdefault(name, len(names)))

    return entry_of


def latency_and_throughput(
    rows: pd.DataFrame, limits: Collection[float], entry_of: EntryOf
) -> Chart:
    """Chart images/s with their intervals against the time of a batch.

    Args:
        rows: rows of the `throughput` table.
        limits: latency bounds that were asked for, milliseconds, each drawn as a line.
        entry_of: the legend entry of a row.
    """
    known = rows[(rows["status"] == "complete") & rows["images_per_second"].notna()]
    p99 = bool(len(known)) and known["latency_p99_ms"].notna().all()
    median = known["batch_size"] / known["images_per_second"] * 1e3
    known = known.assign(milliseconds=known["latency_p99_ms"] if p99 else median)
    groups: dict[LegendEntry, list[Any]] = {}
    for row in known.itertuples():
        groups.setdefault(entry_of(row), []).append(row)
    series = []
    for entry, found in groups.items():
        ends = all(row.ci_low == row.ci_low for row in found)  # not NaN
        series.append(
            Series(
                name=entry.name,
                x=[row.milliseconds for row in found],
                y=[row.images_per_second for row in found],
                style=entry.style,
                interval="y",
                low=[row.ci_low for row in found] if ends else (),
                high=[row.ci_high for row in found] if ends else (),
                hover=[_hover(row) for row in found],
            )
        )
    fastest, slowest = known["images_per_second"].max(), known["images_per_second"].min()
    lines = [
        Series(f"limit {limit:g} ms", [limit] * 2, [slowest, fastest], "line", dashed=True)
        for limit in sorted(limits)
    ]
    which = "99th percentile" if p99 else "median"
    return Chart(
        key="latency-throughput",
        title="Latency and throughput",
        caption="One point per configuration, with the 95 % interval of its images/s. "
        "Up and to the left is better; batch size moves a configuration up and to the right."
        + (" Dashed: the latency that was allowed." if lines else ""),
        x=Axis(f"{which} time of a batch (ms)", log=True),
        y=Axis("images/s", log=True),
        series=(*lines, *series),
        table="throughput",
        absent=None if series else "No measurement has both a time and images/s.",
    )


def _hover(row: Any) -> str:
    return (
        f"{row.backend} {row.executed_precision}, batch {row.batch_size}: "
        f"{row.images_per_second:,.4g} images/s [{row.ci_low:,.4g}, {row.ci_high:,.4g}] at "
        f"{row.milliseconds:.3g} ms"
    )


def throughput_charts(frame: pd.DataFrame, record: MeasurementRecord) -> list[Chart]:
    """Make the charts of one measurement: its roofline, and the time by block if profiled.

    Args:
        frame: its rows of the `throughput` table.
        record: of the same measurement.
    """
    ceilings = {record.measurement: record.ceiling}
    charts = list(rooflines(frame, ceilings, by_network_or_backend(frame)))
    for name, details in record.lanes.items():
        shares = details.get("layers") or [{"error": ""}]
        if "error" not in shares[0]:
            charts += layer_charts(name, shares)
    return charts
