"""Speeds over repeated measurements: steps that are there, and none where there are none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.report.charts.history import history_charts
from bench.report.findings.history import find_steps, histories
from bench.report.pages.measurements import publish_measurements
from bench.report.tables.history import history_lines, history_text
from bench.store.measurements import MeasurementRecord, Measurements
from bench.store.tables.frames import rows_of, throughput_frame
from builders import make_row


def noise(count, spread=0.01, seed=0):
    return np.exp(np.random.default_rng(seed).normal(0, spread, count))


@pytest.mark.parametrize("place", [4, 7, 12])
def test_a_step_is_found_where_it_is(place):
    values = 100 * noise(16)
    values[place:] *= 0.93
    (step,) = find_steps(values.tolist())
    assert step.place == place
    assert step.ratio == pytest.approx(0.93, abs=0.02)
    assert step.p <= 0.01


def test_a_step_among_many_series_is_judged_by_as_many_tests():
    """Bonferroni: of ten such series, one would have a step by chance in one of ten pages."""
    values = 100 * noise(14, seed=1)
    values[7:] *= 1.018
    (alone,) = find_steps(values.tolist())
    assert 0.001 < alone.p < 0.005  # so that a few series are enough to lose it
    (of_two,) = find_steps(values.tolist(), 2)
    assert of_two.p == pytest.approx(2 * alone.p)
    assert find_steps(values.tolist(), int(0.01 / alone.p) + 1) == []


def test_two_steps_are_found_and_each_is_relative_to_its_neighbours():
    values = 100 * noise(24)
    values[8:16] *= 1.2
    up, down = find_steps(values.tolist())
    assert (up.place, down.place) == (8, 16)
    assert (up.ratio, down.ratio) == (
        pytest.approx(1.2, abs=0.02),
        pytest.approx(1 / 1.2, abs=0.02),
    )


def test_noise_alone_has_steps_in_about_one_of_a_hundred_series():
    found = sum(bool(find_steps((100 * noise(12, seed=seed)).tolist())) for seed in range(60))
    assert found <= 3  # P(more) = 0.003 at 1 %


def measurements(source, *, count=20, series=1, kept=0.0, **changes):
    """Equal measurements of some backends beside a reference, on a machine whose speed drifts.

    The drift of 5 % is an autoregression with coefficient *kept* from one measurement to the next;
    each ratio has a spread of 1 % of its own.
    """
    drift = 0.0
    rows = []
    for _ in range(count):
        drift = kept * drift + source.normal(0, 0.05 * math.sqrt(1 - kept**2))
        eager = 100 * math.exp(drift)
        rows.append(make_row(**ends(eager), backend="eager", ratio=1.0, difference="reference"))
        for place in range(series):
            ratio = 1.5 * math.exp(source.normal(0, 0.01))
            rows.append(
                make_row(
                    **ends(eager * ratio) | changes, backend=f"b{place}", ratio=ratio,
                    ratio_low=ratio, ratio_high=ratio, difference="faster",
                )
            )  # fmt: skip
    records = [MeasurementRecord(f"{number:03}", {}, []) for number in range(count)]
    rows = rows_of(throughput_frame(rows))
    return [(one, rows[n * (series + 1) :][: series + 1]) for n, one in enumerate(records)]


def has_step(page):
    return any(row[-1] for one in page for row in history_text(one).rows)


def test_a_machine_that_drifts_from_measurement_to_measurement_makes_no_steps():
    """Images/s would have a step in more than half of such series."""
    source = np.random.default_rng(0)
    pages = [histories(measurements(source, kept=0.8)) for _ in range(20)]
    assert all(len(page) == 2 for page in pages)  # the reference, and what is beside it
    assert sum(map(has_step, pages)) <= 2  # P(more) = 0.001 at 1 %


def test_each_series_of_a_page_is_judged_as_one_of_all():
    page = histories(measurements(np.random.default_rng(1), count=12, series=10))
    assert sorted(one.searched for one in page) == [0, *[10] * 10]  # the reference is not searched


@pytest.mark.parametrize("changes", [{"other_processes": 0.5}, {"processes": 1}])
def test_what_supports_no_claim_is_no_part_of_a_history(changes):
    found = histories(measurements(np.random.default_rng(0), count=3, **changes))
    assert [one.way for one in found] == ["eager fp32"]


def test_too_few_or_equal_values_have_no_step():
    assert find_steps([100.0, 100.0, 100.0, 50.0, 50.0, 50.0]) == []
    assert find_steps([100.0] * 12) == []
    assert find_steps([100.0]) == []


def ends(speed):
    known = {"images_per_second": speed, "ci_low": speed * 0.95, "ci_high": speed * 1.05}
    return {**known, "input_shape": "3x28x28", "file_sha256": None}


@pytest.fixture
def store(tmp_path):
    """Twelve measurements of two configurations; ONNX Runtime slows down with a new version."""
    made = Measurements(tmp_path)
    spread = noise(12, 0.003)
    for number in range(12):
        slow = 0.9 if number >= 6 else 1.0
        version = "1.20" if number >= 6 else "1.19"
        ratio = 1.5 * slow * float(spread[number])
        speed = 100.0 * float(spread[number])
        eager = make_row(**ends(speed), backend="eager", difference="reference")
        other = make_row(
            **ends(100.0 * ratio), ratio=ratio, ratio_low=ratio * 0.99, ratio_high=ratio * 1.01,
            difference="faster",
        )  # fmt: skip
        environment = {"torch": "2.8", "onnxruntime": version, "git_commit": f"{number:040}"[::-1]}
        record = MeasurementRecord(
            f"2026{number:02}", {"targets": ["resnet18"]}, [eager, other], environment=environment
        )
        made.publish(record, [])
    return made


def read(store):
    records = list(store.records())
    return histories((one, rows_of(throughput_frame(one.rows))) for one in records)


def test_the_table_says_what_changed_with_the_step(store):
    eager, other = read(store)
    assert (eager.way, other.way) == ("eager fp32", "onnxruntime fp32")
    assert eager.steps == []
    (step,) = other.steps
    assert step.place == 6
    rows = history_text(other).rows
    assert "onnxruntime 1.19 → 1.20" in rows[6][3]
    assert rows[6][4].startswith("ratio × 0.90")
    assert [row[4] for i, row in enumerate(rows) if i != 6] == [""] * 11
    assert "commit " in rows[1][3]
    assert "onnxruntime" not in rows[1][3]
    assert rows[0][3] == ""
    (line,) = history_lines(other)
    assert line.startswith("Steps (of the ratio, by circular binary segmentation; p ≤ 0.01 over ")
    assert "all 1 series on this page, if measurements' ratios are independent" in line
    assert history_lines(eager) == ["Steps are looked for in ratios to one reference only."]


def test_the_page_shows_them_and_their_charts(store, tmp_path):
    files = publish_measurements(store, tmp_path / "page")
    text = (tmp_path / "page/README.md").read_text()
    assert "## Over time" in text
    assert text.count("### resnet18, ") == 2
    names = {path.name for path in files}
    assert {"history-ratio-resnet-1.svg", "history-images-resnet-1.png"} <= names
    (ratio, _) = history_charts(read(store))
    levels = [series for series in ratio.series if series.name == "mean between steps"]
    assert [series.y[0] for series in levels] == [
        pytest.approx(1.5, rel=0.01), pytest.approx(1.35, rel=0.01)
    ]  # fmt: skip


def test_one_measurement_has_no_history(tmp_path):
    store = Measurements(tmp_path)
    store.publish(MeasurementRecord("m", {"targets": ["resnet18"]}, [make_row()]), [])
    assert read(store) == []
    publish_measurements(store, tmp_path / "page")
    assert "Over time" not in (tmp_path / "page/README.md").read_text()


def test_few_measurements_say_from_when_steps_are_looked_for(tmp_path):
    store = Measurements(tmp_path)
    for number in range(2):
        row = make_row(difference="faster", input_shape="3x28x28", file_sha256=None)
        store.publish(MeasurementRecord(f"m{number}", {"targets": ["resnet18"]}, [row]), [])
    (one,) = read(store)
    assert history_lines(one) == ["2 measurements; steps are looked for from 10 on."]
