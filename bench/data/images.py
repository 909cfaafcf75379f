"""A decoded dataset: uint8 tensors, class names, statistics."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator

# For a message: how a grey image folder is read as colours.
AS_COLOURS = " (in an image folder, one image saved as RGB makes all of them RGB)"
_CHUNK = 4096  # images converted at a time, so that a memory-mapped set is never whole in memory


@dataclass(frozen=True, eq=False)
class Images:
    """One split of a dataset.

    Attributes:
        images: uint8, MxCxHxW, grey levels 0…255; may be memory-mapped.
        labels: int64, N, each in 0…K-1.
        places: int64, N, which of `images` they are; None: all, in order (then M is N).
    """

    images: Tensor
    labels: Tensor
    places: Tensor | None = None

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    @property
    def largest_class(self) -> float:
        """The share, 0…1, of the most frequent label: the accuracy of always answering it."""
        return int(self.labels.bincount().max()) / len(self)

    def to(self, device: torch.device | str) -> Images:
        """Return the split on *device*; this reads a memory-mapped split into memory."""
        images = self.images if self.places is None else self.images[self.places]
        return Images(images.to(device), self.labels.to(device))

    def subset(self, indices: Tensor) -> Images:
        """Return the images at *indices* (int64, M), copied in that order."""
        images, labels = self.take(indices.to(self.labels.device))
        return Images(images, labels)

    def view(self, indices: Tensor) -> Images:
        """Return the images at *indices* (int64, M) without copying them."""
        rows = indices if self.places is None else self.places[indices]
        return Images(self.images, self.labels[indices], rows)

    def take(self, chosen: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Return the images and labels at these places."""
        rows = chosen if self.places is None else self.places[chosen]
        if isinstance(rows, Tensor):  # index_select: ten times faster on bytes than indexing
            return self.images.index_select(0, rows), self.labels[chosen]
        return self.images[rows], self.labels[rows]

    def spread(self, count: int) -> Images:
        """Return up to *count* images, evenly spaced: the split may be sorted by class."""
        count = min(count, len(self))
        return self.subset(torch.linspace(0, len(self) - 1, count).long())

    def chunks(self, size: int = _CHUNK) -> Iterator[Tensor]:
        """Yield the images in order, at most *size* at a time."""
        for start in range(0, len(self), size):
            yield self.take(slice(start, start + size))[0]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A decoded dataset, as `load_dataset` returns it.

    Attributes:
        name: As given to `load_dataset`, e.g. ``fashion-mnist-mini`` or ``imagefolder:/path``.
        classes: The K class names; label k is ``classes[k]``.
        train: The training split, or the requested balanced subset of it.
        test: The test split, always whole.
        mean: Per channel, of the *full* training images scaled to 0…1.
        std: Likewise (population standard deviation); 1 for a channel that never varies.
        fingerprint: SHA-256 (hex) of the images and labels of both splits as they are
            here, see `fingerprint`: what the figures were made from.
        timing_only: The images are noise; no accuracy may be shown for them.
        memory_mapped: The images lie on disk: leave them there, and move batches instead.
        notes: What a user should know about how it was read; one line each.
    """

    name: str
    classes: tuple[str, ...]
    train: Images
    test: Images
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    timing_only: bool = False
    memory_mapped: bool = False
    notes: tuple[str, ...] = ()

    @cached_property
    def test_fingerprint(self) -> str:
        """The fingerprint of the test split alone."""
        return fingerprint(self.test)

    @property
    def channels(self) -> int:
        """Number of colour channels, C."""
        return int(self.train.images.shape[1])

    @property
    def size(self) -> int:
        """Height and width in pixels, before any resizing."""
        return int(self.train.images.shape[2])

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.classes)


def require_text(what: str, *names: str) -> None:
    """Refuse names of files that are bytes without a text: pages and tables could not hold them.

    Raises:
        BenchError: naming the first one.
    """
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise BenchError(f"{what} '{name}': the name is not valid UTF-8: rename it") from None


def make_dataset(
    name: str,
    classes: tuple[str, ...],
    train: Images,
    test: Images,
    *,
    timing_only: bool = False,
) -> Dataset:
    """Check the two splits, and add statistics and fingerprint.

    Raises:
        BenchError: A split is empty, or images are neither square nor of one shape.
    """
    for split, images in (("training", train), ("test", test)):
        if len(images) == 0:
            raise BenchError(f"dataset '{name}': the {split} set is empty: give it images")
    if len(classes) < 2:  # noqa: PLR2004  # one class leaves nothing to tell apart
        raise BenchError(f"dataset '{name}' has {len(classes)} class: at least 2 are needed")
    shape, other = tuple(train.images.shape[1:]), tuple(test.images.shape[1:])
    if shape != other:
        raise BenchError(
            f"dataset '{name}': training images are {_show(shape)} but test images are "
            f"{_show(other)}: make them the same"
        )
    if shape[1] != shape[2]:
        raise BenchError(f"dataset '{name}': images are {_show(shape)}: make them square")
    mean, std = channel_statistics(train)
    return Dataset(
        name, classes, train, test, mean, std, fingerprint(train, test), timing_only=timing_only
    )


def _show(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)


def channel_statistics(split: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return per-channel mean and standard deviation of the images scaled to 0…1.

    Sums are taken in integers, so the result does not depend on the order of summation,
    the number of threads or the device.
    """
    channels = int(split.images.shape[1])
    total = torch.zeros(channels, dtype=torch.int64)
    squares = torch.zeros(channels, dtype=torch.int64)
    count = 0
    for chunk in split.chunks(512):
        levels = chunk.to(torch.int32)
        total += levels.sum((0, 2, 3)).cpu()
        squares += levels.square_().sum((0, 2, 3)).cpu()
        count += chunk.numel() // channels
    mean = total.double() / count / 255
    variance = squares.double() / count / 255**2 - mean.square()
    std = variance.clamp_min(0).sqrt()
    std = torch.where(std > 0, std, torch.ones_like(std))  # a constant channel is left alone
    return tuple(mean.tolist()), tuple(std.tolist())


def fingerprint(*splits: Images) -> str:
    """Return the SHA-256 (hex) of shapes, images (uint8) and labels (int64, little-endian)."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(repr(tuple(split.images.shape)).encode())
        for chunk in split.chunks():
            digest.update(chunk.contiguous().cpu().numpy().data)
        digest.update(split.labels.cpu().numpy().astype("<i8").tobytes())
    return digest.hexdigest()
