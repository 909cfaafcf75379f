"""The count of intervals that cover the mean of other processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import repetitions

from builders import make_row

PROGRAM = Path(__file__).parents[2] / "tools" / "repetitions.py"


def row(speed, ratio=None, width=0.05, **changes):
    known = {"images_per_second": speed, "ci_low": speed * 0.95, "ci_high": speed * 1.05}
    ratios = {"ratio": ratio, "ratio_low": ratio, "ratio_high": ratio}
    if ratio:
        ratios = {"ratio": ratio, "ratio_low": ratio * 0.99, "ratio_high": ratio * 1.01}
    return make_row(**known, **ratios, width=width, difference=None, **changes)


def test_intervals_that_cover_the_mean_of_other_processes_are_counted():
    found = [row(100.0, 1.50), row(104.0, 1.51), row(120.0, 1.60)]
    others = [row(90.0, 1.45, processes=2), row(110.0, 1.55, processes=2)]
    result = repetitions.coverage("a", found, others)
    assert result["grand_images_per_second"] == pytest.approx((90 * 110) ** 0.5)
    assert result["grand_ratio"] == pytest.approx((1.45 * 1.55) ** 0.5)
    assert (result["covering"], result["ratios_covering"]) == (2, 2)
    assert result["processes_of_grand"] == 4
    assert [one["ci_low"] for one in result["rows"]] == [95.0, 104.0 * 0.95, 114.0]
    assert [one["noisy"] for one in result["rows"]] == [False] * 3
    made = {"cpu": "A", "instruction_sets": ["avx"], "git_commit": "c"}
    document = {"results": [result], "environment": made, "command": "x", "created_at": "today"}
    text = repetitions.page(document)
    assert "| a | 2 of 3 |" in text
    assert "of 4 other processes" in text


def test_the_reference_has_no_ratios():
    result = repetitions.coverage("a", [row(100.0)], [row(100.0)])
    assert "ratios" not in result
    assert result["covering"] == 1


def test_a_command_that_fails_ends_it_with_its_reason(tmp_path):
    words = [sys.executable, PROGRAM, "--output", tmp_path / "r.json", "--", "resnet19x"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "resnet19x" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "r.json").exists()
