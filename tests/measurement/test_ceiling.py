from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode

from bench.measurement.machine import ceiling
from bench.measurement.machine.ceiling import Ceiling, measure_ceiling


def test_each_precision_has_a_product_and_a_copy_of_its_own(monkeypatch):
    monkeypatch.setitem(ceiling._SIDE, "cpu", 64)
    monkeypatch.setitem(ceiling._COPY_MIB, "cpu", 1)
    found = measure_ceiling("cpu", 1, {"fp32", "int8", "tf32"}, seconds=0.01)
    assert set(found.flops_per_second) == {"fp32", "int8"}  # a CPU has no TF32
    assert set(found.copied) == {"fp32", "int8", "tf32"}
    assert found.bytes_per_second == max(found.copied.values())
    assert all(value > 0 for value in found.copied.values())
    assert set(found.kernels) == {"fp32", "int8"}
    assert found.kernels["int8"] == ceiling.MATRICES


def test_the_faster_of_product_and_convolution_is_the_ceiling(monkeypatch):
    monkeypatch.setitem(ceiling._SIDE, "cpu", 64)
    monkeypatch.setitem(ceiling._COPY_MIB, "cpu", 1)
    side, work = 64, 2 * 8 * (128 * 32 * 7) ** 2
    calls = [1e-3, work / 3e9]  # seconds of the product and of the convolution, copies after
    monkeypatch.setattr(ceiling, "_fastest", lambda *_: calls.pop(0) if calls else 1.0)
    found = measure_ceiling("cpu", 1, {"fp32"})
    assert found.flops_per_second == pytest.approx({"fp32": 3e9})
    assert found.kernels == {"fp32": ceiling.CONVOLUTION}
    calls = [1e-6, 1.0]
    found = measure_ceiling("cpu", 1, {"fp32"})
    assert found.flops_per_second == pytest.approx({"fp32": 2 * side**3 / 1e-6})
    assert found.kernels == {"fp32": ceiling.MATRICES}


def test_the_convolutions_operations_are_those_that_torch_counts():
    call, work = ceiling._convolution("fp32", 1)
    with FlopCounterMode(display=False) as counter:
        call()
    assert counter.get_total_flops() == work


def test_of_two_the_higher_counts():
    one = Ceiling({"fp32": 1.0, "int8": 5.0}, 2.0, 8, {"fp32": 2.0})
    other = Ceiling({"fp32": 3.0}, 4.0, 8, {"fp32": 1.0, "int8": 4.0})
    merged = one.merge(other)
    assert merged.flops_per_second == pytest.approx({"fp32": 3.0, "int8": 5.0})
    assert merged.copied == pytest.approx({"fp32": 2.0, "int8": 4.0})
    assert merged.bytes_per_second == 4.0
    assert merged.kernels == {}
    known = Ceiling({"fp32": 2.0, "int8": 6.0}, 1.0, 8, kernels={"fp32": "a", "int8": "b"})
    assert other.merge(known).kernels == {"int8": "b"}
    assert known.merge(one).kernels == {"fp32": "a", "int8": "b"}


def test_matrices_grow_only_as_long_as_there_is_time(monkeypatch, clock):
    sizes = []

    def slow(precision, device, side, threads):
        del precision, device, threads
        sizes.append(side)

        def product():
            clock.now += 3 * (side / 2048) ** 3  # a naive kernel: 3 s at 2048

        return product

    monkeypatch.setattr(ceiling, "time", SimpleNamespace(monotonic=clock, perf_counter=clock))
    monkeypatch.setattr(ceiling, "_product", slow)
    monkeypatch.setattr(ceiling, "_copy", lambda *_: 1.0)
    monkeypatch.setattr(ceiling, "_convolution", lambda *_: None)
    found = measure_ceiling("cpu", 1, {"int8"}, seconds=0.2)
    assert sizes == [256, 512]
    assert found.matrix_side == 512


def test_bytes_are_multiplied_by_a_runtimes_own_kernel():
    product = ceiling._product("int8", "cpu", 256, 1)
    (found,) = product()
    assert found.shape == (256, 256)
    assert found.dtype == np.int32
