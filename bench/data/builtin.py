"""Datasets that need no download: the embedded set, and noise for timing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bench.data.images import Dataset, Images, make_dataset
from bench.data.published import FASHION_CLASSES
from bench.data.splits import SPLIT_SEED
from bench.errors import BenchError

_FOLDER = Path(__file__).parent / "embedded"
_SIDE = 28  # pixels of an embedded image

SYNTHETIC_CLASSES = 10
SYNTHETIC_SIZE = 32  # pixels, by default
SYNTHETIC_TRAIN, SYNTHETIC_TEST = 2_048, 512


def load_embedded(name: str) -> Dataset:
    """Decode ``fashion-mnist-mini``: 6,000 + 1,000 images, 1x28x28, equal classes.

    Images come in turn from class 0, 1, …, 9, 0, …, so that any stretch of them is balanced.
    Made from Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, MIT licence) by
    ``tools/fashion_mnist_mini.py``, which documents the layout.

    Raises:
        BenchError: The installed package's file is damaged or missing.
    """
    return make_dataset(name, FASHION_CLASSES, _embedded_split("train"), _embedded_split("test"))


def _embedded_split(split: str) -> Images:
    from PIL import Image

    path = _FOLDER / f"fashion-mnist-mini-{split}.png"
    try:
        with Image.open(path) as picture:
            mosaic = torch.from_numpy(np.array(picture))
    except (OSError, SyntaxError) as error:
        raise BenchError(f"{path}: damaged ({error}): install the package again") from error
    rows, columns = (side // _SIDE for side in mosaic.shape)
    tiles = mosaic.view(rows, _SIDE, columns, _SIDE).swapaxes(1, 2)
    classes = len(FASHION_CLASSES)
    in_turn = tiles.reshape(classes, -1, 1, _SIDE, _SIDE).swapaxes(0, 1)
    return Images(
        in_turn.reshape(-1, 1, _SIDE, _SIDE),
        torch.arange(classes).repeat(rows * columns // classes),
    )


def make_synthetic(name: str, size: int | None) -> Dataset:
    """Return noise of 3xSxS, 10 classes, 2,048 training and 512 test images: for timing only.

    Args:
        name: Of the dataset.
        size: S in pixels, 32 if None.

    Raises:
        BenchError: *size* is below 1.
    """
    size = SYNTHETIC_SIZE if size is None else size
    if size < 1:
        raise BenchError(f"image size {size} is below 1: use for example {SYNTHETIC_SIZE}")
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    splits = [
        Images(
            torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator),
            torch.arange(count) % SYNTHETIC_CLASSES,
        )
        for count in (SYNTHETIC_TRAIN, SYNTHETIC_TEST)
    ]
    classes = tuple(f"noise {number}" for number in range(SYNTHETIC_CLASSES))
    return make_dataset(name, classes, splits[0], splits[1], timing_only=True)
