"""From uint8 images in memory to the float batches a network takes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.data.augmentation import Augmentation, augment, draw
from bench.data.splits import stable_seed
from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.data.images import Images
    from bench.data.preprocessing import Preprocessing


class Batches:
    """The training batches of every epoch, as a pure function of the seed.

    The order of an epoch is drawn from ``order/SEED/EPOCH``, the augmentation of a batch from
    ``augmentation/SEED/EPOCH/BATCH`` and alternating flips from ``flip/SEED`` (see
    `bench.data.splits.stable_seed`). So nothing has to be saved to resume, and batch k is the same
    whether or not those before it were made.

    Args:
        images: The training split. Batches are put together where it lies.
        batch_size: Images per batch; the last one may be smaller.
        seed: The run's random seed.
        augmentation: What is done at random to each image, at its own size.
        preprocessing: What follows augmentation. Cutout fills with its mean, rounded to a grey
            level.
        memory_format: ``torch.contiguous_format`` or ``torch.channels_last``.
        device: Where batches are augmented and delivered; the images' device if None. For
            images that are too large to be moved there as a whole.
        sides: Input size in pixels of each of the first epochs, instead of *preprocessing*'s.

    Raises:
        BenchError: *batch_size* is below 1.
    """

    def __init__(
        self,
        images: Images,
        *,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        preprocessing: Preprocessing,
        memory_format: torch.memory_format = torch.contiguous_format,
        device: torch.device | str | None = None,
        sides: Sequence[int] = (),
    ) -> None:
        _check_batch_size(batch_size)
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.augmentation = augmentation
        self.sides = sides
        self._device = device
        self._preprocessing = preprocessing
        self._memory_format = memory_format
        grey_levels = [round(255 * value) for value in preprocessing.mean]
        self._fill = torch.tensor(grey_levels, dtype=torch.uint8).to(self._augmented_on)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return math.ceil(len(self.images) / self.batch_size)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one epoch, from batch number *start* on.

        Yields:
            Images (float32, BxCxSxS) and labels (int64, B).
        """
        generator = torch.Generator().manual_seed(stable_seed("order", self.seed, epoch))
        order = torch.randperm(len(self.images), generator=generator)
        draws = self._draws(epoch, start, generator)
        order = order.to(self.images.labels.device)
        preprocessing = self._preprocessing
        if epoch < len(self.sides):
            preprocessing = replace(preprocessing, input_size=self.sides[epoch])
        flips = self._alternating_flips(epoch)
        for number in range(start, len(self)):
            chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
            images, labels = _select(self.images, chosen, self._device)
            mirrored = None if flips is None else flips[chosen].to(images.device)
            images = augment(
                images,
                self.augmentation,
                draws[number - start, :, : len(chosen)],
                fill=self._fill,
                mirrored=mirrored,
            )
            yield _prepare(images, preprocessing, self._memory_format), labels

    @property
    def _augmented_on(self) -> torch.device:
        return self.images.images.device if self._device is None else torch.device(self._device)

    def _draws(self, epoch: int, start: int, generator: torch.Generator) -> Tensor:
        """Draw an epoch's random numbers from batch *start* on, batches×5×B, copied at once.

        Each batch has a seed of its own. A GPU would wait for a copy in every step.
        """
        drawn = []
        for number in range(start, len(self)):
            generator.manual_seed(stable_seed("augmentation", self.seed, epoch, number))
            count = min(self.batch_size, len(self.images) - number * self.batch_size)
            drawn.append(F.pad(draw(count, generator), (0, self.batch_size - count)))
        return torch.stack(drawn).to(self._augmented_on) if drawn else torch.empty(0)

    def _alternating_flips(self, epoch: int) -> Tensor | None:
        """Return which images are mirrored, N values 0 or 1; None where each batch draws them."""
        if self.augmentation.flip != "alternating":
            return None
        generator = torch.Generator().manual_seed(stable_seed("flip", self.seed))
        first = torch.randint(2, (len(self.images),), generator=generator)
        return ((first + epoch) % 2).to(self.images.labels.device)


def evaluation_batches(
    images: Images,
    *,
    batch_size: int,
    preprocessing: Preprocessing,
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
    for start in range(0, len(images), batch_size):
        inputs, labels = _select(images, slice(start, start + batch_size), device)
        yield _prepare(inputs, preprocessing, memory_format), labels


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise BenchError(f"batch size {batch_size} is below 1: use for example 128")


def _select(
    images: Images, chosen: Tensor | slice, device: torch.device | str | None
) -> tuple[Tensor, Tensor]:
    """Take images and labels, and move them while they are still bytes."""
    inputs, labels = images.take(chosen)
    return (inputs, labels) if device is None else (inputs.to(device), labels.to(device))


def _prepare(
    images: Tensor, preprocessing: Preprocessing, memory_format: torch.memory_format
) -> Tensor:
    # Laid out while it is bytes: a quarter of the memory to move.
    laid_out = images.contiguous(memory_format=memory_format)
    return preprocessing.apply(laid_out).contiguous(memory_format=memory_format)
