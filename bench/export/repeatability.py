"""Comparing a network with itself: only one that repeats its logits can be compared with a file."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.errors import BenchError
from bench.export.graph import own_line
from bench.export.parity import FP32_TOLERANCE, reference_logits, relative_difference

if TYPE_CHECKING:
    from torch import Tensor

    from bench.targets.network import LoadedNetwork

_FEW = 4  # images per pass
_SHOWN = 3  # layers that a message lists


def reference_batch(source: LoadedNetwork, images: Tensor, static_batch: int | None) -> int | None:
    """Return the batch size that PyTorch's logits have to be computed at; None for any.

    Args:
        source: the network.
        images: some of its images, uint8 or prepared.
        static_batch: the one batch size of the file; None for any.

    Raises:
        BenchError: the network is random in evaluation mode, or its logits depend on the other
            images of the batch and the file has no fixed batch size.
    """
    size = static_batch or _FEW
    other = size - size // 2 if size > 1 else 2
    images = images[torch.arange(max(size, other)) % len(images)]
    first, again = (reference_logits(source, images[:size], size) for _ in range(2))
    difference = relative_difference(again, first)
    if difference > FP32_TOLERANCE:
        raise BenchError(
            f"{source.name} returns different logits for the same images (by {difference:.2g} of "
            f"the largest): {_random_line(source, images)}; turn it off in evaluation mode, as "
            "F.dropout(x, p, self.training) does"
        )
    try:
        part = reference_logits(source, images[:other], other)
        count = min(size, other)
        difference = relative_difference(part[:count], first[:count])
    except Exception:  # a network that takes one batch size only; it ran at the other above
        difference = float("inf")
    if difference <= FP32_TOLERANCE:
        return None
    if static_batch is None:
        raise BenchError(
            f"{source.name} returns logits that depend on the other images of the batch"
            f"{_batch_statistics(source.model)}; give normalisation layers running statistics "
            "(track_running_stats=True), or fix the batch size with --static-batch N"
        )
    return static_batch


def _batch_statistics(model: nn.Module) -> str:
    """Name the layers that normalise by the batch in evaluation mode."""
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None
    ]
    more = ", …" if len(names) > _SHOWN else ""
    return f": batch statistics in {', '.join(names[:_SHOWN])}{more}" if names else ""


@torch.inference_mode()
def _random_line(source: LoadedNetwork, images: Tensor) -> str:
    """Say which line of the network draws random numbers."""
    with _RandomOperators() as watcher:
        source.model(source.prepare(images))
    return watcher.line or "it is random, or every pass changes it"


class _RandomOperators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the network's line that calls the first operator with random results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.line: str | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        if self.line is None and torch.Tag.nondeterministic_seeded in func.tags:
            self.line = f"{own_line(traceback.extract_stack()[:-1]) or func} is random"
        return func(*args, **(kwargs or {}))
