"""Random crop, flip and cutout of a whole batch at once.

Every random number is an integer drawn with a CPU generator and moved to the images'
device, and the arithmetic on it is in integers: CPU, CUDA and any number of threads or
workers give the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import BenchError, nearest

PaddingMode = Literal["reflect", "zero"]


@dataclass(frozen=True)
class Augmentation:
    """Random changes to a training image; by default none.

    Attributes:
        crop_padding: Pixels added on every side before a crop of the original size is
            taken at a random place: a shift by up to this many pixels.
        padding_mode: What the added pixels are: the image mirrored at its border pixel
            (``reflect``), or black (``zero``).
        flip: Mirror left and right with probability ½; ``alternating``: in the first epoch, and
            in each later one the images that were not mirrored in the one before (Jordan 2024,
            arXiv:2404.00498, section 3.6).
        cutout: Side in pixels of one square to erase, 0 for none (DeVries and Taylor 2017).
            Its centre is any pixel, so the square may reach over the border.

    Raises:
        BenchError: A number is negative, or the padding mode is unknown.
    """

    crop_padding: int = 0
    padding_mode: PaddingMode = "reflect"
    flip: bool | Literal["alternating"] = False
    cutout: int = 0

    def __post_init__(self) -> None:
        for field in ("crop_padding", "cutout"):
            if getattr(self, field) < 0:
                raise BenchError(f"{field} = {getattr(self, field)} is negative: use 0 or more")
        modes = get_args(PaddingMode)
        if self.padding_mode not in modes:
            raise BenchError(
                f"unknown padding_mode '{self.padding_mode}'{nearest(self.padding_mode, modes)} "
                f"(known: {', '.join(modes)})"
            )


def augment(
    images: Tensor,
    augmentation: Augmentation,
    draws: Tensor,
    *,
    fill: Tensor | None = None,
    mirrored: Tensor | None = None,
) -> Tensor:
    """Crop, flip and cut out at random, each image by its own draw.

    The draws do not depend on what is switched on: with and without flips, the same
    draws give the same crops.

    Args:
        images: NxCxHxW, uint8 or float, on any device.
        augmentation: What to do.
        draws: What `draw` returned, on the images' device.
        fill: What cutout leaves, one value per channel in the images' own scale; black if
            None. `Batches` passes the training mean, which is 0 after normalisation.
        mirrored: Which images to flip, int64 0 or 1, N; drawn if None.

    Returns:
        NxCxHxW of the same type, on the same device.

    Raises:
        BenchError: ``crop_padding`` is not smaller than the image.
    """
    height, width = images.shape[2:]
    if augmentation.crop_padding >= min(height, width):
        raise BenchError(
            f"crop_padding = {augmentation.crop_padding} on {height}x{width} images: "
            f"use less than {min(height, width)}"
        )
    if augmentation.flip:
        images = _flip(images, draws[0] % 2 if mirrored is None else mirrored)
    if augmentation.crop_padding:
        images = _crop(images, augmentation.crop_padding, augmentation.padding_mode, draws[1:3])
    if augmentation.cutout:
        images = _cutout(images, augmentation.cutout, draws[3:], fill)
    return images


def draw(count: int, generator: torch.Generator) -> Tensor:
    """Draw the random numbers with which *count* images are augmented, int64, 5×N, on the CPU."""
    # The remainder of a 31-bit integer is uniform to within 1e-7, and exact on every device.
    return torch.randint(2**31, (5, count), generator=generator)


def _flip(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror the images whose entry of *mirrored* is 1: copying whole images beats `where`."""
    count = len(images)
    source = torch.arange(count, device=images.device) + count * mirrored
    return torch.cat((images, images.flip(3))).index_select(0, source)


def _crop(images: Tensor, padding: int, mode: PaddingMode, draws: Tensor) -> Tensor:
    """Shift each image by up to *padding* pixels down or up, and right or left.

    Padded columns are laid down; then every output row is *width* consecutive pixels of
    them, copied as a whole: on a CPU, twice as fast as gathering single pixels.
    """
    count, channels, height, width = images.shape
    padded = _pad_columns(images, padding, mode)
    down, right = draws % (2 * padding + 1)
    rows = torch.arange(-padding, height - padding, device=images.device) + down[:, None]
    planes = torch.arange(count * channels, device=images.device).view(count, channels, 1)
    starts = (planes * height + _reflect(rows, height)[:, None]) * padded.shape[3]
    starts = starts + right[:, None, None]
    windows = padded.flatten().unfold(0, width, 1)  # a view: each pixel and those after it
    cropped = windows.index_select(0, starts.flatten()).view(images.shape)
    if mode == "zero":
        cropped = cropped * _inside(rows, height)[:, None, :, None]
    return cropped


def _pad_columns(images: Tensor, padding: int, mode: PaddingMode) -> Tensor:
    if mode == "zero":
        return F.pad(images, (padding, padding))
    left = images[..., 1 : padding + 1].flip(3)
    right = images[..., -padding - 1 : -1].flip(3)
    return torch.cat((left, images, right), 3)


def _reflect(positions: Tensor, size: int) -> Tensor:
    """Mirror positions in (-size, 2·size-1) at the border pixels into 0…size-1."""
    last = size - 1
    return last - (last - positions.abs()).abs()


def _inside(positions: Tensor, size: int) -> Tensor:
    return (positions >= 0) & (positions < size)


def _cutout(images: Tensor, side: int, draws: Tensor, fill: Tensor | None) -> Tensor:
    """Overwrite one square of each image."""
    height, width = images.shape[2:]
    top = draws[0, :, None] % height - side // 2
    left = draws[1, :, None] % width - side // 2
    rows = _inside(torch.arange(height, device=images.device) - top, side)
    columns = _inside(torch.arange(width, device=images.device) - left, side)
    square = (rows[:, :, None] & columns[:, None, :])[:, None]
    if fill is None:
        return images.masked_fill(square, 0)
    return torch.where(square, fill.to(images.device, images.dtype).view(1, -1, 1, 1), images)
