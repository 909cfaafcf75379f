"""Classifying image files with a trained network, or with a file exported from one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from PIL import Image


class Classifier(Protocol):
    """What `predict` needs of a `TrainedRun` or an `ExportedClassifier`."""

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the logits."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""

    @property
    def model(self) -> Callable[[Tensor], Any]:
        """Turn prepared images into logits N×classes."""

    def preprocess(self, images: Tensor) -> Tensor:
        """Prepare uint8 images N×C×H×W."""


@torch.inference_mode()
def predict(network: Classifier, files: Sequence[Path], *, top: int = 1) -> list[dict[str, Any]]:
    """Classify image files with a network and its own preprocessing.

    Images are converted to the network's channels (grey or colour) and resized to its
    input size, as in training.

    Returns:
        For each file and each of the *top* classes: image, rank (from 1), class and
        probability (softmax, 0…1).

    Raises:
        BenchError: a file is missing or no image; it is named.
    """
    rows = []
    for file in files:
        pixels = _read_image(file, network.input_shape[0])
        probabilities = network.model(network.preprocess(pixels)).softmax(1)[0]
        values, classes = probabilities.topk(min(top, len(probabilities)))
        rows += [
            {
                "image": str(file),
                "rank": rank,
                "class": network.classes[int(index)],
                "probability": float(value),
            }
            for rank, (value, index) in enumerate(zip(values, classes, strict=True), 1)
        ]
    return rows


def _read_image(file: Path, channels: int) -> Tensor:
    """Read an image file as uint8, 1×C×H×W."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as opened:
            mode = opened.mode
            image: Image.Image = opened.convert("L" if channels == 1 else "RGB")
    except UnidentifiedImageError:
        raise BenchError(f"{file} is no image that Pillow can read") from None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BenchError(f"cannot read the image {file}: {reason}") from None
    if mode.startswith(("I", "F")):  # Pillow cut all above 255 to white
        raise BenchError(f"{file}: mode {mode} is not supported: convert it to 8-bit grey or RGB")
    pixels = torch.from_numpy(np.array(image))
    return (pixels[None] if channels == 1 else pixels.permute(2, 0, 1))[None]
