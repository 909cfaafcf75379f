"""A dataset of the user's own: ``package.module:function``, called without arguments."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data.images import Dataset, Images, fingerprint, make_dataset, require_text
from bench.data.preprocessing import Resize, resize_images
from bench.data.progress import progress_bar
from bench.errors import BenchError
from bench.models.errors import ModelError, reraise_ours
from bench.models.external import find_function

Square = Callable[[str, Tensor], Tensor]
_CHANNELS = (1, 3)
_FORMS = (
    "(train, test), (train_images, train_labels, test_images, test_labels), a dict with these "
    "names, or a bench Dataset"
)


def load_user_dataset(
    name: str, *, image_size: int | None = None, resize: Resize = "crop", quiet: bool = False
) -> Dataset:
    """Call the user's function and check what it returns.

    It may return

    - ``(train, test)``, each an `Images`, a pair (images, labels) or a torch ``Dataset`` of
      (image, label), which is read once, image by image;
    - ``(train_images, train_labels, test_images, test_labels)``;
    - a dict with either set of names, and perhaps ``classes``, the class names by label, or a dict
      from names to labels;
    - a `Dataset` of this package.

    Without ``classes``, those of the training set are taken, if it has such an attribute.

    Images are arrays or tensors, NxHxW, NxHxWxC or NxCxHxW, uint8. Those that are not square are
    resized to *image_size*. Floats are taken if they are grey levels k/255, as torchvision's
    ``ToTensor`` makes them. Labels are integers 0…K-1. The current folder is importable, after
    everything that is installed.

    Args:
        name: ``package.module:function``.
        image_size: H and W in pixels to which images that are not square are resized.
        resize: How they are resized; see `bench.data.preprocessing.resize_image`.
        quiet: Show no progress bar.

    Raises:
        BenchError: The function cannot be found or fails, or what it returns is of another
            form; the message names the function and what is wrong.
    """
    try:
        function = find_function(name)
    except ModelError as error:
        raise BenchError(f"dataset {error}") from error
    try:
        returned: Any = function()
    except BenchError:
        raise
    except (Exception, SystemExit) as error:
        reraise_ours(error)
        raise BenchError(
            f"dataset '{name}': the function raised {type(error).__name__}: "
            f"{' '.join(str(error).split())}"
        ) from error
    square = partial(_square, side=image_size, resize=resize)
    if isinstance(returned, Dataset):
        return _checked(name, returned, square)
    train, test, classes = _splits(name, returned)
    train_images = _images(f"dataset '{name}', training set", train, square, quiet=quiet)
    test_images = _images(f"dataset '{name}', test set", test, square, quiet=quiet)
    names = _class_names(name, classes, train_images, test_images)
    return make_dataset(name, names, train_images, test_images)


def _checked(name: str, dataset: Dataset, square: Square) -> Dataset:
    """Check a ready-made dataset like any other, and keep its own statistics."""
    splits = [
        _images(f"dataset '{name}', {split} set", images, square, quiet=True)
        for split, images in (("training", dataset.train), ("test", dataset.test))
    ]
    names = _class_names(name, _by_label(name, dataset.classes), *splits)
    made = replace(dataset, name=name, classes=names, train=splits[0], test=splits[1])
    return replace(made, fingerprint=fingerprint(*splits))


def _splits(name: str, returned: Any) -> tuple[Any, Any, tuple[str, ...] | None]:
    """Sort what the function returned into training set, test set and class names."""
    if isinstance(returned, Mapping):
        classes = _by_label(name, returned.get("classes"))
        if {"train", "test"} <= returned.keys():
            train, test = returned["train"], returned["test"]
            return train, test, classes or _own_classes(name, train, test)
        names = ("train_images", "train_labels", "test_images", "test_labels")
        if set(names) <= returned.keys():
            parts = [returned[key] for key in names]
            return tuple(parts[:2]), tuple(parts[2:]), classes
        raise BenchError(
            f"dataset '{name}': the dict has the names {', '.join(map(str, returned))}: "
            f"return {_FORMS}"
        )
    if isinstance(returned, tuple | list):
        if len(returned) == 2:  # noqa: PLR2004
            return returned[0], returned[1], _own_classes(name, *returned)
        if len(returned) == 4:  # noqa: PLR2004
            return tuple(returned[:2]), tuple(returned[2:]), None
    raise BenchError(
        f"dataset '{name}': the function returned {_describe(returned)}: return {_FORMS}"
    )


def _own_classes(name: str, train: Any, test: Any) -> tuple[str, ...] | None:
    """Return the class names that the training set has; those of the test set must agree."""
    names = _by_label(name, getattr(train, "classes", None))
    if names is not None:
        others = _by_label(name, getattr(test, "classes", None)) or ()
        for label, (ours, theirs) in enumerate(zip(names, others, strict=False)):
            if ours != theirs:
                raise BenchError(
                    f"dataset '{name}': label {label} is '{ours}' in the training set, but "
                    f"'{theirs}' in the test set: number the classes of both alike"
                )
    return names


def _by_label(name: str, classes: Any) -> tuple[str, ...] | None:
    """Return class names in the order of their labels; None if there are none."""
    if classes is None:
        return None
    if isinstance(classes, Mapping) and _number_all(classes.values()):
        classes = sorted(classes, key=classes.__getitem__)
    elif isinstance(classes, Mapping) and _number_all(classes):
        classes = [classes[label] for label in sorted(classes)]
    elif isinstance(classes, Tensor | np.ndarray):
        classes = classes.tolist()
    if isinstance(classes, Mapping | Set | str | bytes) or not isinstance(classes, Iterable):
        raise BenchError(
            f"dataset '{name}': classes has the type {type(classes).__name__}: give a list of "
            "names in the order of the labels, or a dict from names to labels 0 … K-1"
        )
    return tuple(c.decode(errors="replace") if isinstance(c, bytes) else str(c) for c in classes)


def _number_all(labels: Iterable[Any]) -> bool:
    """Return whether labels are 0 … K-1 in some order."""
    found = list(labels)
    integers = all(isinstance(label, int | np.integer) for label in found)
    return integers and sorted(found) == list(range(len(found)))


def _describe(value: Any) -> str:
    kind = type(value).__name__
    return f"a {kind} of {len(value)}" if isinstance(value, tuple | list) else f"a {kind}"


def _images(what: str, split: Any, square: Square, *, quiet: bool) -> Images:
    """Turn one split into checked uint8 images and int64 labels."""
    if isinstance(split, Images):
        images, labels = split.take(slice(None))
    elif isinstance(split, tuple | list) and len(split) == 2:  # noqa: PLR2004
        images, labels = (_tensor(what, part) for part in split)
    elif isinstance(split, torch.utils.data.Dataset):
        images, labels = _read_torch_dataset(what, split, quiet=quiet)
    else:
        raise BenchError(f"{what} is {_describe(split)}: give (images, labels) or a torch Dataset")
    images = square(what, _planes(what, _grey_levels(what, images)))
    if labels.ndim != 1 or labels.dtype.is_floating_point or labels.dtype == torch.bool:
        raise BenchError(
            f"{what}: labels are {labels.dtype} of shape {tuple(labels.shape)}: "
            "give one integer an image"
        )
    if len(images) != len(labels):
        raise BenchError(f"{what}: {len(images)} images but {len(labels)} labels: make them equal")
    return Images(images.contiguous(), labels.long())


def _tensor(what: str, value: Any) -> Tensor:
    try:
        return value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    except (TypeError, ValueError) as error:  # ragged, or of Python objects
        raise BenchError(
            f"{what}: {_describe(value)} is no numeric array ({error}): give arrays or tensors"
        ) from error


def _read_torch_dataset(what: str, dataset: Any, *, quiet: bool) -> tuple[Tensor, Tensor]:
    if not hasattr(dataset, "__len__"):
        raise BenchError(f"{what}: the torch Dataset has no length: give a map-style one")
    images, labels = [], []
    with progress_bar(f"reading {what}", len(dataset), quiet=quiet) as advance:
        for index in range(len(dataset)):
            try:
                image, label = dataset[index]
                if getattr(image, "mode", None) in {"P", "PA"}:  # Pillow's, of colours' numbers
                    image = image.convert("RGB")
                labels.append(operator.index(label))  # int() would cut 0.6 to 0
            except Exception as error:
                raise BenchError(
                    f"{what}: item {index} gives no (image, integer label) "
                    f"({type(error).__name__}: {' '.join(str(error).split())})"
                ) from error
            images.append(_tensor(what, image))
            if images[index].shape != images[0].shape:
                raise BenchError(
                    f"{what}: image {index} is of shape {tuple(images[index].shape)}, image 0 of "
                    f"{tuple(images[0].shape)}: resize them to one shape"
                )
            advance(1)
    if not images:
        raise BenchError(f"{what} is empty: give it images")
    return torch.stack(images), torch.tensor(labels)


def _grey_levels(what: str, images: Tensor) -> Tensor:
    """Return uint8 images; floats are taken if nothing is lost."""
    if images.dtype == torch.uint8:
        return images
    if images.dtype.is_floating_point:
        scaled = images.float() * 255
        levels = scaled.round()
        # k/255 in float16 is off by up to 2^-12 of itself, a sixteenth of a level.
        near = (scaled - levels).abs().le(0.07)
        if bool((near & levels.ge(0) & levels.le(255)).all()):
            return levels.to(torch.uint8)
    raise BenchError(
        f"{what}: images are {images.dtype} and no grey levels k/255: give uint8, 0 … 255, "
        "without normalisation (bench applies it)"
    )


def _planes(what: str, images: Tensor) -> Tensor:
    """Return NxCxHxW: of four dimensions, a square pair or else C = 1 or 3 tells which is which."""
    if images.ndim == 3:  # noqa: PLR2004
        return images.unsqueeze(1)
    if images.ndim == 4:  # noqa: PLR2004
        _, first, second, third = images.shape
        if second == third or (first != second and first in _CHANNELS and third not in _CHANNELS):
            return images
        if first == second or (third in _CHANNELS and first not in _CHANNELS):
            return images.permute(0, 3, 1, 2)
    raise BenchError(
        f"{what}: images are of shape {tuple(images.shape)}: give NxHxW, NxHxWxC or NxCxHxW "
        "with H = W or C = 1 or 3"
    )


def _square(what: str, images: Tensor, *, side: int | None, resize: Resize) -> Tensor:
    """Return square images as they are, and others resized."""
    height, width = images.shape[2:]
    if height == width:
        return images
    if side is None:
        raise BenchError(
            f"{what}: images are {height}x{width} pixels (HxW), not square as the input of a run: "
            "set an input size to resize to (--set input_size=224)"
        )
    return resize_images(images, side, resize)


def _class_names(
    name: str, classes: tuple[str, ...] | None, train: Images, test: Images
) -> tuple[str, ...]:
    """Return the class names, the numbers if there are none, after checking all labels."""
    if len(train) == 0:
        raise BenchError(f"dataset '{name}': the training set is empty: give it images")
    count = int(train.labels.max()) + 1 if classes is None else len(classes)
    for split, images in (("training", train), ("test", test)):
        wrong = (images.labels < 0) | (images.labels >= count)
        if bool(wrong.any()):
            index = int(wrong.int().argmax())
            raise BenchError(
                f"dataset '{name}': label {int(images.labels[index])} of {split} image {index} is "
                f"outside 0 … {count - 1}: number the classes from 0"
            )
    if classes is not None:
        require_text(f"dataset '{name}': class", *classes)
        return classes
    missing = torch.bincount(train.labels, minlength=count).eq(0)
    if bool(missing.any()):
        raise BenchError(
            f"dataset '{name}': class {int(missing.int().argmax())} of 0 … {count - 1} has no "
            "training image: number the classes from 0 without gaps"
        )
    return tuple(str(number) for number in range(count))
