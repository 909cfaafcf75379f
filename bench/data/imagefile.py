"""Read one image file, for training and prediction alike."""

from __future__ import annotations

import re
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import BenchError, nearest_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt
    from PIL import Image

# Formats that Pillow only recognises, or reads with the help of other programs.
_NOT_READ = frozenset(("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"))
_GREY = frozenset(("1", "L", "LA", "La"))
_COLOUR = frozenset(("RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "CMYK", "YCbCr", "HSV"))


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of the files that Pillow can read, in lower case with their dot."""
    from PIL import Image

    Image.init()
    return frozenset(
        suffix
        for suffix, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in _NOT_READ
    )


def read_header(path: Path) -> tuple[int, tuple[int, int]]:
    """Return the channels of an image file (1: grey, 3: colour), and its width and height.

    Raises:
        BenchError: The file is no image that can be used; the message names it.
    """
    with _opened(path) as image:
        return 1 if image.mode in _GREY else 3, image.size


@contextmanager
def open_image(path: Path, channels: int) -> Iterator[Image.Image]:
    """Open an image file in mode L or RGB, as torchvision's loader does.

    An alpha channel is dropped; a camera's rotation mark is not applied; of an animation, the
    first image is read.

    Args:
        path: The file.
        channels: 1 for grey, 3 for colour.

    Raises:
        BenchError: The file is no image that can be used; the message names it.
    """
    with _opened(path) as image:
        if image.mode in {"P", "PA"}:
            image = image.convert("RGBA")  # noqa: PLW2901  # its colours, with transparency
        yield image.convert("L" if channels == 1 else "RGB")


def planes(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return the pixels of an image in mode L or RGB as uint8 CxHxW."""
    pixels: npt.NDArray[np.uint8] = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)  # noqa: PLR2004


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image; everything that Pillow can say against it becomes one error."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            _check_mode(path, image.mode)
            _check_depth(path, image)
            yield image
    except BenchError:  # a ValueError too
        raise
    except UnidentifiedImageError:
        what = "an empty file" if path.stat().st_size == 0 else "no image that Pillow can read"
        raise BenchError(f"{path}: unreadable image ({what}): {_way_on(path)}") from None
    except FileNotFoundError as error:
        hint = nearest_file(path)
        raise BenchError(f"cannot read the image {path}: {error.strerror}{hint}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BenchError(f"{path}: unreadable image ({reason}): {_way_on(path)}") from error


def _way_on(path: Path) -> str:
    if path.is_dir() or path.suffix.lower() not in image_suffixes():  # never one of a dataset
        return "give image files"
    return "repair or remove it"


def _check_depth(path: Path, image: Image.Image) -> None:
    """Refuse colours of 16 bits, of which Pillow reads the upper 8."""
    # A tile ends with the arguments of its decoder, in which the stored mode is.
    if any(re.search(";16[BLN]", str(tile[3])) for tile in getattr(image, "tile", ())):
        raise BenchError(
            f"{path}: 16 bits per channel are not supported: convert it to 8-bit grey or RGB"
        )


def _check_mode(path: Path, mode: str) -> None:
    if mode not in _GREY | _COLOUR:  # Pillow would cut 16 bits to white above 255
        raise BenchError(f"{path}: mode {mode} is not supported: convert it to 8-bit grey or RGB")
