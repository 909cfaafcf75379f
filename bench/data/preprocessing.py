"""How uint8 images become a network's input, in training, exports and measurements alike.

A trained run's own is `bench.targets.trained_run.TrainedRun.preprocessing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True)
class Preprocessing:
    """Scaling, normalisation and resizing of images; fixed for a run and its exports.

    Attributes:
        input_size: Side S in pixels of the square to resize to, bilinearly and without keeping
            the aspect; None for the images' own size.
        mean: Per channel, of images scaled to 0…1.
        std: Likewise.
        antialias: Average over the area that an output pixel covers when shrinking.
        normalize: Subtract the mean and divide by the standard deviation; values stay in
            0…1 otherwise.

    Raises:
        BenchError: *input_size* is below 1.
    """

    input_size: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    antialias: bool = True
    normalize: bool = True

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
            float32, NxCxSxS, on the images' device and in their memory format.
        """
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
