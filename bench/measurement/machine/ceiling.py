"""The machine's ceilings: arithmetic of a large kernel, and bandwidth of a copy in memory."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from bench.measurement.backends.eager import DTYPES, set_float32, synchronize, torch_support

if TYPE_CHECKING:
    from collections.abc import Callable

_SIDE = {"cpu": 2048, "mps": 4096, "cuda": 8192}  # largest number of rows of the matrices
_SMALLEST_SIDE = 256
_COPY_MIB = {"cpu": 256, "mps": 512, "cuda": 1024}
_FEWEST = 3
_QUEUED = 8  # calls on a GPU for which it is waited once
MATRICES = "matrix product"
CONVOLUTION = "7×7 convolution"
_CHANNELS, _KERNEL, _MAP = 128, 7, 32
_STORED = DTYPES | {"int8": torch.int8}


@dataclass(frozen=True)
class Ceiling:
    """What the machine can reach: the fastest of several runs of each kernel.

    Attributes:
        flops_per_second: precision → 2 × multiply-adds per second of a square matrix product or,
            on a CPU, of a convolution, whichever is faster; precisions without a native kernel
            are absent. The kernels are torch's; for int8 on a CPU, ONNX Runtime's.
        bytes_per_second: bytes read and written by a copy in memory.
        copied: precision → the same for numbers of that precision.
        matrix_side: number of rows of the largest matrices.
        kernels: precision → the faster of the two kernels.
    """

    flops_per_second: dict[str, float]
    bytes_per_second: float
    matrix_side: int
    copied: dict[str, float] = field(default_factory=dict)
    kernels: dict[str, str] = field(default_factory=dict)

    def merge(self, other: Ceiling) -> Ceiling:
        """Return the higher of two ceilings, figure by figure."""
        flops = _higher(self.flops_per_second, other.flops_per_second)
        kernels = {
            precision: (self if self.flops_per_second.get(precision) == most else other).kernels
            for precision, most in flops.items()
        }
        return Ceiling(
            flops_per_second=flops,
            bytes_per_second=max(self.bytes_per_second, other.bytes_per_second),
            matrix_side=max(self.matrix_side, other.matrix_side),
            copied=_higher(self.copied, other.copied),
            kernels={p: known[p] for p, known in kernels.items() if p in known},
        )


def _higher(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return {k: max(one.get(k, 0.0), other.get(k, 0.0)) for k in {**one, **other}}


def measure_ceiling(
    device: str, threads: int, precisions: set[str], *, seconds: float = 1.0
) -> Ceiling:
    """Measure a device's ceilings in some precisions, about *seconds* for each kernel and copy.

    Matrices are doubled only as long as a product leaves time for a few repetitions.
    """
    torch.set_num_threads(threads)
    kind = device.partition(":")[0]
    sides = [_SIDE[kind]]
    while sides[-1] > _SMALLEST_SIDE:
        sides.append(sides[-1] // 2)
    largest = 0
    flops, kernels = {}, {}
    for precision in sorted(precisions):
        found: dict[str, float] = {}
        for side in reversed(sides):
            product = _product(precision, device, side, threads)
            if product is None:
                break
            took = _fastest(product, device, seconds / len(sides))
            found[MATRICES] = max(found.get(MATRICES, 0.0), 2 * side**3 / took)
            largest = max(largest, side)
            if 8 * took * _FEWEST > seconds:  # twice the side is eight times the work
                break
        if kind == "cpu" and (convolution := _convolution(precision, threads)) is not None:
            call, work = convolution
            found[CONVOLUTION] = work / _fastest(call, device, seconds)
        if found:
            kernels[precision] = max(found, key=lambda kernel: found[kernel])
            flops[precision] = found[kernels[precision]]
    copied = {p: _copy(_STORED[p], device, kind, seconds) for p in sorted(precisions)}
    return Ceiling(flops, max(copied.values(), default=0.0), largest, copied, kernels)


def _copy(dtype: torch.dtype, device: str, kind: str, seconds: float) -> float:
    """Return bytes read and written per second by a copy too large for any cache."""
    size = _COPY_MIB[kind] * 2**20
    source = torch.ones(size // dtype.itemsize, dtype=dtype, device=device)
    target = torch.empty_like(source)
    return 2 * size / _fastest(lambda: target.copy_(source), device, seconds)


def _product(precision: str, device: str, side: int, threads: int) -> Callable[[], Any] | None:
    """Return a matrix product in a precision; None without a native kernel."""
    kind = device.partition(":")[0]
    native = {(s.device, s.precision) for s in torch_support() if s.missing is None}
    if precision == "int8" and kind == "cpu":
        return _integer_product(side, threads)
    if precision == "int8" and kind == "cuda":
        a = torch.randint(-128, 127, (side, side), dtype=torch.int8, device=device)
        b = a.t()
        return lambda: torch._int_mm(a, b)
    if (kind, precision) not in native:
        return None
    x = torch.randn(side, side, device=device).to(DTYPES[precision])

    def multiply() -> None:
        if kind == "cuda":  # elsewhere left alone: compiled networks are guarded by it
            set_float32(precision)
        x @ x

    return multiply


def _integer_product(side: int, threads: int) -> Callable[[], Any]:
    """Return a product of bytes by ONNX Runtime.

    PyTorch's own `_int_mm` is a naive loop on a processor without VNNI, a hundredth of what
    quantised networks reach there.
    """
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    shape = (side, side)
    weight = generator.integers(-127, 128, shape, dtype=np.int8)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMulInteger", ["a", "b"], ["c"])],
            "product",
            [helper.make_tensor_value_info("a", TensorProto.UINT8, shape)],
            [helper.make_tensor_value_info("c", TensorProto.INT32, shape)],
            [numpy_helper.from_array(weight, "b")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    image = generator.integers(0, 256, shape, dtype=np.uint8)
    return lambda: session.run(None, {"a": image})


def _convolution(precision: str, threads: int) -> tuple[Callable[[], Any], int] | None:
    """Return a convolution on the CPU and its 2 × multiply-adds; None without a native kernel.

    MKL's matrix product reaches half the speed of an AMD processor with AVX-512, oneDNN's
    convolution all of it. No library computes 7×7 kernels by Winograd's fewer operations.
    """
    native = {s.precision for s in torch_support() if s.device == "cpu" and s.missing is None}
    if precision not in native:
        return None
    images = max(8, threads)
    shapes = (
        (images, _CHANNELS, *[_MAP + _KERNEL - 1] * 2),
        (_CHANNELS, _CHANNELS, _KERNEL, _KERNEL),
    )
    x, weight = (
        torch.randn(shape).to(DTYPES[precision], memory_format=torch.channels_last)
        for shape in shapes
    )
    work = 2 * images * (_CHANNELS * _MAP * _KERNEL) ** 2
    return lambda: nn.functional.conv2d(x, weight), work


def _fastest(call: Callable[[], Any], device: str, budget: float) -> float:
    """Return the seconds of the fastest call; on a GPU, of several that follow each other."""
    times: list[float] = []
    repeats = _QUEUED if device.startswith("cuda") else 1
    begun = time.monotonic()
    with torch.inference_mode():
        while len(times) <= 1 or time.monotonic() - begun < budget:
            begin = time.perf_counter()
            for _ in range(repeats):
                call()
            synchronize(torch.device(device))
            times.append((time.perf_counter() - begin) / repeats)
    return min(times[1:])
