"""Charts of one measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.report.charts.chart import Axis, Chart, EntryOf, LegendEntry, Series, choose_marks
from bench.report.charts.layers import layer_charts
from bench.report.charts.roofline import rooflines
from bench.report.findings.fastest import layout_and_streams, network_name, rounded

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd

    from bench.store.measurements import MeasurementRecord


def by_network_or_backend(rows: pd.DataFrame) -> tuple[EntryOf, tuple[str, ...]]:
    """Return the legend entries of rows, and what the symbols of a chart of them stand for.

    Args:
        rows: rows of the `throughput` table. Colours stand for networks and symbols for backend and
            precision; of a single network, colours stand for the ways to run it and symbols for
            precisions.
    """
    complete = rows[rows["status"] == "complete"]
    precisions = executed_precisions(complete)
    backends = complete["backend"].astype(str)
    records = complete.to_dict("records")
    names = [network_name(record) for record in records]
    choices = [backends + " " + precisions, backends]
    ways = [f"{record['backend']}{layout_and_streams(record)}" for record in records]
    single = len(set(names)) == 1
    if single:
        names, choices = ways, [precisions]
    marks, texts = choose_marks(len(set(names)), *map(list, choices))
    if single and not marks:
        names = [f"{way} {precision}" for way, precision in zip(ways, precisions, strict=True)]
    styles = {name: style for style, name in enumerate(dict.fromkeys(names))}
    entries = {
        place: LegendEntry(name, styles[name], mark=marks.index(text) if marks else None)
        for place, name, text in zip(complete.index, names, texts, strict=True)
    }
    return lambda row: entries[row.Index], marks


def executed_precisions(rows: pd.DataFrame) -> pd.Series:
    """Return the precision in which each row was computed; of a row without one, that requested."""
    ran, wanted = (rows[name].astype(object) for name in ("executed_precision", "precision"))
    return ran.fillna(wanted).fillna("").astype(str)


def latency_and_throughput(
    rows: pd.DataFrame,
    limits: Collection[float],
    entry_of: EntryOf,
    marks: tuple[str, ...] = (),
) -> Chart:
    """Chart images/s with their intervals against the time of a batch.

    Args:
        rows: rows of the `throughput` table.
        limits: latency bounds that were asked for, milliseconds, each drawn as a line.
        entry_of: the legend entry of a row.
        marks: what symbols stand for.
    """
    known = rows[(rows["status"] == "complete") & rows["images_per_second"].notna()]
    known = known[known["scenario"] != "server"]  # its rate follows from the latency allowed
    p99 = bool(len(known)) and known["latency_p99_high_ms"].notna().all()
    mean = known["batch_size"] * known["streams"] / known["images_per_second"] * 1e3
    median = known["latency_p50_ms"].fillna(mean)
    known = known.assign(milliseconds=known["latency_p99_high_ms"] if p99 else median)
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
                mark=entry.mark,
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
    return Chart(
        key="latency-throughput",
        title="Latency and throughput",
        caption="One point per configuration, with the 95 % interval of its images/s. "
        "Up and to the left is better; batch size moves a configuration up and to the right."
        + (" Dashed: the latency that was allowed." if lines else ""),
        x=Axis(
            "upper 95 % bound of a batch's p99 (ms)" if p99 else "median time of a batch (ms)",
            log=True,
        ),
        y=Axis("images/s", log=True),
        series=(*lines, *series),
        table="throughput",
        absent=None if series else "No measurement has both a time and images/s.",
        marks=marks,
    )


def _hover(row: Any) -> str:
    known = row.ci_low == row.ci_low  # not NaN
    interval = f" [{rounded(row.ci_low)}, {rounded(row.ci_high)}]" if known else ""
    return (
        f"{row.backend} {row.executed_precision}, batch {row.batch_size}: "
        f"{rounded(row.images_per_second)} images/s{interval} at {row.milliseconds:.3g} ms"
    )


def throughput_charts(frame: pd.DataFrame, record: MeasurementRecord) -> list[Chart]:
    """Make the charts of one measurement: its roofline, and the time by block if profiled.

    Args:
        frame: its rows of the `throughput` table.
        record: of the same measurement.
    """
    ceilings = {record.measurement: record.ceiling}
    charts = list(rooflines(frame, ceilings, *by_network_or_backend(frame)))
    for name, details in record.lanes.items():
        shares = details.get("layers") or [{"error": ""}]
        if "error" not in shares[0]:
            charts += layer_charts(name, shares)
    return charts
