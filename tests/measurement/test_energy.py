"""Energy of a processor, from counters as Linux shows them."""

from __future__ import annotations

import pytest

from bench.measurement.machine import energy
from bench.measurement.machine.energy import Meter

RANGE = 262_143_328_850  # microjoules, at which counters begin again


@pytest.fixture
def counters(tmp_path, monkeypatch):
    """A tree like /sys/class/powercap; returns what sets its counters, in joules."""
    monkeypatch.setattr(energy, "_RAPL", tmp_path)
    names = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:1": "psys",
        "intel-rapl:10": "package-1",
    }
    for folder, name in names.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "name").write_text(f"{name}\n")
        (tmp_path / folder / "max_energy_range_uj").write_text(f"{RANGE}\n")

    def set_to(**joules):
        for folder, name in names.items():
            value = joules[name.partition("-")[0]]
            (tmp_path / folder / "energy_uj").write_text(f"{value * 1e6:.0f}\n")

    set_to(package=5, core=3, psys=20)
    return set_to


def test_only_packages_are_added_not_what_contains_them_or_is_part_of_them(counters):
    meter = Meter("cpu")
    with meter:
        counters(package=7, core=4, psys=60)
    assert meter.joules == pytest.approx(2 * 2)


def test_a_counter_that_began_again_is_no_negative_energy(counters):
    counters(package=RANGE / 1e6 - 1, core=0, psys=0)
    meter = Meter("cpu")
    with meter:
        counters(package=2, core=0, psys=0)
    assert meter.joules == pytest.approx(2 * 3)


@pytest.mark.usefixtures("counters")
def test_without_a_package_there_is_no_energy_rather_than_zero(tmp_path):
    for folder in ("intel-rapl:0", "intel-rapl:10"):
        (tmp_path / folder / "name").write_text("dram\n")
    assert Meter("cpu").joules is None
