"""The throughput table: cells for a terminal or a page, and what the figures rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd

    from bench.report.charts.chart import Chart
    from bench.store.measurements import MeasurementRecord

HEADINGS = (
    "network", "backend", "precision", "batch", "ratio to reference", "to best eager",
    "images/s", "±", "p50 ms", "p90 ms", "p99 ms", "GFLOP/s", "of peak", "note",
)  # fmt: skip
_COMPILED = 0.5  # seconds from which compiling is worth a word
_LEFT = ("network", "backend", "precision", "note")


def throughput_cells(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Rows of the `throughput` table as text, headings first; noisy rows are marked.

    What a backend cannot do at all is left to `footnotes`, and a column that no row fills
    says nothing.
    """
    cells = [_cells(row) for row in rows if row["status"] != "unsupported"]
    kept = [i for i, _ in enumerate(HEADINGS) if any(line[i] for line in cells)]
    return [[line[i] for i in kept] for line in (HEADINGS, *cells)]


def throughput_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Make a terminal's table of `throughput_cells`."""
    headings, *cells = throughput_cells(rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in _LEFT else "right")
    for line in cells:
        table.add_row(*map(escape, line))
    return table


def footnotes(rows: Sequence[dict[str, Any]], results: Path | None = None) -> list[str]:
    """Say what the figures rest on: reference, noise floor, warnings, where the samples are.

    Args:
        rows: of the `throughput` table, of one measurement.
        results: the results folder, to name the samples' place in it.
    """
    lines = []
    for reference in dict.fromkeys(r["reference"] for r in rows if r["reference"]):
        floors = [r["noise_floor"] for r in rows if r["reference"] == reference]
        known = [floor for floor in floors if floor is not None]
        floor = f"; entered twice, it differs from itself by {max(known):.1%}" if known else ""
        lines.append(f"Reference: {reference}{floor}. Ratios are of images/s, paired by round.")
    first = rows[0]
    lines.append(
        f"{first['device']}, {first['threads']} threads, {first['cpu']}; 95 % intervals. "
        "GFLOP/s: 2 × multiply-adds; of peak: of this machine's ceiling."
    )
    if any(row["noisy"] for row in rows):
        lines.append(
            "noisy: the interval did not become narrow enough; give more --max-seconds, and "
            "make no claim from it"
        )
    notes = {note for r in rows if r["warnings"] for note in r["warnings"].split("; ")}
    lines += [f"Warning: {note}" for note in sorted(notes)]
    unsupported = [row["error"] for row in rows if row["status"] == "unsupported"]
    if unsupported:
        reasons = "; ".join(dict.fromkeys(unsupported))
        lines.append(f"Not supported here ({len(unsupported)} rows): {reasons}")
    if results is not None:
        lines.append(f"Samples: {results / 'measurements' / str(first['measurement'])}")
    return lines


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    precision = row["executed_precision"] or row["precision"]
    if precision not in {row["precision"], "none"}:
        precision = f"{row['precision']} run as {precision}"
    layout = "" if row["memory_format"] == "contiguous" else f" {row['memory_format']}"
    boundary = "" if row["boundary"] == "compute" else f" ({row['boundary']})"
    peak = row["peak_fraction"]
    return (
        row["run"] or " ".join(filter(None, (row["model"], row["options"]))),
        row["backend"] + layout + boundary,
        precision,
        _number(row["batch_size"], "d"),
        _ratio(row),
        _best_eager(row),
        _number(row["images_per_second"], ",.4g"),
        _number(row["width"], ".1%"),
        *(_number(row[f"latency_p{p}_ms"], ".3g") for p in (50, 90, 99)),
        "" if row["flops_per_second"] is None else f"{row['flops_per_second'] / 1e9:.3g}",
        "" if peak is None else f"{peak:.0%}",
        _note(row),
    )


def _ratio(row: dict[str, Any]) -> str:
    if row["ratio"] is None:
        return ""
    if row["difference"] == "reference":
        return "reference"
    text = f"{row['ratio']:.2f} [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
    return f"{text} none" if row["difference"] == "none" else text


def _best_eager(row: dict[str, Any]) -> str:
    ratio, low, high = (row[f"best_eager_ratio{end}"] for end in ("", "_low", "_high"))
    if ratio is None:
        return ""
    return "best eager" if low == high == 1.0 else f"{ratio:.2f} [{low:.2f}, {high:.2f}]"


def _note(row: dict[str, Any]) -> str:
    if row["status"] != "complete":
        return f"{row['status'].replace('_', ' ')}: {row['error']}"
    parts = ["noisy"] if row["noisy"] else []
    if row["nodes_elsewhere"]:
        parts.append(f"{row['nodes_elsewhere']} nodes elsewhere")
    if row["compile_seconds"] is not None and row["compile_seconds"] >= _COMPILED:
        parts.append(f"compiled in {row['compile_seconds']:.0f} s")
    if row["test_accuracy"] is not None:
        parts.append(f"accuracy {row['test_accuracy']:.4f}")
    return ", ".join(parts)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(int(value) if form == "d" else value, form)


def _network(row: Any) -> str:
    """A run's name, else the model with the options that make it another one."""
    if isinstance(row.run, str):
        return row.run
    return " ".join(part for part in (row.model, row.options) if isinstance(part, str) and part)


def by_network_or_backend(rows: pd.DataFrame) -> Callable[[Any], tuple[str, int]]:
    """Return what gives a row its name and style in a picture.

    Args:
        rows: of the `throughput` table. Of several networks each has one style, of a single one
            each way to run it.
    """
    several = len({_network(row) for row in rows.itertuples()}) > 1
    names: dict[str, int] = {}

    def look(row: Any) -> tuple[str, int]:
        layout = "" if row.memory_format == "contiguous" else f" {row.memory_format}"
        way = f"{row.backend} {row.executed_precision}{layout}"
        name = _network(row) if several else way
        return name, names.setdefault(name, len(names))

    return look


def throughput_charts(frame: pd.DataFrame, record: MeasurementRecord) -> list[Chart]:
    """Make the pictures of one measurement: its roofline, and where the time goes if profiled.

    Args:
        frame: its rows of the `throughput` table.
        record: of the same measurement.
    """
    from bench.report.charts.layers import layer_charts
    from bench.report.charts.roofline import rooflines

    ceilings = {record.measurement: record.ceiling}
    charts = list(rooflines(frame, ceilings, by_network_or_backend(frame)))
    for name, lane in record.lanes.items():
        shares = lane.get("layers") or [{"error": ""}]
        if "error" not in shares[0]:
            charts += layer_charts(name, shares)
    return charts
