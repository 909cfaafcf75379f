"""The report of every measured speed in a results folder: tables, data, how they were made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.report.charts.draw_matplotlib import save_charts
from bench.report.charts.history import history_charts
from bench.report.charts.roofline import rooflines
from bench.report.charts.throughput import by_network_or_backend, latency_and_throughput
from bench.report.findings.fastest import fastest
from bench.report.findings.history import histories
from bench.report.pages.html import render
from bench.report.pages.markdown import picture
from bench.report.pages.provenance import machine, measuring_command, versions
from bench.report.tables.cold_start import cold_start_lines, cold_start_text
from bench.report.tables.history import history_lines, history_text
from bench.report.tables.text_table import markdown_code, markdown_text
from bench.report.tables.throughput import footnotes, throughput_text, with_variants
from bench.store import Store
from bench.store.files import write_atomically
from bench.store.tables.frames import cold_start_frame, rows_of, throughput_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.report.charts.chart import Chart
    from bench.report.findings.history import History
    from bench.store.measurements import MeasurementRecord, Measurements

FOLDER = "throughput"
FORMATS = ("markdown", "csv", "parquet", "html")
PACKAGES = ("bench", "torch", "onnxruntime-gpu", "onnxruntime", "openvino", "python")
TITLE = "How fast do these networks run, and on what?"


def publish_measurements(
    measurements: Measurements, folder: Path, formats: Sequence[str] = ("markdown", "csv")
) -> list[Path]:
    """Write every measurement of a results folder as a page and as data; returns the files.

    Args:
        measurements: of a results folder.
        folder: where to write; made if it is not there.
        formats: some of `FORMATS`.

    Raises:
        BenchError: there is no measurement, or a format is not one of them.
        StorageError: the folder cannot be written.
    """
    for name in formats:
        if name not in FORMATS:
            raise BenchError(
                f"--format {name} is not made of measurements (take {', '.join(FORMATS)})"
            )
    records = list(measurements.records())
    if not records:
        raise BenchError(f"no measurement in {measurements.root}; 'bench throughput' makes one")
    frame = throughput_frame([row for record in records for row in record.rows])
    ceilings = {r.measurement: r.ceiling for r in records}
    root = measurements.root.parent
    variants = Store(root).variants_of_runs()
    named = frame.assign(variant=frame["run"].map(variants).astype(object))
    legend = by_network_or_backend(named)
    bounds = {b for r in records if (b := r.request.get("latency_bound_ms")) is not None}
    charts = (
        latency_and_throughput(named, bounds, *legend),
        *rooflines(named, ceilings, *legend),
    )
    repeated = histories((r, rows_of(throughput_frame(r.rows))) for r in records)
    over_time = history_charts(repeated)
    contents: dict[str, tuple[str, Callable[[], bytes]]] = {
        "markdown": (
            "README.md",
            lambda: markdown(records, charts, repeated, over_time, root).encode(),
        ),
        "csv": ("throughput.csv", lambda: frame.to_csv(index=False).encode()),
        "parquet": ("throughput.parquet", lambda: frame.to_parquet(index=False)),
        "html": (
            "report.html",
            lambda: html(records, [*charts, *over_time], root).encode(),
        ),
    }
    written = []
    for name in dict.fromkeys(formats):
        file, content = contents[name]
        write_atomically(folder / file, content())
        written.append(folder / file)
        if name == "markdown":
            written += save_charts([*charts, *over_time], folder)
    return written


def markdown(
    records: Sequence[MeasurementRecord],
    charts: Sequence[Chart] = (),
    repeated: Sequence[History] = (),
    over_time: Sequence[Chart] = (),
    root: Path | None = None,
) -> str:
    """Return the page: the fastest of each network, then each measurement with its provenance.

    Last come the configurations that were measured more than once, over time.

    Args:
        records: the measurements.
        charts: charts that lie beside the page under their keys; those with nothing to show say
            why.
        repeated: configurations that were measured more than once.
        over_time: their charts.
        root: the results folder, whose studies name the runs by variant.
    """
    variants = {} if root is None else Store(root).variants_of_runs()
    known = [
        (record, with_variants(rows_of(throughput_frame(record.rows)), variants))
        for record in records
    ]
    lines = [f"# {TITLE}", ""]
    lines += [
        *(f"- {markdown_text(line)}" for line in fastest(row for _, rows in known for row in rows)),
        "",
    ]
    for chart in charts:
        lines += [f"No {chart.key}: {chart.missing}", ""] if chart.missing else picture(chart)
    for record, rows in known:
        lines += [
            f"## {markdown_text(_targets(record))}",
            "",
            *throughput_text(rows).to_markdown(),
            "",
        ]
        lines += [f"- {markdown_text(line)}" for line in footnotes(rows)]
        if record.cold_starts:
            cold = rows_of(cold_start_frame(record.cold_starts))
            lines += ["", *map(markdown_text, cold_start_lines(cold)), ""]
            lines += [*cold_start_text(cold).to_markdown(), ""]
        lines += [f"- {line}" for line in provenance(record)]
        lines.append("")
    if repeated:
        lines += ["## Over time", ""]
    for chart in over_time:
        lines += picture(chart)
    for one in repeated:
        lines += [f"### {markdown_text(f'{one.network}, {one.way}: {one.case}')}", ""]
        lines += [*history_text(one).to_markdown(), "", *history_lines(one), ""]
    return "\n".join(lines)


def html(
    records: Sequence[MeasurementRecord], charts: Sequence[Chart], root: Path | None = None
) -> str:
    """Return the page as HTML: the fastest, charts, one table to sort, and how it was measured.

    Args:
        records: the measurements.
        charts: of all of them; those with nothing to show say why.
        root: the results folder, whose studies name the runs by variant.
    """
    frame = throughput_frame([row for record in records for row in record.rows])
    variants = {} if root is None else Store(root).variants_of_runs()
    rows = with_variants(rows_of(frame), variants)
    drawn = {chart.key: chart for chart in charts if chart.missing is None}
    names = dict.fromkeys(s.name for c in drawn.values() for s in c.series if s.style is not None)
    return render(
        "measurements.html.jinja",
        charts=drawn,
        tables={"throughput": frame.dropna(axis=1, how="all")},
        names=list(names),
        title=TITLE,
        heading=TITLE,
        findings=fastest(rows),
        picture=next(iter(drawn.values()), None),
        others=list(drawn.values())[1:],
        missing=[chart.missing for chart in charts if chart.missing],
        table=throughput_text(rows),
        measurements=[_details(record) for record in records],
    )


def _details(record: MeasurementRecord) -> dict[str, Any]:
    """Return what the HTML page says of one measurement: cold starts, notes and provenance."""
    cold = rows_of(cold_start_frame(record.cold_starts)) if record.cold_starts else []
    made = [line.replace("`", "") for line in provenance(record)]
    return {
        "targets": _targets(record),
        "notes": [*footnotes(rows_of(throughput_frame(record.rows))), *made],
        "cold_lines": cold_start_lines(cold) if cold else [],
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
