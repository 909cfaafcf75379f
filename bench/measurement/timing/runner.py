"""A runner is one configuration that is ready to run, here or in a process of its own."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from bench.measurement.backends import load_backend
from bench.measurement.machine.energy import AllocatorPeak, Meter
from bench.measurement.machine.nvml import Watch, Watched, open_gpu
from bench.measurement.timing.clocks import CudaEventClock, WallClock
from bench.measurement.timing.warmup import WarmUp, warm_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from bench.measurement.backends import Executed, Workload
    from bench.measurement.timing.clocks import Clock

Boundary = Literal["compute", "copies", "end-to-end"]
BOUNDARIES: tuple[Boundary, ...] = ("compute", "copies", "end-to-end")

SHORTEST_SAMPLE = 1e-3  # seconds; shorter calls are timed several at once
_SETTLE = 0.02  # seconds of untimed runs when another configuration ran before
_LONGEST_SETTLED = 2.0  # seconds of a call, up to which one is run untimed


class Runner(Protocol):
    """What the sampling plan needs of a configuration; tests have fakes of known truth."""

    def warm_up(self, cap_seconds: float) -> WarmUp:
        """Run until steady; nothing of it counts."""

    def block(self, count: int) -> list[float]:
        """Take *count* samples: seconds of one batch each."""

    def describe(self) -> RunnerReport:
        """Say what ran and what it used."""

    def close(self) -> None:
        """Give everything back."""


@dataclass(frozen=True)
class RunnerReport:
    """What a runner knows after its last block.

    Attributes:
        executed: what really ran.
        repeats: calls that one sample averages.
        peak_memory_mib: of the isolated process (CPU), or of this network in torch's allocator
            (GPU); None where it cannot be told apart from other runners', or is not torch's.
        energy_joules: over all timed blocks; None without a counter.
        images: images of these blocks.
        gpu: what the GPU did meanwhile; None without one, or without NVML.
    """

    executed: Executed
    repeats: int = 1
    peak_memory_mib: float | None = None
    energy_joules: float | None = None
    images: int = 0
    gpu: Watched | None = None
    details: dict[str, Any] = field(default_factory=dict)


class LocalRunner:
    """A configuration in this process.

    Args:
        backend: name of the backend.
        workload: what it prepares.
        boundary: what is inside the timed section.
        preprocess: uint8 images to float images, for `end-to-end`.
        single: time every call on its own (latencies), never several at once.

    Raises:
        UnsupportedError: the backend cannot run it.
        OutOfMemoryError: it does not fit.
    """

    def __init__(
        self,
        backend: str,
        workload: Workload,
        *,
        boundary: Boundary = "compute",
        preprocess: Callable[[Tensor], Tensor] | None = None,
        single: bool = False,
        clear_l2: bool = False,
    ) -> None:
        self.workload, self.single = workload, single
        found = load_backend(backend)
        self.memory = AllocatorPeak(workload.device if found.needs == "module" else "cpu")
        self.prepared = found.prepare(workload)
        self.step = self._timed_step(boundary, preprocess)
        self.memory.prepared()
        self.watch = Watch(open_gpu(workload.device))
        self.clock = self._clock(backend, boundary, clear_l2=clear_l2)
        self.meter = Meter(workload.device)
        self.repeats = 1
        self.typical = 0.0
        self.images = 0

    def _timed_step(
        self, boundary: Boundary, preprocess: Callable[[Tensor], Tensor] | None
    ) -> Callable[[], Any]:
        import torch

        ready, work = self.prepared, self.workload
        shape = (work.batch_size, *work.input_shape)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(shape, generator=generator)
        if boundary == "compute":
            batch = ready.upload(images)
            return lambda: ready.infer(batch)
        if boundary == "copies":
            return lambda: ready.download(ready.infer(ready.upload(images)))
        raw = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        prepare = preprocess or (lambda given: given.float() / 255)
        return lambda: ready.download(ready.infer(ready.upload(prepare(raw))))

    def _clock(self, backend: str, boundary: Boundary, *, clear_l2: bool) -> Clock:
        # Events time torch's own stream; others' streams, and host work, need wall time.
        torch_stream = backend in {"eager", "compile"} and boundary == "compute"
        if self.workload.device.startswith("cuda") and torch_stream:
            return CudaEventClock(self.workload.device, clear_l2=clear_l2)
        return WallClock(self.prepared.synchronize)

    def warm_up(self, cap_seconds: float) -> WarmUp:
        """Run until steady, and find how many calls make a sample long enough."""
        self._set_threads()
        result = warm_up(self._one, cap_seconds=cap_seconds)
        self.typical = result.typical
        if not self.single:
            self.repeats = max(1, round(SHORTEST_SAMPLE / max(self.typical, 1e-9)))
        return result

    def block(self, count: int) -> list[float]:
        """Take samples; the first runs after another runner's are not timed if they are short."""
        self._set_threads()
        if self.typical < _SETTLE:
            self.clock.measure(self.step, max(1, round(_SETTLE / max(self.typical, 1e-6))))
        elif self.typical < _LONGEST_SETTLED:
            self._one()
        measure, step, repeats = self.clock.measure, self.step, self.repeats
        collecting = gc.isenabled()
        gc.disable()
        try:
            with self.meter, self.memory:
                seconds = [measure(step, repeats) for _ in range(count)]
        finally:
            if collecting:
                gc.enable()
        self.watch.look()  # its clocks are still those of the block
        self.images += count * repeats * self.workload.batch_size
        return seconds

    def serve(self, offsets: list[float], bound: float) -> list[float]:
        """Answer queries that arrive at *offsets* seconds; see `timing.server.serve`."""
        from bench.measurement.timing.server import serve

        def answer() -> None:
            self.step()
            self.prepared.synchronize()

        return serve(answer, offsets, bound)

    def _set_threads(self) -> None:
        """Set torch's threads, which are the whole process's, to this runner's."""
        import torch

        if torch.get_num_threads() != self.workload.threads:
            torch.set_num_threads(self.workload.threads)

    def _one(self) -> float:
        return self.clock.measure(self.step, 1)

    def describe(self) -> RunnerReport:
        """Say what ran; the CPU's peak memory is known only of an isolated process."""
        return RunnerReport(
            executed=self.prepared.describe(),
            repeats=self.repeats,
            peak_memory_mib=self.memory.mib,
            energy_joules=self.meter.joules,
            images=self.images,
            gpu=self.watch.summary(),
        )

    def close(self) -> None:
        """Let go of the network."""
        del self.prepared, self.step, self.clock
        gc.collect()
