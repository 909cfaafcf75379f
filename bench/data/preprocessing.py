"""How images become a network's input, in training, prediction, exports and measurements alike.

A trained run's own is `bench.targets.trained_run.TrainedRun.preprocessing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image
    from torch import Tensor

Resize = Literal["crop", "squash", "pad"]


def resize_image(image: Image.Image, side: int, resize: Resize) -> Image.Image:
    """Resize an 8-bit image to a square, bilinearly and always antialiased, as Pillow does.

    Args:
        image: Mode L or RGB.
        side: Height and width in pixels of what is returned.
        resize: ``crop``: the shorter side fits, and the longer one is cropped at the centre;
            ``squash``: both sides fit, and the aspect is lost; ``pad``: the longer side fits, and
            the shorter one is filled with black.
    """
    from PIL import Image

    width, height = image.size
    if resize == "squash":
        return _resample(image, (side, side), (0, 0, width, height))
    if resize == "crop":
        shorter = min(width, height)
        left, top = (width - shorter) / 2, (height - shorter) / 2
        return _resample(image, (side, side), (left, top, left + shorter, top + shorter))
    wide, high = (max(1, round(n / max(width, height) * side)) for n in (width, height))
    padded = Image.new(image.mode, (side, side))
    inner = _resample(image, (wide, high), (0, 0, width, height))
    padded.paste(inner, (round((side - wide) / 2), round((side - high) / 2)))
    return padded


def _resample(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float]
) -> Image.Image:
    """Resize the part of an image in *box* (left, top, right, bottom).

    Each pass rounds to whole grey levels, so that their order matters. It is that of Pillow 13;
    earlier versions would always begin with the rows.
    """
    from PIL import Image

    (width, height), (wide, high), (left, top, right, bottom) = image.size, size, box
    bilinear = Image.Resampling.BILINEAR
    columns_first = 0 < height - high > 2 * (width - wide)
    if columns_first:
        image = image.resize((width, high), bilinear, (0, top, width, bottom))
    image = image.resize((wide, image.height), bilinear, (left, 0, right, image.height))
    if columns_first:
        return image
    return image.resize((wide, high), bilinear, (0, top, wide, bottom))


def resize_images(images: Tensor, side: int, resize: Resize) -> Tensor:
    """Resize images as `resize_image` does; uint8, NxCxHxW to NxCxSxS."""
    from PIL import Image

    if images.shape[2:] == (side, side):
        return images
    planes = images.flatten(0, 1).cpu().numpy()
    resized = [np.asarray(resize_image(Image.fromarray(p), side, resize)) for p in planes]
    return torch.from_numpy(np.stack(resized)).view(*images.shape[:2], side, side).to(images.device)


@dataclass(frozen=True)
class Preprocessing:
    """Resizing, scaling and normalisation of images; fixed for a run and its exports.

    An image whose size differs from the dataset's is first resized to it, in whole grey levels
    (`resize_image`). The files of an image folder are read like this, so that there the dataset's
    size is the input size. Images of the dataset's size are then scaled, normalised and, if the
    input size differs, resized to it in float32.

    Attributes:
        input_size: Side S in pixels of what the network takes; None for the images' own size.
        mean: Per channel, of images scaled to 0…1.
        std: Likewise.
        antialias: Average over the area that an output pixel covers when the dataset's images are
            shrunk to the input size.
        normalize: Subtract the mean and divide by the standard deviation; values stay in
            0…1 otherwise.
        image_size: Side in pixels of the dataset's images; None: images of any size are taken as
            they are.
        resize: How images of another size become images of the dataset: crop, squash or pad.

    Raises:
        BenchError: *input_size* is below 1.
    """

    input_size: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    antialias: bool = True
    normalize: bool = True
    image_size: int | None = None
    resize: Resize = "crop"

    def __post_init__(self) -> None:
        if self.input_size is not None and self.input_size < 1:
            raise BenchError(
                f"input size {self.input_size} is below 1: use for example 28, 32 or 224"
            )

    def apply(self, images: Tensor) -> Tensor:
        """Convert images to what the network takes.

        Args:
            images: uint8, NxCxHxW.

        Returns:
            float32, NxCxSxS, on the images' device and in their memory format (unless they are
            of another size than the dataset's).
        """
        if self.image_size is not None:
            images = resize_images(images, self.image_size, self.resize)
        floats = images.to(torch.float32)
        if self.normalize:
            # (x / 255 - mean) / std as one multiplication and one addition.
            scale, shift = self._constants(images.device)
            floats = floats.mul_(scale).sub_(shift)
        else:
            floats = floats.div_(255)  # a division, to equal torchvision's ToTensor bit for bit
        size = self.input_size
        if size is None or images.shape[2:] == (size, size):
            return floats
        # Resizing is linear and keeps constants, so it may follow normalisation.
        return F.interpolate(
            floats, (size, size), mode="bilinear", align_corners=False, antialias=self.antialias
        )

    def _constants(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the factors and the subtrahends of the channels, copied to a device once."""
        kept: dict[torch.device, tuple[Tensor, Tensor]] = vars(self).setdefault("_kept", {})
        if device not in kept:
            mean, std = (_per_channel(values, device) for values in (self.mean, self.std))
            kept[device] = 1 / (255 * std), mean / std
        return kept[device]


def _per_channel(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)
