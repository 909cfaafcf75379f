"""CUDA graphs: the kernels of eager or compiled PyTorch, launched as one.

A network of small layers waits for Python and the driver, about 8 µs for each operation, while the
GPU idles. A captured graph launches all of its kernels at once. Not run on a GPU yet: the tests
call a fake of `torch.cuda`'s graphs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from bench.measurement.backends.compiled import Compiled
from bench.measurement.backends.eager import Eager, TorchPrepared
from bench.measurement.backends.protocol import MEMORY_FORMATS, Executed, Needs, Support, Workload
from bench.training.cuda_graph import WARM_UP, side_stream

if TYPE_CHECKING:
    from torch import Tensor


class EagerGraph:
    """The kernels of `eager` as one CUDA graph."""

    name = "eager-graph"
    needs: Needs = "module"
    captures = True
    memory_formats = MEMORY_FORMATS
    captured: type[Eager | Compiled] = Eager

    def support(self) -> list[Support]:
        """Return the CUDA pairs of the backend whose kernels are captured."""
        return [pair for pair in self.captured().support() if pair.device == "cuda"]

    def prepare(self, workload: Workload) -> CapturedPrepared:
        """Prepare the network as that backend does, and capture one batch."""
        return CapturedPrepared(self.captured().prepare(workload))


class CompiledGraph(EagerGraph):
    """The kernels of `compile` as one CUDA graph."""

    name = "compile-graph"
    slow_to_prepare = True
    captured = Compiled


class CapturedPrepared:
    """A CUDA graph of one batch; it reads and writes where it did when it was captured."""

    def __init__(self, network: TorchPrepared) -> None:
        self.network = network
        work = network.workload
        self.images = network.upload(torch.zeros(work.batch_size, *work.input_shape))
        with torch.cuda.device(network.device):
            with side_stream():  # cuDNN and Triton choose their kernels
                for _ in range(WARM_UP):
                    network.infer(self.images)
            self.graph = torch.cuda.CUDAGraph()
            stream: Any = torch.cuda.Stream  # not annotated by torch
            with torch.cuda.graph(self.graph, stream=stream()):  # of this device
                self.output = network.infer(self.images)

    def upload(self, images: Tensor) -> Tensor:
        """Copy to where the graph reads, in the network's type and memory format."""
        return self.images.copy_(images, non_blocking=images.is_pinned())

    def infer(self, batch: Tensor) -> Tensor:
        """Run the batch that was uploaded last."""
        del batch
        self.graph.replay()
        return self.output

    def download(self, output: Tensor) -> Tensor:
        """Copy the logits to the host."""
        return self.network.download(output)

    def synchronize(self) -> None:
        """Wait for the device."""
        self.network.synchronize()

    def describe(self) -> Executed:
        """Read back what was captured."""
        executed = self.network.describe()
        return replace(
            executed,
            provider=f"CUDA graph of {executed.provider}",
            details=executed.details | {"cuda_graph": True},
        )
