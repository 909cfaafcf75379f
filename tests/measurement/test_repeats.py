"""The spread between measurements, which no single measurement contains."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.measurement.repeats import add_repeats
from bench.report.tables.throughput import footnotes, throughput_text
from bench.store.measurements import MeasurementRecord
from bench.store.tables.frames import rows_of, throughput_frame
from builders import make_row

HERE = {"torch": "2.14", "git_commit": "c0ffee", "git_dirty": False, "threads": 2}


def measured(speed, width=0.01, **changes):
    ends = {"ci_low": speed * (1 - width), "ci_high": speed * (1 + width), "width": width}
    return make_row(**{"images_per_second": speed, "processes": 6, **ends, **changes})


def record(row, environment=HERE):
    return MeasurementRecord("m", {}, [row], environment)


def repeated(row, earlier, environment=HERE):
    add_repeats([row], environment, earlier)
    return row.get("repeat_low"), row.get("repeat_high"), row.get("repeat_count")


@pytest.mark.parametrize("count", [3, 5, 20])
def test_the_mean_of_many_measurements_is_covered(count):
    """Measurements spread by 5 %, while each one's own interval is ±1 %."""
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        *others, last = (100 * np.exp(draw.normal(0, 0.05, count))).tolist()
        low, high, found = repeated(measured(last), [record(measured(s)) for s in others])
        covered += low <= 100 <= high
        assert found == count
    assert covered >= 0.93 * 300


def test_its_own_interval_is_the_least():
    same = [record(measured(100.0)) for _ in range(5)]
    assert repeated(measured(100.0, width=0.04), same)[:2] == (96.0, 104.0)


def test_two_measurements_are_too_few():
    assert repeated(measured(100.0), [record(measured(110.0))]) == (None, None, None)


@pytest.mark.parametrize(
    "other",
    [
        record(measured(50.0, batch_size=64)),
        record(measured(50.0, threads=1)),
        record(measured(50.0, cpu="another")),
        record(measured(50.0, gpu="another")),
        record(measured(50.0, file_sha256="another")),
        record(measured(50.0, macs=1)),
        record(measured(50.0, timing="L2 cleared")),
        record(measured(50.0), {**HERE, "cudnn": 92000}),
        record(measured(50.0), {**HERE, "tensorrt": "11.0"}),
        record(measured(50.0, status="failed")),
        record(measured(50.0, other_processes=0.5)),
        record(measured(50.0, processes=1)),
        record(measured(50.0), {**HERE, "torch": "2.15"}),
        record(measured(50.0), {**HERE, "git_commit": "decade"}),
        record(measured(50.0), {**HERE, "git_dirty": True}),
    ],
)
def test_only_the_same_under_the_same_circumstances_counts(other):
    alike = [record(measured(99.0)), record(measured(101.0)), record(measured(100.0))]
    low, high, count = repeated(measured(100.0), [*alike, other])
    assert count == 4
    assert 95 < low < 98
    assert 102 < high < 105


def test_of_changed_code_no_other_measurement_is_known_to_be_the_same():
    changed = {**HERE, "git_dirty": True}
    same = [record(measured(100.0), changed) for _ in range(5)]
    assert repeated(measured(100.0), same, changed) == (None, None, None)


def shown(row):
    """Return its line of the table and the lines below."""
    rows = rows_of(throughput_frame([row]))
    return throughput_text(rows).rows[0], " ".join(footnotes(rows))


def test_the_table_shows_the_wider_interval_and_says_so():
    row = measured(100.0, difference="faster")
    cells, notes = shown(row)
    assert "1.0 %" in cells
    assert "compare ratios" in notes
    low, high, _ = repeated(row, [record(measured(s)) for s in (90.0, 110.0, 95.0)])
    cells, notes = shown(row)
    assert f"{(high - low) / 2:.1f} %" in cells
    assert "spread of images/s between 4 measurements" in notes
    assert math.sqrt(low * high) == pytest.approx(100.0)
