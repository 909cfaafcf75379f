from __future__ import annotations

import pytest

from bench.measure import ceiling
from bench.measure.ceiling import Ceiling, measure_ceiling


def test_each_precision_has_a_product_and_a_copy_of_its_own(monkeypatch):
    monkeypatch.setitem(ceiling._SIDE, "cpu", 64)
    monkeypatch.setitem(ceiling._COPY_MIB, "cpu", 1)
    found = measure_ceiling("cpu", 1, {"fp32", "int8", "tf32"}, seconds=0.01)
    assert set(found.flops_per_second) == {"fp32", "int8"}  # a CPU has no TF32
    assert set(found.copied) == {"fp32", "int8", "tf32"}
    assert found.bytes_per_second == max(found.copied.values())
    assert all(value > 0 for value in found.copied.values())


def test_of_two_the_higher_counts():
    one = Ceiling({"fp32": 1.0, "int8": 5.0}, 2.0, 8, {"fp32": 2.0})
    other = Ceiling({"fp32": 3.0}, 4.0, 8, {"fp32": 1.0, "int8": 4.0})
    merged = one.merge(other)
    assert merged.flops_per_second == pytest.approx({"fp32": 3.0, "int8": 5.0})
    assert merged.copied == pytest.approx({"fp32": 2.0, "int8": 4.0})
    assert merged.bytes_per_second == 4.0
