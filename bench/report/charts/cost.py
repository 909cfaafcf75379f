"""Charts of what a variant costs: multiply-adds, parameters, speed, latency, int8."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.report.charts.chart import (
    Axis,
    Chart,
    LegendEntry,
    Series,
    absent_chart,
    choose_marks,
    line,
    variant_entry,
)
from bench.report.charts.layers import layer_charts
from bench.report.charts.roofline import NOT_MEASURED, rooflines
from bench.report.charts.sensitivity import sensitivity_chart
from bench.report.charts.throughput import executed_precisions
from bench.report.findings.fastest import rounded
from bench.store.measurements import Measurements, read_samples
from bench.system.intervals import FEWEST_PROCESSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.study_data import StudyData

_POINTS = 200  # of a latency distribution
_FEWEST = 20  # samples from which there is a 5th percentile
_LAYERS = 20  # of an export, the most sensitive ones


def fronts(data: StudyData) -> tuple[Chart, ...]:
    """Chart accuracy against each cost, with the Pareto front."""
    return (
        _front(data, "macs", "Accuracy and multiply-adds", "multiply-adds of one image"),
        _front(data, "parameters", "Accuracy and parameters", "parameters"),
        _front(data, "images_per_second", "Accuracy and training speed", "images/s in training"),
    )


def _front(data: StudyData, column: str, title: str, label: str) -> Chart:
    found = {
        s.name: (float(cost), s.test_accuracy)
        for s in data.summaries
        if s.test_accuracy is not None and (cost := getattr(s, column)) is not None
    }
    points = [(cost, accuracy.mean * 100) for cost, accuracy in found.values()]
    faster = column == "images_per_second"
    front, caption = _front_line(points, "variant", more_is_better=faster)
    series = []
    for name, (cost, accuracy) in found.items():
        mean = accuracy.mean * 100
        hover = [f"{mean:.2f} % at {rounded(cost)} {label}"]
        look: Any = {"style": data.style(name), "hover": hover, "interval": "y"}
        if accuracy.low is not None and accuracy.high is not None:
            look["low"] = [max(0.0, accuracy.low * 100)]
            look["high"] = [min(100.0, accuracy.high * 100)]
        series.append(Series(name, [cost], [mean], **look))
    return Chart(
        key=f"accuracy-{column.replace('_', '-')}",
        title=title,
        caption=f"Means over seeds with their 95 % t-interval; {caption}. Whether two variants "
        "differ is in the chart of differences.",
        x=Axis(label, log=True),
        y=Axis("test accuracy (%)"),
        series=(*front, *series),
        table="runs",
        absent=None if points else "No finished run with an accuracy to set against its cost.",
    )


def measured_speed(data: StudyData) -> Chart:
    """Chart the accuracy of each measured network or file against its measured images/s."""
    known = data.throughput.dropna(subset=["images_per_second", "test_accuracy"])
    known = known[(known["status"] == "complete") & (known["scenario"] != "server")]
    known = known[known["run"].map(data.variant_of).notna()]
    backends = known["backend"].astype(str)
    ways = backends + " " + executed_precisions(known)
    marks, texts = choose_marks(len(data.variants), list(ways), list(backends))
    known = known.assign(mark=texts, variant=known["run"].map(data.variant_of).astype(object))
    # An interval over processes holds however wide it is.
    few = known["processes"].fillna(1) < FEWEST_PROCESSES
    noisy = known["noisy"].fillna(value=False).astype(bool) & few
    reliable = known[~noisy]
    points = list(zip(reliable["images_per_second"], reliable["test_accuracy"] * 100, strict=True))
    symbols: list[tuple[int | None, str]] = [*enumerate(marks)] or [(None, "")]
    series = [
        _measured(variant_entry(data, variant), rows, mark, faint=faint)
        for variant in data.variants
        for mark, text in symbols
        for faint, part in ((False, reliable), (True, known[noisy]))
        if len(rows := part[(part["variant"] == variant) & (part["mark"] == text)])
    ]
    front, caption = _front_line(points, "configuration", more_is_better=True)
    return Chart(
        key="accuracy-measured-speed",
        title="Accuracy and measured speed",
        caption="One point per configuration, with the 95 % interval of its images/s and the "
        "accuracy of the network or file that was measured, of one seed; colours stand for variants"
        f"{', symbols for how they were run' if marks else ''}; {caption}. Faint points are noisy "
        f"and of fewer than {FEWEST_PROCESSES} processes; they are left out of the front. Speeds "
        "of different machines are not comparable.",
        x=Axis("images/s measured", log=True),
        y=Axis("test accuracy (%)"),
        series=(*front, *series),
        table="throughput",
        absent=None if series else NOT_MEASURED,
        command=_measuring(data),
        marks=marks,
    )


def _measured(entry: LegendEntry, rows: pd.DataFrame, mark: int | None, *, faint: bool) -> Series:
    ends = rows[["ci_low", "ci_high"]].notna().all(axis=None)
    return line(
        entry,
        rows.assign(speed=rows["images_per_second"].map(rounded)),
        "test_accuracy",
        "{value:.2f} % at {speed} images/s: {backend} {executed_precision}, batch "
        f"{{batch_size}}, {{threads}} thread(s), {{device}}{', noisy' if faint else ''}",
        x="images_per_second",
        scale=100,
        kind="points",
        faint=faint,
        interval="x",
        low=rows["ci_low"].tolist() if ends else (),
        high=rows["ci_high"].tolist() if ends else (),
        mark=mark,
    )


def _shortened(rows: Sequence[Sequence[str]]) -> list[str]:
    """Join the first part of each row, and the others that differ among the rows."""
    columns = [
        column
        for place, column in enumerate(itertools.zip_longest(*rows, fillvalue=""))
        if place == 0 or len(set(column)) > 1
    ]
    return [", ".join(filter(None, parts)) for parts in zip(*columns, strict=True)]


def _front_line(
    points: Sequence[tuple[float, float]], what: str, *, more_is_better: bool
) -> tuple[list[Series], str]:
    """Return the line of the front and its caption; no line through a single point."""
    front = pareto(points, more_is_better=more_is_better)
    if len(front) <= 1:
        alone = f"one {what} is at least as good as every other in both respects"
        return [], alone if front else f"there is no {what} for a Pareto front"
    costs, accuracies = [c for c, _ in front], [a for _, a in front]
    drawn = Series("Pareto front", costs, accuracies, "line", stepped=True, dashed=True)
    return [drawn], f"the dashed steps join each {what} that no other beats in both respects"


def pareto(
    points: Sequence[tuple[float, float]], *, more_is_better: bool = False
) -> list[tuple[float, float]]:
    """Return the points (cost, value) that no other beats in both respects, the cheapest first."""
    sign = -1 if more_is_better else 1
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda p: (sign * p[0], -p[1])):
        if not front or value > front[-1][1]:
            front.append((cost, value))
    return front


def _measuring(data: StudyData) -> str:
    """Return the command that measures the speed of the study's networks."""
    return data.store.command("throughput", data.study.name)


def _differing(data: StudyData, row: dict[str, Any]) -> tuple[str, ...]:
    """Return what tells measurements of one configuration apart, beside its name."""
    _, seed = data.places[row["run"]]
    how = (str(row.get(name) or "") for name in ("timing", "scenario"))
    return (f"seed {seed}", f"{row['threads']} threads", *how, str(row.get("gpu") or row["cpu"]))


def latencies(data: StudyData) -> Chart:
    """Chart the median time of a batch and its spread, a row per measured configuration."""
    found: dict[tuple[str, ...], tuple[str, list[float]]] = {}
    store = Measurements(data.store.root)
    for record in data.measurements:
        rows = {str(row.get("configuration")): row for row in record.rows}
        try:
            samples = read_samples(store.folder(record.measurement))
        except BenchError:
            continue  # its rows are in the table nevertheless
        for name, rounds in samples.items():
            seconds = sorted(itertools.chain(*rounds.values()))
            row = rows.get(name, {})
            variant = data.variant_of(str(row.get("run")))
            if variant and seconds:
                found[variant, *_differing(data, row), *name.split(" / ")[1:]] = variant, seconds
    names = _shortened(list(found))
    points = pd.DataFrame({"share": np.linspace(0, 1, _POINTS)})
    series = []
    for place, (name, (variant, seconds)) in enumerate(zip(names, found.values(), strict=True)):
        times = np.quantile(seconds, points["share"]) * 1e3
        points[f"{name} (ms)"] = times
        median, low, high = np.quantile(seconds, [0.5, 0.05, 0.95]) * 1e3
        enough = len(seconds) >= _FEWEST
        hover = f"{name}: median {median:.4g} ms of {len(seconds)} batches"
        hover += f", 5th to 95th percentile {low:.4g} to {high:.4g} ms" if enough else ""
        ends: Any = {"low": [low], "high": [high]} if enough else {}
        at = len(names) - 1 - place
        look: Any = {"style": data.style(variant), "interval": "x", "hover": [hover], **ends}
        series.append(Series(variant, [float(median)], [at], **look))
    return Chart(
        key="latency",
        title="Time of a batch",
        caption="Median, and the range from the 5th to the 95th percentile of the batches; of what "
        "was measured several times, the last one.",
        x=Axis("milliseconds per batch", log=True),
        y=Axis("", categories=tuple(names[::-1])),
        series=tuple(series),
        data=points,
        absent=None if series else NOT_MEASURED,
        command=_measuring(data),
    )


def roofs(data: StudyData) -> tuple[Chart, ...]:
    """Chart every measured network and batch size below the machine's ceilings."""
    rows = data.throughput
    rows = rows[rows["run"].map(data.variant_of).notna()]
    ceilings = {record.measurement: record.ceiling for record in data.measurements}
    charts = rooflines(
        rows, ceilings, lambda row: variant_entry(data, str(data.variant_of(row.run)))
    )
    return tuple(replace(chart, command=_measuring(data)) for chart in charts)


def quantisation(data: StudyData) -> tuple[Chart, ...]:
    """Chart the cost of int8 by layer, for each export that measured it."""
    charts = [
        sensitivity_chart(
            effects, f"int8-{record.export[:12]}", f"int8 by layer: {variant}", most=_LAYERS
        )
        for record in data.export_records
        if (variant := data.variant_of(str(record.run)))
        and (effects := record.proof.get("int8", {}).get("sensitivity"))
    ]
    words = ("export-onnx", data.study.name, "--precision", "int8", "--sensitivity")
    why = "The effect of int8 on each layer has not been measured yet."
    return tuple(charts) or (
        absent_chart("int8", "int8 by layer", why, data.store.command(*words)),
    )


def times(data: StudyData) -> tuple[Chart, ...]:
    """Chart where the time goes, by block, for each variant and way to run it.

    Each chart is of the largest profiled batch size, in its latest measurement.
    """
    found: dict[tuple[Any, ...], tuple[int, Chart]] = {}
    for record in data.measurements:
        for row in record.rows:
            variant = data.variant_of(str(row["run"]))
            name = str(row.get("configuration"))
            shares = record.lanes.get(name, {}).get("layers") or []
            if variant and shares and "error" not in shares[0]:
                what = f"{variant}, {row['backend']} {row['precision']}, batch {row['batch_size']}"
                key = (variant, row["backend"], row["precision"], row["memory_format"])
                by_block, _ = layer_charts(what, shares)
                if row["batch_size"] >= found.get(key, (0,))[0]:
                    found[key] = row["batch_size"], by_block
    used: Counter[str] = Counter()
    charts = []
    for _, chart in found.values():  # keys may be equal: they have letters and digits only
        used[chart.key] += 1
        suffix = "" if used[chart.key] == 1 else f"-{used[chart.key]}"
        charts.append(replace(chart, key=chart.key + suffix))
    return tuple(charts)
