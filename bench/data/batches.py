"""From uint8 images in memory to the float batches a network takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data.augmentation import Augmentation, augment
from bench.data.splits import stable_seed
from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.data.images import Images


def to_float(
    images: Tensor,
    *,
    input_size: int | None,
    mean: Sequence[float],
    std: Sequence[float],
    antialias: bool,
    normalize: bool,
) -> Tensor:
    """Convert grey levels to what a network takes.

    Args:
        images: uint8, NxCxHxW.
        input_size: Side S to resize to, bilinearly; None, or the images' own, for no resizing.
        mean: Per channel, of the images scaled to 0…1.
        std: Likewise.
        antialias: Average over the area that an output pixel covers when shrinking.
        normalize: Subtract the mean and divide by the standard deviation; values stay in
            0…1 otherwise.

    Returns:
        float32, NxCxSxS, on the images' device and in their memory format.

    Raises:
        BenchError: *input_size* is below 1.
    """
    if input_size is not None and input_size < 1:
        raise BenchError(f"input size {input_size} is below 1: use for example 28, 32 or 224")
    floats = images.to(torch.float32)
    if normalize:
        # (x / 255 - mean) / std as one multiplication and one addition.
        shift, spread = (_per_channel(values, images.device) for values in (mean, std))
        floats = floats.mul_(1 / (255 * spread)).sub_(shift / spread)
    else:
        floats = floats.div_(255)  # a division, to equal torchvision's ToTensor bit for bit
    if input_size is None or images.shape[2:] == (input_size, input_size):
        return floats
    # Resizing is linear and keeps constants, so that it may follow normalisation.
    return F.interpolate(
        floats, (input_size, input_size), mode="bilinear", align_corners=False, antialias=antialias
    )


def _per_channel(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)


class Batches:
    """The training batches of every epoch, as a pure function of the seed.

    The order of an epoch is drawn from ``order/SEED/EPOCH``, the augmentation of a batch from
    ``augmentation/SEED/EPOCH/BATCH`` and alternating flips from ``flip/SEED`` (see
    `bench.data.splits.stable_seed`). So nothing
    has to be saved to resume, and batch k is the same whether or not those before it were made.

    Args:
        images: The training split. Batches are put together where it lies.
        batch_size: Images a batch; the last one may be smaller unless *drop_last*.
        seed: The run's random seed.
        augmentation: What is done at random to each image, at its own size.
        input_size: See `to_float`; so for *mean*, *std*, *antialias*, *normalize*. Cutout
            fills with the mean, rounded to a grey level.
        mean: Per channel, of the images scaled to 0…1.
        std: Likewise.
        antialias: Whether shrinking averages.
        normalize: Whether mean and standard deviation are applied.
        memory_format: ``torch.contiguous_format`` or ``torch.channels_last``.
        drop_last: Leave out the last batch of an epoch if it is not full.
        device: Where batches are augmented and delivered; the images' device if None. For
            images that are too large to be moved there as a whole.
        sides: Side in pixels for each of the first epochs, in the place of *input_size*.

    Raises:
        BenchError: *batch_size* is below 1, or no full batch is left.
    """

    def __init__(
        self,
        images: Images,
        *,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        input_size: int | None,
        mean: Sequence[float],
        std: Sequence[float],
        antialias: bool,
        normalize: bool,
        memory_format: torch.memory_format = torch.contiguous_format,
        drop_last: bool = False,
        device: torch.device | str | None = None,
        sides: Sequence[int] = (),
    ) -> None:
        _check_batch_size(batch_size)
        if drop_last and batch_size > len(images):
            raise BenchError(
                f"batch size {batch_size} is larger than the {len(images)} training images: "
                f"use {len(images)} or less"
            )
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.augmentation = augmentation
        self.drop_last = drop_last
        self.sides = sides
        self._device = device
        self._fill = torch.tensor([round(255 * value) for value in mean], dtype=torch.uint8)
        self._finish = _Finish(input_size, mean, std, antialias, normalize, memory_format)

    def __len__(self) -> int:
        """Batches an epoch."""
        whole = len(self.images) / self.batch_size
        return math.floor(whole) if self.drop_last else math.ceil(whole)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one epoch, from batch number *start* on.

        Yields:
            Images (float32, BxCxSxS) and labels (int64, B).
        """
        generator = torch.Generator().manual_seed(stable_seed("order", self.seed, epoch))
        order = torch.randperm(len(self.images), generator=generator)
        order = order.to(self.images.labels.device)
        finish = self._finish
        if epoch < len(self.sides):
            finish = replace(finish, input_size=self.sides[epoch])
        flips = self._alternating_flips(epoch)
        for number in range(start, len(self)):
            chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
            images, labels = _select(self.images, chosen, self._device)
            generator.manual_seed(stable_seed("augmentation", self.seed, epoch, number))
            mirrored = None if flips is None else flips[chosen].to(images.device)
            images = augment(
                images, self.augmentation, generator, fill=self._fill, mirrored=mirrored
            )
            yield finish(images), labels

    def _alternating_flips(self, epoch: int) -> Tensor | None:
        """Which of all images are mirrored in this epoch, 0 or 1; None where each batch draws."""
        if self.augmentation.flip != "alternating":
            return None
        generator = torch.Generator().manual_seed(stable_seed("flip", self.seed))
        first = torch.randint(2, (len(self.images),), generator=generator)
        return ((first + epoch) % 2).to(self.images.labels.device)


def evaluation_batches(
    images: Images,
    *,
    batch_size: int,
    input_size: int | None,
    mean: Sequence[float],
    std: Sequence[float],
    antialias: bool,
    normalize: bool,
    memory_format: torch.memory_format = torch.contiguous_format,
    device: torch.device | str | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every image once, in order and without augmentation.

    The arguments are those of `Batches`.

    Yields:
        Images (float32, BxCxSxS) and labels (int64, B); the last batch may be smaller.

    Raises:
        BenchError: *batch_size* is below 1.
    """
    _check_batch_size(batch_size)
    finish = _Finish(input_size, mean, std, antialias, normalize, memory_format)
    for start in range(0, len(images), batch_size):
        inputs, labels = _select(images, slice(start, start + batch_size), device)
        yield finish(inputs), labels


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise BenchError(f"batch size {batch_size} is below 1: use for example 128")


def _select(
    images: Images, chosen: Tensor | slice, device: torch.device | str | None
) -> tuple[Tensor, Tensor]:
    """Take images and labels, and move them while they are still bytes."""
    if isinstance(chosen, Tensor):  # index_select: ten times faster on bytes than indexing
        inputs = images.images.index_select(0, chosen)
        labels = images.labels.index_select(0, chosen)
    else:
        inputs, labels = images.images[chosen], images.labels[chosen]
    return (inputs, labels) if device is None else (inputs.to(device), labels.to(device))


@dataclass(frozen=True)
class _Finish:
    """The fixed last step of every batch: float, normalised, resized, laid out."""

    input_size: int | None
    mean: Sequence[float]
    std: Sequence[float]
    antialias: bool
    normalize: bool
    memory_format: torch.memory_format

    def __call__(self, images: Tensor) -> Tensor:
        # Laid out while it is bytes: a quarter of the memory to move.
        return to_float(
            images.contiguous(memory_format=self.memory_format),
            input_size=self.input_size,
            mean=self.mean,
            std=self.std,
            antialias=self.antialias,
            normalize=self.normalize,
        ).contiguous(memory_format=self.memory_format)
