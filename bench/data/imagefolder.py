"""``imagefolder:PATH``: list the files of an image folder, and decode them."""

from __future__ import annotations

import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from bench.data.imagefile import image_suffixes, open_image, planes, read_header
from bench.data.images import require_text
from bench.data.preprocessing import resize_image
from bench.data.splits import stratified_split
from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from bench.data.preprocessing import Resize

T = TypeVar("T")

TEST_FRACTION = 0.2  # held out where the folder has no test set of its own
# How people name the folders of a split, in lower case and without separators.
_SPLITS = {
    **dict.fromkeys(("train", "training", "trainset", "trainingset", "traindata"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "validationset", "valdata"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "testingset", "testdata"), "test"),
}
_LITTER = frozenset(("__MACOSX", "@eaDir"))  # left by archives and file servers
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
        notes: What a user should know about how the folder was read; one line each.
    """

    root: Path
    classes: tuple[str, ...]
    train: FileList
    test: FileList
    notes: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """All images, training first."""
        return self.train.paths + self.test.paths


def scan(root: Path) -> Folder:
    """List the images of a folder without opening them.

    Accepted are ``train/CLASS/…`` with ``test/CLASS/…`` (or ``val/``), also by their other usual
    names (``Training``, ``valid``, …), and ``CLASS/…``, of which `TEST_FRACTION` of each class is
    held out by a fixed seed. Images may lie in sub-folders of a class, and links are followed.
    Files that are no images by their suffix are passed over, and counted in the notes.

    Raises:
        BenchError: The folder is missing or ambiguous, has fewer than two classes or a class
            without an image, or training and test classes differ or have names that are no text.
    """
    if root.is_file():
        raise BenchError(
            f"imagefolder {root}: it is a file; give the folder that has one folder of images per "
            "class"
        )
    if not root.is_dir():
        raise BenchError(
            f"imagefolder {root}: no such folder: give imagefolder:PATH, or for a run whose images "
            "are elsewhere now, 'bench results locate RUN PATH'"
        )
    splits, notes = _find_splits(root)
    passed_over: Counter[str] = Counter()
    if not splits:
        classes, files = _list_split(root, passed_over)
        train, test = _hold_out(root, files)
    else:
        classes, train = _list_split(splits["train"], passed_over)
        test_classes, test = _list_split(splits["test"], passed_over)
        if classes != test_classes:
            odd = sorted(set(classes) ^ set(test_classes))[0]
            lacking = splits["test" if odd in classes else "train"]
            raise BenchError(
                f"imagefolder {root}: class '{odd}' is missing in {lacking}: add it there"
            )
    require_text(f"imagefolder {root}: class", *classes)
    if passed_over:
        notes.append(f"imagefolder {root}: passed over {_count(passed_over)}")
    return Folder(root, classes, train, test, tuple(notes))


def _find_splits(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the folders of the training and the test set, none if the classes lie in *root*.

    A folder called like a split is one if it has folders in it; a class may be called `train`.

    Returns:
        The two folders by ``train`` and ``test``, and notes on what stands in for what.

    Raises:
        BenchError: What is meant is not clear, or a set is missing.
    """
    folders = _folders(root)
    named: dict[str, list[Path]] = {}
    for folder in folders:
        if role := _role(folder):
            named.setdefault(role, []).append(folder)
    called = [folder for found in named.values() for folder in found]
    others = [folder.name for folder in folders if folder not in called]
    where = f"imagefolder {root}"
    alone = len(called) == 1 and others and not _folders(called[0])
    if not called or alone:
        _refuse_prefixed(where, folders)
        return {}, []  # classes, of which one may happen to be called so
    for role, found in named.items():
        if len(found) > 1:
            names = " and ".join(f"{folder.name}/" for folder in found)
            raise BenchError(f"{where}: has {names}, each a {role} set: keep one of them there")
    splits = {role: found[0] for role, found in named.items()}
    if "train" not in splits:
        has = " and ".join(f"{folder.name}/" for folder in called)
        raise BenchError(f"{where}: has {has} but no train/: add it, or rename one of them")
    if len(splits) == 1:
        train = splits["train"]
        raise BenchError(
            f"{where}: has {train.name}/ but neither test/ nor val/: add one, or give "
            f"imagefolder:{train}, of which {TEST_FRACTION * 100:.0f} % are held out as the "
            "test set"
        )
    return _without_validation(where, splits, others)


def _refuse_prefixed(where: str, folders: list[Path]) -> None:
    """Refuse classes that are probably splits: `seg_train` and `seg_test` with folders in them."""
    roles = {
        folder.name: {_SPLITS[word] for word in _words(folder) if word in _SPLITS}
        for folder in folders
        if _folders(folder)
    }
    named = sorted(name for name, found in roles.items() if found)
    if len(set().union(*roles.values())) > 1:
        raise BenchError(
            f"{where}: {' and '.join(f'{name}/' for name in named)} look like splits, not classes: "
            "call them train/ and test/ if they are"
        )


def _without_validation(
    where: str, splits: dict[str, Path], others: list[str]
) -> tuple[dict[str, Path], list[str]]:
    """Let the validation set stand in for a missing test set; it is not used otherwise."""
    notes = []
    if "val" in splits:
        name, held_out = splits["val"].name, "validation images are held out of the training set"
        if "test" in splits:
            notes.append(f"{where}: {name}/ is not used; {held_out}")
        else:
            notes.append(f"{where}: without a test/, {name}/ is the test set; {held_out}")
    if others:
        names = ", ".join(f"{name}/" for name in others)
        notes.append(f"{where}: passed over the folders beside the splits: {names}")
    return {"train": splits["train"], "test": splits.get("test") or splits["val"]}, notes


def _role(folder: Path) -> str | None:
    """Return which split a folder is called: train, val or test; None for another name."""
    return _SPLITS.get("".join(_words(folder)))


def _words(folder: Path) -> list[str]:
    return re.split(r"[-_ .]+", folder.name.casefold())


def _folders(root: Path) -> list[Path]:
    """Return the visible folders in a folder, links to folders included, sorted by name."""
    try:
        return sorted(
            (
                entry
                for entry in root.iterdir()
                if entry.is_dir() and entry.name[0] != "." and entry.name not in _LITTER
            ),
            key=lambda entry: entry.name,
        )
    except OSError as error:
        raise _unreadable(error) from None


def _unreadable(error: OSError) -> BenchError:
    return BenchError(
        f"{error.filename}: the folder cannot be read ({error.strerror}): change its permissions"
    )


def _list_split(folder: Path, passed_over: Counter[str]) -> tuple[tuple[str, ...], FileList]:
    classes = _folders(folder)
    if len(classes) < 2:  # noqa: PLR2004  # one class leaves nothing to tell apart
        raise BenchError(
            f"{folder} has {len(classes)} class folders: put the images of each class into a "
            "folder of its own, two at least"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, directory in enumerate(classes):
        others: Counter[str] = Counter()
        found = _images_in(directory, others)
        if not found:
            raise BenchError(
                f"{directory}: class folder with no image"
                f"{f' (only {_count(others)})' if others else ''}: add images (.jpg, .png and "
                "whatever else Pillow reads) or remove it"
            )
        passed_over += others
        paths += found
        labels += [label] * len(found)
    return tuple(entry.name for entry in classes), FileList(tuple(paths), tuple(labels))


def _images_in(folder: Path, passed_over: Counter[str]) -> list[Path]:
    """Return the images below a folder, sorted; other files are counted by their suffix."""
    known = image_suffixes()
    found: list[Path] = []
    try:
        for path in _files_below(folder):
            if not path.is_file():
                passed_over["broken links" if path.is_symlink() else "special files"] += 1
            elif path.suffix.lower() in known:
                found.append(path)
            else:
                passed_over[path.suffix.lower() or "without a suffix"] += 1
    except OSError as error:
        raise _unreadable(error) from None
    return sorted(found)


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield the visible files below a folder; links are followed, but into no folder twice.

    Folders of thumbnails and of earlier versions, which hold copies of the images, are hidden.

    Raises:
        OSError: A folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    seen: set[tuple[int, int]] = set()  # a link may lead back to a folder above it
    for directory, below, names in os.walk(folder, followlinks=True, onerror=refuse):
        status = Path(directory).stat()
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below[:] = sorted(name for name in below if name[0] != "." and name not in _LITTER)
        yield from (Path(directory, name) for name in names if name[0] != ".")


def _count(passed_over: Counter[str]) -> str:
    """Word how many files were passed over, by suffix: `4 files (3 .txt, 1 .db)`."""
    total = sum(passed_over.values())
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in passed_over.most_common(6))
    more = ", …" if len(passed_over) > 6 else ""  # noqa: PLR2004
    return f"{total:,} file{'s' * (total != 1)} without the suffix of an image ({kinds}{more})"


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

    Grey images among colour ones are read as colour, as torchvision does; only a folder of nothing
    but grey images is grey.

    Args:
        paths: All images of both splits.
        image_size: H and W to resize to; None for the images' own.

    Raises:
        BenchError: A file is unreadable, or sizes are mixed or not square and *image_size* is
            None.
    """
    first: tuple[int, int] | None = None
    channels = 1
    for path, (own, size) in zip(paths, _in_threads(read_header, paths), strict=True):
        first = first or size
        channels = max(channels, own)
        if image_size is None and size != first:
            raise BenchError(
                f"{path}: {size[1]}x{size[0]} pixels (HxW) where {paths[0].name} has "
                f"{first[1]}x{first[0]}: set an input size to resize to (--set input_size=224)"
            )
        if image_size is None and size[0] != size[1]:
            raise BenchError(
                f"{path}: {size[1]}x{size[0]} pixels (HxW) is not square, as the input of a run "
                "is: set an input size to resize to (--set input_size=224)"
            )
    if first is None:
        raise BenchError("no images: give a folder with images")
    side = first[0] if image_size is None else image_size
    return channels, side, side


def decode(
    paths: Sequence[Path], shape: tuple[int, int, int], resize: Resize = "crop"
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield each image, in order, as uint8 CxHxW.

    Files are read by `bench.data.imagefile.open_image`; an image of another size is resized by
    `bench.data.preprocessing.resize_image`.

    Raises:
        BenchError: A file is unreadable; the message names it.
    """
    return _in_threads(partial(_read_pixels, shape=shape, resize=resize), paths)


def _in_threads(function: Callable[[Path], T], paths: Sequence[Path]) -> Iterator[T]:
    """Map over the files in order; Pillow lets other threads run while it decodes."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _CHUNK):  # all at once would hold all results
            yield from pool.map(function, paths[start : start + _CHUNK])


def _read_pixels(path: Path, shape: tuple[int, int, int], resize: Resize) -> npt.NDArray[np.uint8]:
    channels, side, _ = shape
    with open_image(path, channels) as image:
        return planes(resize_image(image, side, resize))
