"""``imagefolder:PATH``: list the files of an image folder, and decode them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from bench.data.splits import stratified_split
from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from PIL import Image

T = TypeVar("T")

SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
TEST_FRACTION = 0.2  # held out where the folder has no test/ of its own
_CHANNELS = {"1": 1, "L": 1, "LA": 1, "RGB": 3, "RGBA": 3, "P": 3, "CMYK": 3}  # by Pillow's mode
_CHUNK = 512  # images decoded before they are handed on


@dataclass(frozen=True)
class FileList:
    """The images of one split: paths in sorted order, and a class number for each."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Folder:
    """The files of an image folder.

    Attributes:
        root: The folder.
        classes: Names of the class folders, sorted.
        train: Training images.
        test: Test images.
    """

    root: Path
    classes: tuple[str, ...]
    train: FileList
    test: FileList

    @property
    def paths(self) -> tuple[Path, ...]:
        """All images, training first."""
        return self.train.paths + self.test.paths


def scan(root: Path) -> Folder:
    """List the images of a folder without opening them.

    Accepted are ``train/CLASS/…`` with ``test/CLASS/…`` (or ``val/``), and ``CLASS/…``, of
    which `TEST_FRACTION` of each class is held out by a fixed seed. Images may lie in
    sub-folders of a class; files that are no images by their suffix are passed over.

    Raises:
        BenchError: The folder is missing, has fewer than two classes or a class without an
            image, or training and test classes differ.
    """
    if not root.is_dir():
        raise BenchError(
            f"imagefolder {root}: no such folder: give imagefolder:PATH, or for a run whose images "
            "are elsewhere now, 'bench results locate RUN PATH'"
        )
    if not (root / "train").is_dir():
        classes, files = _list_split(root)
        return Folder(root, classes, *_hold_out(root, files))
    test = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if test is None:
        raise BenchError(f"imagefolder {root}: has train/ but neither test/ nor val/: add one")
    classes, train_files = _list_split(root / "train")
    test_classes, test_files = _list_split(test)
    if classes != test_classes:
        odd = sorted(set(classes) ^ set(test_classes))[0]
        lacking = test if odd in classes else root / "train"
        raise BenchError(f"imagefolder {root}: class '{odd}' is missing in {lacking}: add it there")
    return Folder(root, classes, train_files, test_files)


def _list_split(folder: Path) -> tuple[tuple[str, ...], FileList]:
    classes = sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."
    )
    if len(classes) < 2:  # noqa: PLR2004  # one class leaves nothing to tell apart
        raise BenchError(
            f"{folder} has {len(classes)} class folders: put the images of each class into a "
            "folder of its own, two at least"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(path for path in (folder / name).rglob("*") if _is_image(path))
        if not found:
            raise BenchError(
                f"{folder / name}: class folder with no image: add images "
                f"({', '.join(sorted(SUFFIXES))}) or remove it"
            )
        paths += found
        labels += [label] * len(found)
    return tuple(classes), FileList(tuple(paths), tuple(labels))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.is_file()


def _hold_out(root: Path, files: FileList) -> tuple[FileList, FileList]:
    kept, held_out = stratified_split(
        torch.tensor(files.labels), TEST_FRACTION, purpose="imagefolder test"
    )
    if len(held_out) == 0:
        raise BenchError(
            f"imagefolder {root}: too few images to hold out a test set: give at least 3 a class, "
            "or train/ and test/"
        )
    train, test = (
        FileList(
            tuple(files.paths[index] for index in indices.tolist()),
            tuple(files.labels[index] for index in indices.tolist()),
        )
        for indices in (kept, held_out)
    )
    return train, test


def common_shape(paths: Sequence[Path], image_size: int | None) -> tuple[int, int, int]:
    """Return the CxHxW that all images will have, reading their headers only.

    Args:
        paths: All images of both splits.
        image_size: H and W to resize to; None for the images' own.

    Raises:
        BenchError: A file is unreadable; grey and colour images are mixed; sizes are mixed
            or not square and *image_size* is None.
    """
    first: tuple[int, tuple[int, int]] | None = None
    for path, (channels, size) in zip(paths, _in_threads(_read_header, paths), strict=True):
        first = first or (channels, size)
        if channels != first[0]:
            kinds = {1: "grey", 3: "colour"}
            raise BenchError(
                f"{path}: a {kinds[channels]} image among {kinds[first[0]]} ones "
                f"(as {paths[0]}): convert all to one mode"
            )
        if image_size is None and size != first[1]:
            raise BenchError(
                f"{path}: {size[0]}x{size[1]} pixels where {paths[0].name} has "
                f"{first[1][0]}x{first[1][1]}: set an input size (input_size) to resize to"
            )
        if image_size is None and size[0] != size[1]:
            raise BenchError(
                f"{path}: {size[0]}x{size[1]} pixels is not square: "
                "set an input size (input_size) to resize to"
            )
    if first is None:
        raise BenchError("no images: give a folder with images")
    side = first[1][0] if image_size is None else image_size
    return first[0], side, side


def decode(paths: Sequence[Path], shape: tuple[int, int, int]) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield each image, in order, as uint8 CxHxW.

    An image of another size is resized (bilinear, antialiased) so that its shorter side fits,
    and cropped at the centre. An alpha channel is dropped; a camera's rotation mark is not
    applied, as in torchvision.

    Raises:
        BenchError: A file is unreadable; the message names it.
    """
    return _in_threads(partial(_read_pixels, shape=shape), paths)


def _in_threads(function: Callable[[Path], T], paths: Sequence[Path]) -> Iterator[T]:
    """Map over the files in order; Pillow lets other threads run while it decodes."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _CHUNK):  # all at once would hold all results
            yield from pool.map(function, paths[start : start + _CHUNK])


def _read_header(path: Path) -> tuple[int, tuple[int, int]]:
    """Return the number of channels, and width and height."""
    with _opened(path) as image:
        return _CHANNELS[image.mode], image.size


def _read_pixels(path: Path, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    from PIL import Image, ImageOps

    channels, height, width = shape
    with _opened(path) as image:
        if image.mode == "P":
            image = image.convert("RGBA")  # noqa: PLW2901  # its colours, with transparency
        image = image.convert("L" if channels == 1 else "RGB")  # noqa: PLW2901
        if image.size != (width, height):
            image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)  # noqa: PLW2901
        pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image; everything that Pillow can say against it becomes one error."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            _check_mode(path, image.mode)
            yield image
    except BenchError:  # a ValueError too
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BenchError(f"{path}: unreadable image ({error}): repair or remove it") from error


def _check_mode(path: Path, mode: str) -> None:
    if mode not in _CHANNELS:
        raise BenchError(f"{path}: mode {mode} is not supported: convert it to 8-bit grey or RGB")
