"""Pareto fronts by their definition; what is measured, on its chart."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.report.charts.cost import fronts, measured_speed, pareto, times
from bench.report.pages.study_report import read_study_report
from bench.report.study_data import StudyData
from bench.store import Store
from bench.store.measurements import MeasurementRecord
from bench.store.tables.columns import COLUMNS, typed_frame

if TYPE_CHECKING:
    from pathlib import Path


def test_a_front_is_what_no_other_point_beats() -> None:
    points = [(3.0, 0.9), (1.0, 0.5), (2.0, 0.5), (2.5, 0.8), (4.0, 0.9), (1.0, 0.4)]
    beaten = [
        (c, v)
        for c, v in points
        if any((d <= c and w >= v) and (d, w) != (c, v) for d, w in points)
    ]
    assert pareto(points) == sorted(set(points) - set(beaten))
    assert pareto([]) == []


def test_measured_speed_is_drawn_with_its_interval_and_front(trained: Path) -> None:
    data = read_study_report(Store(trained), "tiny").data
    assert measured_speed(data).missing is not None
    runs = {variant: run for run, (variant, seed) in data.places.items() if seed == 0}
    same = {"backend": "eager", "status": "complete", "batch_size": 1, "noisy": False}
    rows = [
        {"run": runs["residual"], "images_per_second": 100.0, "ci_low": 90.0, "ci_high": 120.0,
         "test_accuracy": 0.8, **same},
        {"run": runs["plain"], "images_per_second": 50.0, "test_accuracy": 0.7, **same},
        {"run": runs["plain"], "test_accuracy": 0.7, **same, "status": "failed"},
    ]  # fmt: skip
    frame = typed_frame(rows, COLUMNS["throughput"])
    vars(data)["throughput"] = frame  # instead of reading it
    residual, plain = measured_speed(data).series  # one beats all
    assert (residual.x, residual.low, residual.high) == ([100.0], [90.0], [120.0])
    assert (plain.name, plain.x, plain.low) == ("plain", [50.0], ())
    assert "80.00 %" in residual.hover[0]
    assert residual.symbol == plain.symbol
    assert residual.colour != plain.colour
    frame["executed_precision"] = ["int8", "fp32", "fp32"]
    chart = measured_speed(data)
    residual, plain = chart.series
    named = [chart.marks[series.mark] for series in (residual, plain) if series.mark is not None]
    assert named == ["eager int8", "eager fp32"]
    assert residual.symbol != plain.symbol
    frame.loc[1, "images_per_second"] = 150.0
    front, _, _ = measured_speed(data).series
    assert (list(front.x), list(front.y)) == ([150.0, 100.0], [70.0, 80.0])
    assert front.stepped
    frame["noisy"] = [True, False, False]
    residual, plain = measured_speed(data).series
    assert (residual.faint, plain.faint) == (True, False)
    frame["processes"] = [6, 1, 1]  # an interval over processes holds however wide it is
    front, residual, plain = measured_speed(data).series
    assert front.stepped
    assert (residual.faint, plain.faint) == (False, False)


@pytest.mark.parametrize("count", [9, 17])
def test_of_many_variants_no_two_series_look_alike(count: int, trained: Path) -> None:
    data = read_study_report(Store(trained), "tiny").data
    known = {
        f"variant{place}": {"reference": None, "runs": {"0": f"run{place}"}}
        for place in range(count)
    }
    many = StudyData(data.store, replace(data.study, variants=known))
    rows = [
        {"run": f"run{place}", "images_per_second": 10.0 + place, "test_accuracy": 0.5,
         "backend": backend, "executed_precision": precision, "status": "complete"}
        for place in range(count)
        for backend in ("eager", "openvino")
        for precision in ("fp32", "int8")
    ]  # fmt: skip
    vars(many)["throughput"] = typed_frame(rows, COLUMNS["throughput"])
    series = [s for s in measured_speed(many).series if s.style is not None]
    looks = {(s.colour, s.symbol, s.hollow) for s in series}
    assert len(looks) == len(series)
    assert len({s.name for s in series}) == count


def test_accuracy_and_cost_have_intervals(trained: Path) -> None:
    data = read_study_report(Store(trained), "tiny").data
    for chart in fronts(data):
        points = [series for series in chart.series if series.kind == "points"]
        assert [series.interval for series in points] == ["y", "y"]
        for series, summary in zip(points, data.summaries, strict=True):
            found = summary.test_accuracy
            assert found is not None
            assert found.low is not None
            assert list(series.low) == [max(0.0, found.low * 100)]  # an accuracy ends at 0 %


def test_profiles_of_variants_whose_names_differ_in_signs_only_are_both_shown(
    trained: Path,
) -> None:
    data = read_study_report(Store(trained), "tiny").data
    entries = data.study.variants
    named = {"a b": entries["residual"], "a-b": entries["plain"]}
    data = replace(data, study=replace(data.study, variants=named))
    runs = {variant: run for run, (variant, seed) in data.places.items() if seed == 0}
    share = {
        "by": "layer", "name": "conv1", "kind": "Conv2d 3×3", "part": "convolution",
        "block": "conv1", "milliseconds": 1.0, "share": 1.0, "with_addition": False,
    }  # fmt: skip
    row = {"backend": "eager", "precision": "fp32", "memory_format": "contiguous"}
    record = MeasurementRecord(
        measurement="m",
        request={},
        rows=[
            {**row, "run": runs[name], "configuration": f"{name} {batch}", "batch_size": batch}
            for name in named
            for batch in (32, 1)
        ],
        lanes={f"{name} {batch}": {"layers": [share]} for name in named for batch in (1, 32)},
    )
    vars(data)["measurements"] = [record]  # what it would have read
    charts = times(data)
    assert [chart.title for chart in charts] == [
        f"Time by block: {name}, eager fp32, batch 32" for name in named
    ]
    assert len({chart.key for chart in charts}) == 2
