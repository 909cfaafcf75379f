"""The size of a run's dataset, without reading the images if that is possible."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from bench.data import list_datasets
from bench.data.catalog import find_folder
from bench.data.imagefolder import common_shape, scan
from bench.errors import BenchError
from bench.networks.summary import count_macs
from bench.system.memory import memory_left
from bench.training.setup import build_blank, load_data

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from bench.studies.run_request import RunRequest


_OPENED = 32  # images of a folder that are opened, to learn whether it is a grey or a colour set


@dataclass(frozen=True)
class DataSize:
    """A dataset as a run uses it.

    Attributes:
        classes: number of classes.
        channels: channels of an image.
        side: height and width in pixels that the network sees.
        train: number of training images, including those held out for validation.
        test: number of test images.
        on_hand: its images need no download and no decoding.
        note: what was assumed about it, or None.
    """

    classes: int
    channels: int
    side: int
    train: int
    test: int
    on_hand: bool = True
    note: str | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width that the network sees."""
        return (self.channels, self.side, self.side)

    @property
    def image_bytes(self) -> int:
        """Bytes of all images, decoded."""
        return (self.train + self.test) * self.channels * self.side**2


_ASSUMED = "the folder 'imagenet' is not there: 1,281,167 + 50,000 images of 1,000 classes assumed"
# Russakovsky et al. 2015, table 2: the classification task of ILSVRC 2012.
IMAGENET = DataSize(1000, 3, 224, 1_281_167, 50_000, on_hand=False, note=_ASSUMED)


def data_size(request: RunRequest) -> DataSize:
    """Return the size of a request's dataset.

    Named datasets are known, and image folders are listed without opening an image; only a
    user's own dataset is loaded. A missing folder called `imagenet` is assumed to hold ImageNet, so
    that its study can be planned elsewhere.

    Raises:
        BenchError: the dataset cannot be used, or has fewer images than requested.
    """
    size = _whole(request)
    wanted = request.train_images
    if wanted is not None and wanted > size.train:
        raise BenchError(
            f"train_images = {wanted}, but the training set has {size.train} images: "
            f"use 1 … {size.train}"
        )
    return replace(size, train=wanted or size.train, side=request.input_size or size.side)


def memory_of_images(request: RunRequest) -> int:
    """Return the bytes of a dataset's images in memory, where they are known without decoding.

    Those of a user's own dataset are not; a large folder is memory-mapped, which takes none.
    """
    folder = find_folder(request.dataset)
    if folder is None and ":" in request.dataset:
        return 0
    if folder is not None and request.input_size is None:
        return 0
    size = _whole(request)
    size = replace(size, train=request.train_images or size.train)
    mapped = folder is not None and size.image_bytes > memory_left() / 2
    return 0 if mapped else size.image_bytes


def image_size(request: RunRequest) -> int:
    """Return height and width in pixels of a dataset's images, before they reach the network.

    Only a user's own dataset of another size than the request's input is loaded.

    Raises:
        BenchError: that dataset cannot be loaded.
    """
    if request.input_size is not None and find_folder(request.dataset) is not None:
        return request.input_size
    return _whole(request).side


def blank_network(request: RunRequest, size: DataSize) -> nn.Module:
    """Build the request's network for its shapes, without memory if it supports that."""
    with contextlib.suppress(Exception), torch.device("meta"), warnings.catch_warnings():
        # Of each weight that the network's own code loads.
        warnings.filterwarnings("ignore", "for .*: copying from a non-meta parameter")
        return build_blank(request, size.classes, size.shape)
    return build_blank(request, size.classes, size.shape)  # it computes when built


def image_macs(request: RunRequest, size: DataSize) -> int:
    """Return the multiply-adds of the request's network for one image, forward."""
    return count_macs(blank_network(request, size), (1, *size.shape))


def _whole(request: RunRequest) -> DataSize:
    for info in list_datasets():
        if info.name == request.dataset:
            return DataSize(
                info.classes, info.channels, info.size, info.train, info.test, info.available
            )
    folder = find_folder(request.dataset)
    if folder is not None and request.input_size is not None:
        return _folder(folder, request.input_size)
    data = load_data(request)
    return DataSize(len(data.classes), data.channels, data.size, len(data.train), len(data.test))


def _folder(root: Path, side: int) -> DataSize:
    if not root.exists() and root.name == "imagenet":
        return IMAGENET
    folder = scan(root)
    some = folder.paths[:: max(1, len(folder.paths) // _OPENED)]  # grey ones may be among them
    channels, _, _ = common_shape(some, side)
    counts = (len(folder.train.paths), len(folder.test.paths))
    return DataSize(len(folder.classes), channels, side, *counts, on_hand=False)
