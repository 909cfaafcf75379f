"""The report of every measured speed in a results folder: tables, data, how they were made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, check_known
from bench.report.charts.draw_matplotlib import save_charts
from bench.report.charts.history import history_charts
from bench.report.charts.roofline import rooflines
from bench.report.charts.throughput import by_network_or_backend, latency_and_throughput
from bench.report.findings.fastest import fastest
from bench.report.findings.history import histories
from bench.report.pages.commands import measuring_command
from bench.report.pages.html import render
from bench.report.pages.markdown import picture
from bench.report.pages.provenance import machine, versions
from bench.report.pages.publish import write_file
from bench.report.tables.cold_start import cold_start_lines, cold_start_text
from bench.report.tables.history import history_lines, history_text
from bench.report.tables.text_table import markdown_code, markdown_text
from bench.report.tables.throughput import footnotes, throughput_text, with_variants
from bench.store import Store
from bench.store.files import prove_writable
from bench.store.tables.frames import cold_start_frame, rows_of, throughput_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd

    from bench.report.charts.chart import Chart
    from bench.report.findings.history import History
    from bench.store.measurements import MeasurementRecord, Measurements

FOLDER = "throughput"
FORMATS = ("markdown", "csv", "parquet", "html")
PACKAGES = ("bench", "torch", "onnxruntime-gpu", "onnxruntime", "openvino", "python")
TITLE = "How fast do these networks run, and on what?"


@dataclass(frozen=True)
class _Measurement:
    """One measurement, and its rows with the variants of their runs."""

    record: MeasurementRecord
    rows: list[dict[str, Any]]
    cold_starts: list[dict[str, Any]]


def publish_measurements(
    measurements: Measurements, folder: Path, formats: Sequence[str] = ("markdown", "csv")
) -> list[Path]:
    """Write every measurement of a results folder as a page and as data; returns the files.

    Args:
        measurements: of a results folder, whose studies name the runs by variant.
        folder: where to write; made if it is not there.
        formats: some of `FORMATS`.

    Raises:
        BenchError: there is no measurement, or a format is not one of them.
        StorageError: the folder cannot be written.
    """
    for name in formats:
        check_known("--measurements --format", name, FORMATS)
    records = list(measurements.records())
    if not records:
        raise BenchError(f"no measurement in {measurements.root}; 'bench throughput' makes one")
    prove_writable(folder, "--output")
    variants = Store(measurements.root.parent).variants_of_runs()
    measured = [
        _Measurement(
            record,
            with_variants(rows_of(throughput_frame(record.rows)), variants),
            with_variants(rows_of(cold_start_frame(record.cold_starts)), variants),
        )
        for record in records
    ]
    frame = throughput_frame(row for record in records for row in record.rows)
    charts = _charts(frame.assign(variant=frame["run"].map(variants).astype(object)), records)
    repeated = histories((one.record, one.rows) for one in measured)
    over_time = history_charts(repeated)
    contents: dict[str, tuple[str, Callable[[], str | bytes]]] = {
        "markdown": ("README.md", lambda: _markdown(measured, charts, repeated, over_time)),
        "csv": ("throughput.csv", lambda: frame.to_csv(index=False)),
        "parquet": ("throughput.parquet", lambda: frame.to_parquet(index=False)),
        "html": ("report.html", lambda: _html(measured, frame, [*charts, *over_time])),
    }
    written = []
    for name in dict.fromkeys(formats):
        file, content = contents[name]
        written += write_file(folder / file, content())
        if name == "markdown":
            written += save_charts([*charts, *over_time], folder)
    return written


def _charts(frame: pd.DataFrame, records: Sequence[MeasurementRecord]) -> list[Chart]:
    """Chart all measurements together; a chart with nothing to show says why."""
    legend = by_network_or_backend(frame)
    limits = {b for r in records if (b := r.request.get("latency_bound_ms")) is not None}
    ceilings = {record.measurement: record.ceiling for record in records}
    return [latency_and_throughput(frame, limits, *legend), *rooflines(frame, ceilings, *legend)]


def _markdown(
    measured: Sequence[_Measurement],
    charts: Sequence[Chart],
    repeated: Sequence[History],
    over_time: Sequence[Chart],
) -> str:
    """Return the page: the fastest of each network, then each measurement with its provenance.

    Last come the configurations that were measured more than once, over time.
    """
    findings = fastest(row for one in measured for row in one.rows)
    lines = [f"# {TITLE}", "", *(f"- {markdown_text(line)}" for line in findings), ""]
    for chart in charts:
        lines += [f"No {chart.key}: {chart.missing}", ""] if chart.missing else picture(chart)
    for one in measured:
        lines += [f"## {markdown_text(_targets(one.record))}", ""]
        lines += [*throughput_text(one.rows).to_markdown(), ""]
        lines += [f"- {markdown_text(line)}" for line in footnotes(one.rows)]
        if one.cold_starts:
            lines += ["", *map(markdown_text, cold_start_lines(one.cold_starts)), ""]
            lines += [*cold_start_text(one.cold_starts).to_markdown(), ""]
        lines += [*(f"- {line}" for line in provenance(one.record)), ""]
    if repeated:
        lines += ["## Over time", ""]
    for chart in over_time:
        lines += picture(chart)
    for history in repeated:
        name = f"{history.network}, {history.way}: {history.case}"
        lines += [f"### {markdown_text(name)}", ""]
        lines += [*history_text(history).to_markdown(), "", *history_lines(history), ""]
    return "\n".join(lines)


def _html(measured: Sequence[_Measurement], frame: pd.DataFrame, charts: Sequence[Chart]) -> str:
    """Return the page as HTML: the fastest, charts, tables to sort, and how it was measured."""
    rows = [row for one in measured for row in one.rows]
    drawn = {chart.key: chart for chart in charts if chart.missing is None}
    names = dict.fromkeys(s.name for c in drawn.values() for s in c.series if s.style is not None)
    return render(
        "measurements.html.jinja",
        charts=drawn,
        tables={"throughput": frame.dropna(axis=1, how="all")},
        names=list(names),
        title=TITLE,
        findings=fastest(rows),
        picture=next(iter(drawn.values()), None),
        others=list(drawn.values())[1:],
        missing=[chart.missing for chart in charts if chart.missing],
        measurements=[_details(one) for one in measured],
    )


def _details(one: _Measurement) -> dict[str, Any]:
    """Return what the HTML page says of one measurement: cold starts, notes and provenance."""
    cold = one.cold_starts
    made = [line.replace("`", "") for line in provenance(one.record)]
    return {
        "targets": _targets(one.record),
        "when": one.record.created_at[:16].replace("T", " "),
        "table": throughput_text(one.rows),
        "notes": [*footnotes(one.rows), *made],
        "cold_lines": cold_start_lines(cold),
        "cold": cold_start_text(cold) if cold else None,
    }


def _targets(record: MeasurementRecord) -> str:
    return ", ".join(record.request.get("targets", [])) or str(record.rows[0]["model"])


def provenance(record: MeasurementRecord) -> list[str]:
    """Return what a reader needs to check the figures: command, machine, commit, date."""
    made, ceiling = record.environment, record.ceiling
    kernels = ceiling.get("kernels", {})
    flops = ", ".join(
        f"{precision} {value / 1e9:.0f} GFLOP/s ({kernels.get(precision, 'matrix product')})"
        for precision, value in ceiling.get("flops_per_second", {}).items()
    )
    dirty = " with uncommitted changes" if made.get("git_dirty") else ""
    lines = [
        f"command: {markdown_code(measuring_command(record))}",
        f"machine: {machine(made)}, {made.get('threads')} threads",
        f"versions: {versions(made, PACKAGES)}",
        f"commit: {made.get('git_commit')}{dirty}; {record.created_at}; id {record.measurement}",
    ]
    if flops:
        copied = ceiling["bytes_per_second"] / 1e9
        side = ceiling["matrix_side"]
        lines.insert(2, f"its ceiling: {flops}; matrices of {side}²; copy {copied:.0f} GB/s")
    return lines
