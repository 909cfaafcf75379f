"""The memory layout of feature maps in which a network trains fastest on a device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

SMALL_MAP = 16  # pixels, 4×4
SAFE_CHANNELS = 8


def preferred_memory_format(device: torch.device) -> torch.memory_format:
    """Return channels-last where it makes convolutions faster: CPU (oneDNN) and CUDA (cuDNN)."""
    return torch.channels_last if device.type in {"cpu", "cuda"} else torch.contiguous_format


def lay_out(
    model: nn.Module, device: torch.device, input_shape: tuple[int, int, int]
) -> torch.memory_format:
    """Move a network to *device*, in the memory layout that trains fastest there.

    A network that cannot take channels-last maps, because it flattens them with `view`, stays
    contiguous. On a CPU, convolutions of maps of at most `SMALL_MAP` pixels do, too: oneDNN's
    gradients of so few pixels are faster from its own blocked layout than from channels-last
    (`tests/benchmarks/test_training_speed.py`), and those of single pixels compute the middle of
    their kernel only (`OnePixelConv2d`). The arithmetic is the same but for rounding. A network
    with dropout keeps one layout, since masks are drawn in the order of memory.

    Returns:
        The layout that images should have.
    """
    largest = _largest_maps(model, input_shape)
    memory_format = move(model, device, torch.contiguous_format if largest is None else None)
    if largest is None:
        return memory_format
    masked = any(isinstance(module, _DropoutNd) for module in model.modules())
    if device.type == "cpu":
        for module, pixels in largest.items():
            if pixels <= SMALL_MAP and not masked:
                _keep_contiguous(module)
            if pixels == 1 and OnePixelConv2d.fits(module):
                module.__class__ = OnePixelConv2d  # keeps its parameters, their names, its hooks
    return memory_format


class OnePixelConv2d(nn.Conv2d):
    """A convolution that computes maps of a single pixel on a CPU without their padding.

    Of such maps, all of the kernel but its middle meets zeros. oneDNN multiplies by these zeros: a
    3×3 convolution of 512 channels, forward and backward, takes 2.6 times as long with AVX-512,
    and 18 times with AVX2 (batch 128, torch 2.14).
    """

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Return whether a module is a convolution with a middle that its padding centres."""
        return (
            type(module) is nn.Conv2d
            and module.padding_mode == "zeros"
            and max(module.kernel_size) > 1
            and all(size % 2 == 1 for size in module.kernel_size)
            and tuple(module.padding)
            == tuple(
                step * (size // 2)
                for step, size in zip(module.dilation, module.kernel_size, strict=True)
            )
        )

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the base class's name
        """Return the convolution of N×C×H×W."""
        if input.shape[2:] != (1, 1) or input.device.type != "cpu":
            return super().forward(input)
        height, width = self.kernel_size
        middle = self.weight[:, :, height // 2, None, width // 2, None]
        return F.conv2d(input, middle, self.bias, groups=self.groups)


def move(
    model: nn.Module, device: torch.device, memory_format: torch.memory_format | None = None
) -> torch.memory_format:
    """Move a network to *device* in a layout (default: the preferred one), and return that.

    oneDNN's channels-last gradient of a strided 1×1 convolution with 2 to 7 input channels writes
    beyond its memory on CPUs with AVX2 but not AVX-512 (torch 2.14, oneDNN 3.x), and the process
    crashes; such convolutions stay contiguous on CPUs.
    """
    memory_format = memory_format or preferred_memory_format(device)
    model.to(device, memory_format=memory_format)  # type: ignore[call-overload]
    if device.type == "cpu" and memory_format is torch.channels_last:
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and _is_unsafe(module):
                _keep_contiguous(module)
    return memory_format


def _is_unsafe(module: nn.Conv2d) -> bool:
    strided = max(module.stride) > 1
    return module.kernel_size == (1, 1) and strided and module.in_channels < SAFE_CHANNELS


def _largest_maps(
    model: nn.Module, input_shape: tuple[int, int, int]
) -> dict[nn.Module, int] | None:
    """Return the pixels of the largest map of each convolution; None if channels-last fails.

    The network is channels-last then.
    """
    largest: dict[nn.Module, int] = {}

    def watch(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        pixels = inputs[0].shape[-1] * inputs[0].shape[-2]
        largest[module] = max(pixels, largest.get(module, 0))

    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    handles = [m.register_forward_pre_hook(watch) for m in convolutions]
    model.to(memory_format=torch.channels_last)
    # Of a single image, every layout passes as contiguous.
    images = torch.zeros(2, *input_shape).contiguous(memory_format=torch.channels_last)
    try:
        with torch.no_grad():
            model.eval()(images)
    except RuntimeError:
        return None
    finally:
        model.train()
        for handle in handles:
            handle.remove()
    return largest


def _keep_contiguous(module: nn.Module) -> None:
    module.to(memory_format=torch.contiguous_format)
    module.register_forward_pre_hook(_contiguous)


def _contiguous(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (inputs[0].contiguous(), *inputs[1:])
