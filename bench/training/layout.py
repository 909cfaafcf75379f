"""The memory layout of feature maps in which a network trains fastest on a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL_MAP = 16  # pixels, 4×4


def preferred_memory_format(device: torch.device) -> torch.memory_format:
    """Return channels-last where it makes convolutions faster: CPU (oneDNN) and CUDA (cuDNN)."""
    return torch.channels_last if device.type in {"cpu", "cuda"} else torch.contiguous_format


def lay_out(
    model: nn.Module, device: torch.device, input_shape: tuple[int, int, int]
) -> torch.memory_format:
    """Move a network to *device*, in the memory layout that trains fastest there.

    On a CPU, convolutions of maps of at most `SMALL_MAP` pixels are left contiguous: oneDNN's
    gradients of so few pixels are faster from its own blocked layout than from channels-last
    (`tests/benchmarks/test_training_speed.py`). The arithmetic is the same but for rounding. A
    network with dropout keeps one layout, since masks are drawn in the order of memory.

    Returns:
        The layout that images should have.
    """
    wanted = preferred_memory_format(device)
    masked = any(isinstance(module, _DropoutNd) for module in model.modules())
    small = list(_small(model, input_shape)) if device.type == "cpu" and not masked else []
    model.to(device, memory_format=wanted)  # type: ignore[call-overload]
    for convolution in small:
        convolution.to(memory_format=torch.contiguous_format)
        convolution.register_forward_pre_hook(_contiguous)
    return wanted


def _small(model: nn.Module, input_shape: tuple[int, int, int]) -> Iterator[nn.Module]:
    """Yield the convolutions that only ever see small maps, found by passing one image."""
    largest: dict[nn.Module, int] = {}

    def watch(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        pixels = inputs[0].shape[-1] * inputs[0].shape[-2]
        largest[module] = max(pixels, largest.get(module, 0))

    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    handles = [m.register_forward_pre_hook(watch) for m in convolutions]
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *input_shape))
    finally:
        model.train()
        for handle in handles:
            handle.remove()
    yield from (module for module, pixels in largest.items() if pixels <= SMALL_MAP)


def _contiguous(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (inputs[0].contiguous(), *inputs[1:])
