"""The throughput table, and the footnotes that say what its figures are relative to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.export.settings import is_noise
from bench.report.findings.fastest import case, layout, network_name, rounded, way
from bench.report.findings.wording import first_named
from bench.report.tables.text_table import TextTable
from bench.system.intervals import FEWEST_PROCESSES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.report.tables.terminal import TerminalTable

_COLUMNS = (
    "network",
    "backend",
    "precision",
    "batch",
    "streams",
    "images/s",
    "ratio to reference",
    "±",
    "to best eager",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "GFLOP/s",
    "of peak",
    "note",
)
_LEFT = ("backend", "precision")
_DASH = "—"
_NO_FIGURE = 1.0  # a relative half-width from which an interval says nothing
_FEWEST_SAMPLES = 6  # below, no order statistics of one process enclose a median with 95 %
_NEEDED = ("network", "images/s", "ratio to reference")  # columns that every terminal shows
_COMPILED = 0.5  # seconds from which compilation time is noted


def throughput_text(rows: Sequence[dict[str, Any]]) -> TextTable:
    """Return rows of the `throughput` table as text, fastest first; noisy rows are marked.

    Configurations that a backend does not support are left to `footnotes`, and columns that no
    row fills are left out.

    Args:
        rows: of one measurement, each with the `variant` of its run, if that is known.
    """
    shown = [row for row in rows if row["status"] != "unsupported"]
    shown.sort(key=lambda row: -(row["images_per_second"] or 0.0))
    several, doubtful = any(row["streams"] > 1 for row in rows), _doubtful_cases(rows)
    mixed = len({row["threads"] for row in rows}) > 1
    cells = [_cells(r, doubtful, several=several, mixed_threads=mixed) for r in shown]
    kept = [i for i, _ in enumerate(_COLUMNS) if any(line[i] for line in cells)]
    columns, *lines = [tuple(line[i] for i in kept) for line in (_COLUMNS, *cells)]
    return TextTable(columns, tuple(lines))


def throughput_table(rows: Sequence[dict[str, Any]]) -> TerminalTable:
    """Return `throughput_text` laid out for a terminal."""
    table = throughput_text(rows)
    needed = 1 + max(i for i, name in enumerate(table.columns) if name in _NEEDED)
    return table.to_terminal(left=_LEFT, prose=("note",), needed=needed)


def with_variants(
    rows: Sequence[dict[str, Any]], variants: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return rows of the `throughput` table, each with the `variant` of its run."""
    return [{**row, "variant": variants.get(row["run"] or "")} for row in rows]


def footnotes(rows: Sequence[dict[str, Any]], results: Path | None = None) -> list[str]:
    """Return the lines below the table: reference, noise floor, machine, warnings, samples.

    Args:
        rows: rows of the `throughput` table, of one measurement.
        results: the results folder; given, the samples' folder in it is named.
    """
    lines = []
    for reference in dict.fromkeys(r["reference"] for r in rows if r["reference"]):
        floors = [r["noise_floor"] for r in rows if r["reference"] == reference]
        known = [floor for floor in floors if floor is not None]
        floor = ""
        if known:
            floor = (
                f"; entered twice, it differs from itself by {max(known) * 100:.1f} %"
                if max(known) < _NO_FIGURE
                else "; entered twice, it differs too much from itself for any comparison"
            )
        lines.append(f"Reference: {reference}{floor}. Ratios are of images/s, paired by round.")
    first = rows[0]
    threads = " or ".join(str(count) for count in dict.fromkeys(row["threads"] for row in rows))
    place = ", ".join(filter(None, (first["device"], first.get("gpu"))))
    lines.append(
        f"{place}, {threads} threads, {first['cpu']}; 95 % intervals. "
        "GFLOP/s: 2 × multiply-adds; of peak: of this machine's ceiling."
    )
    lines.append(_processes(rows))
    lines += _latencies(rows)
    doubtful = _doubtful_cases(rows)
    if any(_DASH in (_width(row), _ratio(row, doubtful)) for row in rows):
        lines.append(
            f"{_DASH}: fewer than {_FEWEST_SAMPLES} samples, or an interval as wide as the figure "
            "itself; give more --max-seconds, or measure when the machine is quiet"
        )
    if any(row["noisy"] for row in rows):
        lines.append(
            "* noisy: too few queries for a p99 (give more --max-seconds), or a process failed."
            if _is_served(rows)
            else "* noisy: the interval is wider than was asked for; a larger --max-seconds makes "
            "it narrower. Two rows whose intervals overlap may be equally fast."
        )
    if any(is_noise(row["calibration"]) for row in rows):
        lines.append(
            "calibrated on random images: int8 of an untrained network, or asked for; its speed "
            "counts, its predictions do not (--dataset calibrates on data)"
        )
    lines += _warnings(rows)
    unsupported = [row["error"] for row in rows if row["status"] == "unsupported"]
    if unsupported:
        reasons = "; ".join(dict.fromkeys(unsupported))
        lines.append(f"Not supported here ({len(unsupported)} rows): {reasons}")
    if results is not None:
        lines.append(f"Samples: {results / 'measurements' / str(first['measurement'])}")
    return lines


def _warnings(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return each warning once, with the rows that it is about unless it is about all of them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        for warning in row["warnings"].split("; ") if row["warnings"] else ():
            found.setdefault(warning, []).append(row)
    several, mixed = (len(set(v)) > 1 for v in (map(network_name, rows), map(_threads, rows)))
    lines = []
    for warning, about in sorted(found.items()):
        names = dict.fromkeys(
            f"{network_name(row) + ' ' if several else ''}{way(row)}"
            f"{_threads(row) if mixed else ''}, {case(row)}"
            for row in about
        )
        others = any(row["status"] == "complete" and row not in about for row in rows)
        which = f"{'; '.join(first_named([*names], 'more'))}: " if others else ""
        lines.append(f"Warning: {which}{warning}")
    return lines


def _threads(row: Mapping[str, Any]) -> str:
    return f" {row['threads']} threads"


def _latencies(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Say what images/s and percentiles mean with several streams, and of a server."""
    if any(row["streams"] > 1 for row in rows):
        yield (
            "streams: batches in flight at once, each on its part of the threads; p50, p90 and p99 "
            "are of a batch meanwhile."
        )
    bounded = [row for row in rows if row["latency_p99_high_ms"] and row["scenario"] != "server"]
    if new := [row for row in bounded if row.get("latency_p99_scope") == "new process"]:
        yield "p99 ms: what p99 in a new process does not exceed, at 95 % confidence."
    if len(new) < len(bounded):
        which = "p99 ms of fewer than six processes" if new else "p99 ms"
        yield (
            f"{which}: what p99 of these processes does not exceed, at 95 % confidence if batches "
            "are independent; nothing is claimed for a new process."
        )
    if _is_served(rows):
        bounds = {row["latency_bound_ms"] for row in rows} - {None}  # not in older records
        within = " and ".join(f"{bound:g} ms" for bound in sorted(bounds)) or "the bound"
        yield (
            "images/s: the highest rate found of queries of one image each (Poisson arrivals) "
            f"whose p99 stayed within {within}; close to the capacity it may be a few per cent too "
            "high. p99 ms: the highest of the processes, an upper limit as if latencies were "
            "independent."
        )


def _is_served(rows: Sequence[dict[str, Any]]) -> bool:
    return any(row["scenario"] == "server" for row in rows)


def _processes(rows: Sequence[dict[str, Any]]) -> str:
    counts = {row["processes"] or 1 for row in rows if row["status"] == "complete"}
    if max(counts, default=1) == 1:
        return (
            "One process: intervals within this run only, so nothing is claimed; measure with "
            "--processes auto to compare."
        )
    most, fewest = max(counts), min(counts)
    number = str(most) if most == fewest else f"{fewest} to {most}"
    text = f"Intervals are over {number} fresh processes of this run"
    if most < FEWEST_PROCESSES:
        return f"{text}, too few for any claim; measure with --processes auto to compare."
    repeats = {row["repeat_count"] for row in rows if row.get("repeat_count")}
    if repeats:
        return (
            f"{text}; ± also contains the spread of images/s between {max(repeats):.0f} "
            "measurements here."
        )
    return (
        f"{text}. With the machine's clock, images/s can change by more than that from run to run; "
        "compare ratios."
    )


def _cells(
    row: dict[str, Any], doubtful: set[_Case], *, several: bool, mixed_threads: bool
) -> tuple[str, ...]:
    precision = row["executed_precision"] or row["precision"]
    if precision not in {row["precision"], "none"}:
        precision = f"{row['precision']} run as {precision}"
    boundary = "" if row["boundary"] == "compute" else f" ({row['boundary']})"
    threads = _threads(row) if mixed_threads else ""
    peak = row["peak_fraction"]
    return (
        network_name(row),
        row["backend"] + layout(row) + threads + boundary,
        precision,
        "" if row["batch_size"] is None else str(int(row["batch_size"])),
        str(row["streams"]) if several else "",
        _number(row["images_per_second"], 4) + ("*" if row["noisy"] else ""),
        _ratio(row, doubtful),
        _width(row),
        _best_eager(row),
        *(_number(row[f"latency_p{p}_ms"], 3) for p in (50, 90)),
        _number(row["latency_p99_high_ms"] or row["latency_p99_ms"], 3),
        "" if row["flops_per_second"] is None else rounded(row["flops_per_second"] / 1e9, 3),
        "" if peak is None else f"{peak * 100:.0f} %",
        _note(row),
    )


_Case = tuple[str, int | None]  # network and batch size


def _case(row: dict[str, Any]) -> _Case:
    return network_name(row), row["batch_size"]


def _doubtful_cases(rows: Sequence[dict[str, Any]]) -> set[_Case]:
    """Return the cases whose reference has no interval to compare with."""
    return {_case(row) for row in rows if row["difference"] == "reference" and _few(row)}


def _few(row: dict[str, Any]) -> bool:
    """Whether a row has too few samples for an interval."""
    in_one_process = (row["processes"] or 1) == 1
    return in_one_process and row["samples"] is not None and row["samples"] < _FEWEST_SAMPLES


def _ratio(row: dict[str, Any], doubtful: set[_Case]) -> str:
    if row["ratio"] is None:
        return ""
    if row["difference"] == "reference":
        return "reference"
    unknown = _few(row) or _case(row) in doubtful or (row["noise_floor"] or 0.0) >= _NO_FIGURE
    if unknown or row["ratio_high"] - row["ratio_low"] >= 2 * row["ratio"]:
        return _DASH
    text = f"{row['ratio']:.2f} [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
    return f"{text} none" if row["difference"] == "none" else text


def _width(row: dict[str, Any]) -> str:
    if row["width"] is None:
        return ""
    width = row["width"]
    if row.get("repeat_low"):
        width = (row["repeat_high"] - row["repeat_low"]) / 2 / row["images_per_second"]
    if _few(row) or width >= _NO_FIGURE:
        return _DASH
    return f"{width * 100:.1f} %"


def _best_eager(row: dict[str, Any]) -> str:
    ratio, low, high = (row[f"best_eager_ratio{end}"] for end in ("", "_low", "_high"))
    if ratio is None:
        return ""
    if low == high == 1.0:
        return "best eager"
    if _few(row) or high - low >= 2 * ratio:
        return _DASH
    return f"{ratio:.2f} [{low:.2f}, {high:.2f}]"


def _note(row: dict[str, Any]) -> str:
    if row["status"] != "complete":
        return f"{row['status'].replace('_', ' ')}: {row['error']}"
    parts = ["noisy"] if row["noisy"] else []
    if row["nodes_elsewhere"]:
        parts.append(f"{row['nodes_elsewhere']} nodes elsewhere")
    if row["compile_seconds"] is not None and row["compile_seconds"] >= _COMPILED:
        parts.append(f"compiled in {row['compile_seconds']:.0f} s")
    if row["test_accuracy"] is not None:
        parts.append(f"accuracy {row['test_accuracy'] * 100:.2f} %")
    if row["flipped_predictions"]:
        parts.append(
            f"{row['flipped_predictions']:.0f} of {row['test_images']:.0f} answers flipped"
        )
    if is_noise(row["calibration"]):
        parts.append("calibrated on random images")
    return ", ".join(parts)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else rounded(value, digits)
