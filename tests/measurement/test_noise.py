"""What moved between two looks at the machine is said; GPUs are in test_nvml.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.measurement.machine.noise import Snapshot, noise_between

QUIET = Snapshot(
    time=0.0, busy=0.0, own=0.0, busy_here=0.0, processors=2,
    steal=0.0, frequency_mhz=2000.0, load=0.0,
)  # fmt: skip
LATER = replace(QUIET, time=10.0)


def test_a_quiet_machine_gives_no_warning(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert noise_between(QUIET, LATER)[0] == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {"busy": 10.0, "own": 5.0}, "other processes used 25 % of the processor"),
        # Bound to one of the two processors, of which others use half.
        (
            {"processors": 1},
            {"processors": 1, "busy": 5.0, "busy_here": 5.0},
            "other processes used 50 % of the processor",
        ),
        ({}, {"steal": 1.0}, "the hypervisor took 5 % of the processor"),
        ({}, {"frequency_mhz": 1500.0}, "the processor's clock changed by -25 %"),
    ],
)
def test_what_moved_is_said(monkeypatch, before, after, expected):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert noise_between(replace(QUIET, **before), replace(LATER, **after))[0] == [expected]
