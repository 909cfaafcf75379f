"""Runners: one configuration that is ready to run, in this process."""

from __future__ import annotations

import gc
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from bench.measurement.backends import (
    Backend,
    Executed,
    Prepared,
    StreamingBackend,
    UnsupportedError,
    load_backend,
)
from bench.measurement.backends.clocks import WallClock, clear_l2
from bench.measurement.machine.energy import AllocatorPeak, Meter
from bench.measurement.machine.nvml import GpuMonitor, GpuState, open_gpu
from bench.measurement.timing.streams import Queries, Streams
from bench.measurement.timing.warmup import WarmUp, warm_up

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from torch import Tensor

    from bench.measurement.configurations import Configuration

# Seconds; shorter calls are timed several at once. On a GPU a sample begins and ends with an idle
# device, and 1 ms would measure how the queue fills and drains.
_SHORTEST_SAMPLE, _SHORTEST_ON_CUDA = 1e-3, 20e-3
_ENERGY_SECONDS = 2.0  # NVML's counter moves every tenth of a second
_SETTLE = 0.02  # seconds of untimed runs when another configuration ran before
_LONGEST_SETTLED = 2.0  # seconds of a call, up to which one is run untimed


class Runner(Protocol):
    """What a measurement calls of a configuration that is ready to run."""

    def warm_up(self, cap_seconds: float) -> WarmUp:
        """Run until the times are steady; these samples do not count."""

    def block(self, count: int) -> list[float]:
        """Take *count* samples: seconds of one batch each.

        With several streams, each runs *count* batches, and there is one sample: the time of all
        of them divided by their number.
        """

    def serve(self, offsets: list[float], bound: float, unmeasured: int) -> list[float]:
        """Answer queries that arrive at *offsets* seconds; see `Queries`."""

    def measure_energy(self) -> None:
        """Measure the energy of a GPU, whose counter is too coarse for single blocks."""

    def answer(self, images: Tensor) -> npt.NDArray[np.float32]:
        """Return the logits of prepared images, N first, at the configuration's batch size."""

    def describe(self) -> RunnerReport:
        """Return what ran and what it used."""

    def close(self) -> None:
        """Free the network."""


@dataclass(frozen=True)
class RunnerReport:
    """What a runner knows after its last block.

    Attributes:
        executed: what really ran.
        repeats: number of calls that one sample averages.
        peak_memory_mib: of the isolated process (CPU), or of this network in torch's allocator
            (GPU); None where it cannot be separated from other runners', or is not torch's.
        energy_joules: over all timed blocks, or on a GPU over seconds of its own; None without a
            counter.
        images: number of images whose energy that is.
        gpu: its states after each block of samples; empty where they are unknown.
        latencies: with several streams, seconds of each timed batch from its start to its end.
    """

    executed: Executed
    repeats: int = 1
    peak_memory_mib: float | None = None
    energy_joules: float | None = None
    images: int = 0
    gpu: tuple[GpuState, ...] = ()
    latencies: tuple[float, ...] = ()

    def plus(self, other: RunnerReport) -> RunnerReport:
        """Return this report with what another process counted, saw and warned of added."""
        joules = [r.energy_joules for r in (self, other) if r.energy_joules is not None]
        peaks = [p for p in (self.peak_memory_mib, other.peak_memory_mib) if p is not None]
        warnings = dict.fromkeys((*self.executed.warnings, *other.executed.warnings))
        return replace(
            self,
            executed=replace(self.executed, warnings=tuple(warnings)),
            # Latencies are those of single calls only if every process timed single calls.
            repeats=max(self.repeats, other.repeats),
            peak_memory_mib=max(peaks, default=None),
            energy_joules=sum(joules) if joules else None,
            images=self.images + other.images,
            gpu=(*self.gpu, *other.gpu),
            latencies=(*self.latencies, *other.latencies),
        )


class LocalRunner:
    """A configuration in this process.

    Raises:
        UnsupportedError: the backend cannot run it.
        OutOfMemoryError: it does not fit.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration, device = configuration, configuration.device
        backend = load_backend(configuration.backend)
        self.on_cuda = device.startswith("cuda")
        index = torch.device(device).index if self.on_cuda else None
        if index is not None and torch.cuda.is_available():
            torch.cuda.set_device(index)  # TensorRT enqueues on the current one
        in_allocator = backend.needs == "module" and not getattr(backend, "captures", False)
        self.memory = AllocatorPeak(device if in_allocator else "cpu")
        every = _prepare(backend, configuration)
        self.prepared = every[0]
        self.step = self._timed_step(self.prepared)
        self.streams = self._streams(every) if len(every) > 1 else None
        self.memory.prepared()
        self.monitor = GpuMonitor(open_gpu(device))
        self.clock = self._clock()
        self.meter = Meter(device)
        self.repeats = 1
        self.typical = 0.0
        self.images = 0
        self.latencies: list[float] = []

    def _streams(self, every: Sequence[Prepared]) -> Streams:
        def answer(prepared: Prepared) -> Callable[[], None]:
            return _synchronous(self._timed_step(prepared), prepared)

        return Streams([answer(prepared) for prepared in every], self._set_threads)

    def _timed_step(self, ready: Prepared) -> Callable[[], Any]:
        target = self.configuration.target
        boundary = self.configuration.boundary
        shape = (self.configuration.batch_size, *target.input_shape)
        generator = torch.Generator().manual_seed(0)
        kind: torch.dtype = getattr(torch, target.input_type)
        if kind.is_floating_point:
            images = torch.randn(shape, generator=generator).to(kind)
        else:
            images = torch.randint(0, 128, shape, generator=generator).to(kind)
        if boundary == "compute":
            batch = ready.upload(images)
            return lambda: ready.infer(batch)
        if boundary == "copies":
            images = self._pinned(images)
            return lambda: ready.download(ready.infer(ready.upload(images)))
        shape = (self.configuration.batch_size, *(target.raw_shape or target.input_shape))
        raw = self._pinned(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8))
        prepare = target.preprocess()
        if self.on_cuda:  # as bytes a batch is a quarter as long on its way
            device = self.configuration.device
            return lambda: ready.download(
                ready.infer(ready.upload(prepare(raw.to(device, non_blocking=True))))
            )
        return lambda: ready.download(ready.infer(ready.upload(prepare(raw))))

    def _pinned(self, images: torch.Tensor) -> torch.Tensor:
        """Return images in memory that a GPU reads without a copy by the driver."""
        return images.pin_memory() if self.on_cuda else images

    def _clock(self) -> WallClock:
        made = self.configuration
        if made.clear_l2 and self.on_cuda:
            return WallClock(self.prepared.synchronize, clear_l2(made.device))
        return WallClock(self.prepared.synchronize)

    def warm_up(self, cap_seconds: float) -> WarmUp:
        """Run until steady, and find how many calls make a sample long enough."""
        self._set_threads()
        result = warm_up(lambda: self._run(1), cap_seconds=cap_seconds)
        self.typical = result.typical
        made = self.configuration
        # A latency is one call, and only the first call after a cleared cache meets it so.
        single = made.alone or made.clear_l2 or self.streams is not None
        if made.scenario == "offline" and not single:
            shortest = _SHORTEST_ON_CUDA if self.on_cuda else _SHORTEST_SAMPLE
            self.repeats = max(1, round(shortest / max(self.typical, 1e-9)))
            if self.on_cuda and self.repeats > 1:  # back to back, calls take less time
                self.typical = self.clock.measure(self.step, self.repeats)
                self.repeats = max(1, round(shortest / max(self.typical, 1e-9)))
        return replace(result, repeats=self.repeats)

    def block(self, count: int) -> list[float]:
        """Take samples; after another runner's block, untimed calls come first."""
        self._set_threads()
        if self.typical < _SETTLE:
            self._run(max(1, round(_SETTLE / max(self.typical, 1e-6))))
        elif self.typical < _LONGEST_SETTLED:
            self._run(1)
        collecting = gc.isenabled()
        gc.disable()
        try:
            with nullcontext() if self.on_cuda else self.meter, self.memory:
                seconds = self._timed(count)
        finally:
            if collecting:
                gc.enable()
        self.monitor.read()  # the clocks are still those of the block
        if not self.on_cuda:
            calls = self.repeats * self.configuration.streams
            self.images += count * calls * self.configuration.batch_size
        return seconds

    def _timed(self, count: int) -> list[float]:
        if self.streams is None:
            measure, step, repeats = self.clock.measure, self.step, self.repeats
            return [measure(step, repeats) for _ in range(count)]
        batches = count * self.configuration.streams
        seconds, latencies = self.streams.run(batches)
        self.latencies += latencies
        return [seconds / batches]

    def measure_energy(self) -> None:
        """Run for two seconds under the energy counter of a GPU, if it has one."""
        if not self.on_cuda or self.meter.joules is None:
            return
        self.prepared.synchronize()
        end = time.monotonic() + _ENERGY_SECONDS
        with self.meter:
            while time.monotonic() < end:
                self.clock.measure(self.step, self.repeats)
                self.images += self.repeats * self.configuration.batch_size

    def serve(self, offsets: list[float], bound: float, unmeasured: int) -> list[float]:
        """Answer queries that arrive at *offsets* seconds; see `Queries`."""
        self._set_threads()
        queries = Queries(offsets, bound, unmeasured)
        if self.streams is not None:
            self.streams.serve(queries)
        else:
            queries.answer(_synchronous(self.step, self.prepared), time.perf_counter())
        return queries.latencies

    def answer(self, images: Tensor) -> npt.NDArray[np.float32]:
        """Return the logits of prepared images; the last batch is padded with its last image."""
        self._set_threads()
        ready, size = self.prepared, self.configuration.batch_size
        found = []
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            count = len(batch)
            if count < size:
                batch = torch.cat([batch, batch[-1:].expand(size - count, *batch.shape[1:])])
            output = ready.download(ready.infer(ready.upload(batch.contiguous())))
            # A runtime may write the next batch's logits to the same place.
            found.append(torch.as_tensor(output)[:count].float().numpy().copy())
        return np.concatenate(found)

    def _set_threads(self) -> None:
        """Set torch's number of threads, for this thread and those that begin later."""
        count = self.configuration.threads // self.configuration.streams
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)

    def _run(self, count: int) -> float:
        """Run *count* batches on every stream; return the seconds of one."""
        if self.streams is not None:
            return self.streams.run(count * self.configuration.streams)[0] / count
        return self.clock.measure(self.step, count)

    def describe(self) -> RunnerReport:
        """Return what ran; a CPU's peak memory is known only in an isolated process."""
        return RunnerReport(
            executed=self.prepared.describe(),
            repeats=self.repeats,
            peak_memory_mib=self.memory.mib,
            energy_joules=self.meter.joules if self.images else None,
            images=self.images,
            gpu=tuple(self.monitor.states),
            latencies=tuple(self.latencies),
        )

    def close(self) -> None:
        """Free the network."""
        if self.streams is not None:
            self.streams.close()
        del self.prepared, self.step, self.clock, self.streams
        gc.collect()


def _prepare(backend: Backend, configuration: Configuration) -> Sequence[Prepared]:
    """Return a prepared network for each stream."""
    workload, streams = configuration.workload(), configuration.streams
    if streams == 1:
        return [backend.prepare(workload)]
    if not isinstance(backend, StreamingBackend):
        raise UnsupportedError(f"{backend.name} runs one batch at a time: --streams 1")
    return backend.prepare_streams(workload, streams)


def _synchronous(step: Callable[[], Any], prepared: Prepared) -> Callable[[], None]:
    """Return a step that returns only when its answer is there."""

    def answer() -> None:
        step()
        prepared.synchronize()

    return answer
