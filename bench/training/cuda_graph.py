"""A training step as one CUDA graph: one launch in the place of several hundred.

It has never run on a GPU: a test records the operations of a step on a CPU and carries them out
again, as a replay does. A step without a graph therefore stays the default.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Step = Callable[[Tensor, Tensor], tuple[Tensor, ...]]

# Calls before a capture, as in PyTorch's notes on CUDA graphs: cuDNN chooses its kernels in them,
# and optimisers make their buffers.
WARM_UP = 3


class StepGraph:
    """Takes training steps by a CUDA graph, which is captured after `WARM_UP` steps without one.

    A graph reads and writes where it did when it was captured. So the images are copied to one
    place, the outputs are copied from one place, and whatever changes from step to step, as the
    learning rate does, must be a tensor on the device. Smaller batches, such as an epoch's last
    one, take their step without the graph.

    Args:
        step: forward, backward and update, from images N×C×H×W and labels N to scalars.
        batch_size: images of a step that is captured.
    """

    def __init__(self, step: Step, batch_size: int) -> None:
        self.step = step
        self.batch_size = batch_size
        self.shape: torch.Size | None = None
        self.warm = 0
        self.replay: Step | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Take one step, and return its scalars."""
        with torch.cuda.device(images.device):  # streams belong to the current device
            return self._take(images, labels)

    def _take(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        if len(images) != self.batch_size:
            return self.step(images, labels)
        if images.shape != self.shape:  # images that grow need another graph
            self.shape, self.warm, self.replay = images.shape, 0, None
        if self.replay is None and self.warm < WARM_UP:
            self.warm += 1
            with side_stream():
                return self.step(images, labels)
        if self.replay is None:
            self.replay = capture(self.step, images, labels)
        return self.replay(images, labels)


def capture(step: Step, images: Tensor, labels: Tensor) -> Step:
    """Capture a step on copies of images and labels, without taking it; return its replay."""
    images, labels = images.clone(), labels.clone()
    graph = torch.cuda.CUDAGraph()
    # On a stream of this device: torch's own stays on that of the first capture. Other threads,
    # which may prepare images, are free to use the device meanwhile.
    stream: Any = torch.cuda.Stream  # not annotated by torch
    with torch.cuda.graph(graph, stream=stream(), capture_error_mode="thread_local"):
        outputs = step(images, labels)

    def replay(new_images: Tensor, new_labels: Tensor) -> tuple[Tensor, ...]:
        images.copy_(new_images)
        labels.copy_(new_labels)
        graph.replay()
        return tuple(output.clone() for output in outputs)

    return replay


@contextlib.contextmanager
def side_stream() -> Iterator[None]:
    """Run on a stream of its own, as a warm-up before a capture must."""
    stream: Any = torch.cuda.Stream  # not annotated by torch
    beside, current = stream(), torch.cuda.current_stream()
    beside.wait_stream(current)
    with torch.cuda.stream(beside):
        yield
    current.wait_stream(beside)
