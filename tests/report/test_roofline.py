"""The roofline: roofs from what was recorded, marks from what was measured, words where not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.report.charts.chart import LegendEntry
from bench.report.charts.draw_matplotlib import draw
from bench.report.charts.roofline import NO_INTENSITY, NOT_MEASURED, rooflines
from bench.report.charts.throughput import by_network_or_backend, latency_and_throughput
from bench.store.tables.columns import COLUMNS, typed_frame
from builders import make_row

CEILING = {"flops_per_second": {"fp32": 200e9, "int8": 800e9}, "bytes_per_second": 10e9}
ROW = make_row(
    backend="eager", flops_per_second=50e9, arithmetic_intensity=15.0, peak_fraction=0.25
)


def charts(*rows: dict[str, Any], ceilings: dict[str, Any] | None = None) -> Any:
    frame = typed_frame([ROW | row for row in rows], COLUMNS["throughput"])
    known = {"m": CEILING} if ceilings is None else ceilings
    return rooflines(frame, known, lambda row: LegendEntry(str(row.backend), 0))


def test_a_roof_is_the_lower_of_copy_times_intensity_and_product() -> None:
    (chart,) = charts({}, {"executed_precision": "int8", "arithmetic_intensity": 60.0})
    roofs = {s.name: s for s in chart.series if s.name.startswith("roof")}
    assert set(roofs) == {"roof, fp32", "roof, int8"}
    for precision, peak in CEILING["flops_per_second"].items():  # type: ignore[attr-defined]
        series = roofs[f"roof, {precision}"]
        expected = np.minimum(peak, 10e9 * np.array(series.x))
        assert np.allclose(series.y, expected)
        assert series.y[0] < peak  # the slope is seen
        assert series.x[0] < 15 < series.x[-1]
    assert chart.missing is None
    assert draw(chart).axes


def test_each_precision_has_its_own_copy() -> None:
    own = CEILING | {"copied": {"fp32": 8e9}}
    (chart,) = charts({}, ceilings={"m": own})
    slopes = {s.name: s.y[0] / s.x[0] for s in chart.series if s.name.startswith("roof")}
    assert slopes == pytest.approx({"roof, fp32": 8e9, "roof, int8": 10e9})


def test_every_row_is_a_mark_and_a_noisy_one_is_faint() -> None:
    (chart,) = charts({}, {"batch_size": 32, "arithmetic_intensity": 80.0, "noisy": True})
    plain, noisy = (s for s in chart.series if s.name == "eager")
    assert (plain.x, plain.y, plain.faint, plain.labels) == ([15.0], [50e9], False, ["1"])
    assert (noisy.x, noisy.faint, noisy.labels) == ([80.0], True, ["32"])
    assert "noisy" in noisy.hover[0]
    assert "25 % of the ceiling" in plain.hover[0]
    assert "Winograd" in chart.caption


@pytest.mark.parametrize(
    ("here", "there", "named"),
    [
        ({}, {"cpu": "B"}, ("2 thread(s), cpu, A.", "2 thread(s), cpu, B.")),
        (
            {"device": "cuda", "gpu": "L4"},
            {"device": "cuda", "gpu": "H100"},
            ("cuda, L4, A.", "cuda, H100, A."),
        ),
    ],
)
def test_machines_have_a_chart_each_and_their_own_roofs(
    here: dict[str, Any], there: dict[str, Any], named: tuple[str, str]
) -> None:
    slow = {"flops_per_second": {"fp32": 20e9}, "bytes_per_second": 5e9}
    first, second = charts(here, {**there, "measurement": "n"}, ceilings={"m": CEILING, "n": slow})
    assert (first.key, second.key) == ("roofline", "roofline-2")
    assert first.caption.startswith(named[0])
    assert second.caption.startswith(named[1])
    assert max(second.series[0].y) == 20e9


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"status": "failed", "flops_per_second": None}, NOT_MEASURED),
        ({"arithmetic_intensity": None}, NO_INTENSITY),
        ({"measurement": "lost"}, NO_INTENSITY),
    ],
)
def test_what_cannot_be_drawn_is_said(row: dict[str, Any], reason: str) -> None:
    (chart,) = charts(row)
    assert chart.missing == reason


def test_several_networks_have_a_name_each_by_their_options_too() -> None:
    rows = [ROW | {"options": options} for options in ("", "shortcut=none", "")]
    frame = typed_frame(rows, COLUMNS["throughput"])
    entry_of, marks = by_network_or_backend(frame)
    found = [entry_of(row)[:2] for row in frame.itertuples()]
    assert marks == ("eager fp32",)
    assert found == [("resnet18", 0), ("resnet18 shortcut=none", 1), ("resnet18", 0)]


def test_of_one_network_each_way_to_run_it_has_a_colour_and_each_precision_a_symbol() -> None:
    rows = [ROW, ROW | {"memory_format": "channels_last"}, ROW | {"executed_precision": "int8"}]
    frame = typed_frame(rows, COLUMNS["throughput"])
    entry_of, marks = by_network_or_backend(frame)
    assert marks == ("fp32", "int8")
    entries = map(entry_of, frame.itertuples())
    assert [(entry.name, entry.style, entry.mark) for entry in entries] == [
        ("eager", 0, 0), ("eager channels_last", 1, 0), ("eager", 0, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 3, 9, 17])
@pytest.mark.parametrize("networks", [1, 3, 9, 17])
def test_no_two_series_look_alike(networks: int, count: int) -> None:
    rows = [
        {"model": f"network{network}", "backend": f"backend{way}", "executed_precision": precision}
        for network in range(networks)
        for way in range(count)
        for precision in ("fp32", "int8")
    ]
    frame = typed_frame([ROW | row for row in rows], COLUMNS["throughput"])
    entry_of, marks = by_network_or_backend(frame)
    drawn = latency_and_throughput(frame, (), entry_of, marks)
    (roofs,) = rooflines(frame, {"m": CEILING}, entry_of, marks)
    for chart in (drawn, roofs):
        looks = [(s.colour, s.symbol, s.hollow) for s in chart.series if s.style is not None]
        assert len(set(looks)) == len(looks) >= networks
        shown = draw(chart).legends[0].get_texts()
        assert len({text.get_text() for text in shown}) == len(shown)
