"""List the datasets, and load one by its name."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.builtin import (
    SYNTHETIC_CLASSES,
    SYNTHETIC_SIZE,
    SYNTHETIC_TEST,
    SYNTHETIC_TRAIN,
    load_embedded,
    make_synthetic,
)
from bench.data.imagecache import load_imagefolder
from bench.data.imagefolder import common_shape, scan
from bench.data.images import Dataset, fingerprint, require_text
from bench.data.moved import find_moved
from bench.data.published import PUBLISHED, load_published
from bench.data.splits import balanced_subset
from bench.data.userdata import load_user_dataset
from bench.errors import BenchError, nearest
from bench.models.errors import function_suggestion
from bench.system.folders import cache_folder

if TYPE_CHECKING:
    from bench.data.preprocessing import Resize

EMBEDDED = "fashion-mnist-mini"
SYNTHETIC = "synthetic"
NAMES = ("fashion-mnist", EMBEDDED, "mnist", "cifar10", "cifar100", SYNTHETIC)
_USER_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
FOLDER_PREFIX = "imagefolder:"


@dataclass(frozen=True)
class DatasetInfo:
    """One line of `bench list datasets`.

    Attributes:
        name: As `load_dataset` takes it.
        classes: Number of classes.
        channels: Colour channels of an image.
        size: Height and width of an image in pixels.
        train: Number of training images.
        test: Number of test images.
        where: ``embedded``, ``generated``, the folder that holds it, or ``download``.
        available: It can be loaded without a network.
    """

    name: str
    classes: int
    channels: int
    size: int
    train: int
    test: int
    where: str
    available: bool


def data_directory() -> Path:
    """Return where downloads and decoded image folders are kept.

    That is the environment variable ``BENCH_DATA``, or the user's cache folder.
    """
    chosen = os.environ.get("BENCH_DATA")
    return Path(chosen).expanduser() if chosen else cache_folder("bench")


def load_dataset(
    name: str,
    *,
    train_images: int | None = None,
    subset_seed: int | None = None,
    image_size: int | None = None,
    resize: Resize = "crop",
    quiet: bool = False,
) -> Dataset:
    """Load a dataset as uint8 tensors, downloading or decoding it the first time.

    Files are looked for, and kept, in `data_directory`.

    Args:
        name: One of `list_datasets`, ``imagefolder:PATH``, or the user's own
            ``package.module:function`` (see `bench.data.userdata.load_user_dataset`).
        train_images: Keep only this many training images, balanced over the classes and the
            same in every run (see `bench.data.splits.balanced_subset`).
        subset_seed: Another one keeps other training images; None keeps those of every run.
        image_size: H and W in pixels of ``imagefolder`` and ``synthetic``, and of a user's own
            images that are not square; the others have their own size, and batches are resized
            to what the network takes.
        resize: How images of an ``imagefolder``, and a user's own that are not square, are
            resized: ``crop``, ``squash`` or ``pad`` (see
            `bench.data.preprocessing.resize_image`).
        quiet: Show no progress bar.

    Raises:
        BenchError: The name is unknown, or the dataset cannot be loaded, is damaged or of
            the wrong form; one line names the file or function and the fix.
    """
    dataset = _load(name, image_size, resize, quiet)
    if train_images is None:
        return dataset
    train = dataset.train.subset(balanced_subset(dataset.train.labels, train_images, subset_seed))
    return replace(dataset, train=train, fingerprint=fingerprint(train, dataset.test))


def _load(name: str, image_size: int | None, resize: Resize, quiet: bool) -> Dataset:
    require_text("dataset", name)
    directory = data_directory()
    if name == EMBEDDED:
        return load_embedded(name)
    if name == SYNTHETIC:
        return make_synthetic(name, image_size)
    if name in PUBLISHED:
        return load_published(PUBLISHED[name], directory, quiet=quiet)
    if (root := find_folder(name)) is not None:
        found = load_imagefolder(
            name, root, directory, image_size=image_size, resize=resize, quiet=quiet
        )
        named = _named_folder(name)
        if root == named or not named.is_dir():
            return found
        note = f"{name} is read from {root}, where 'bench results locate' recorded it"
        return replace(found, notes=(*found.notes, note))
    if _USER_FUNCTION.fullmatch(name):
        return load_user_dataset(name, image_size=image_size, resize=resize, quiet=quiet)
    raise BenchError(
        f"unknown dataset '{name}'{suggestion(name)} (known: {', '.join(NAMES)}, "
        "imagefolder:PATH, or your own package.module:function)"
    )


def find_folder(name: str) -> Path | None:
    """Return the folder that ``imagefolder:PATH`` stands for on this machine, None for other names.

    It need not exist. Where `bench.data.moved` records it goes first: other images may lie at PATH
    on this machine.
    """
    if not name.startswith(FOLDER_PREFIX):
        return None
    named, moved = _named_folder(name), find_moved(name, data_directory())
    if moved is None or (named.is_dir() and not moved.is_dir()):
        return named
    return moved.resolve()


def _named_folder(name: str) -> Path:
    return _expanded(name.removeprefix(FOLDER_PREFIX)).resolve()


def _expanded(path: str) -> Path:
    """Return a path with the home folder in the place of `~`."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # of a user that there is not
        return Path(path)


def count_channels(name: str) -> int:
    """Return the number of colour channels of a dataset; of an image folder, from its headers.

    Raises:
        BenchError: As `load_dataset`.
    """
    known = {info.name: info.channels for info in list_datasets()}
    if name in known:
        return known[name]
    if (root := find_folder(name)) is not None:
        return common_shape(scan(root).paths, image_size=1)[0]
    return load_dataset(name, image_size=1).channels


def suggestion(name: str) -> str:
    """Return ``"; did you mean 'x'?"`` for a name that is no dataset, or ``""``."""
    if name and _expanded(name).is_dir():
        return f"; did you mean '{FOLDER_PREFIX}{name}'?"
    return function_suggestion(name) or nearest(name, [*NAMES, f"{FOLDER_PREFIX}PATH"])


def list_datasets() -> list[DatasetInfo]:
    """Describe the named datasets and where they are, without reading them."""
    return [_describe(name) for name in NAMES]


def _describe(name: str) -> DatasetInfo:
    if name == EMBEDDED:
        return DatasetInfo(name, 10, 1, 28, 6_000, 1_000, "embedded", available=True)
    if name == SYNTHETIC:
        counts = (SYNTHETIC_TRAIN, SYNTHETIC_TEST)
        return DatasetInfo(
            name, SYNTHETIC_CLASSES, 3, SYNTHETIC_SIZE, *counts, "generated", available=True
        )
    source = PUBLISHED[name]
    folder = source.found(data_directory())
    return DatasetInfo(
        name,
        source.num_classes,
        source.channels,
        source.size,
        source.train,
        source.test,
        str(folder) if folder else "download",
        available=folder is not None,
    )
