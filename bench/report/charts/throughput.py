"""Charts of one measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.report.charts.chart import Chart, EntryOf, LegendEntry
from bench.report.charts.layers import layer_charts
from bench.report.charts.roofline import rooflines
from bench.report.findings.fastest import network_name

if TYPE_CHECKING:
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
