"""Classifying image files with a trained network, or with a file exported from one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from bench.data.imagefile import open_image, planes
from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


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

    Images are converted to the network's channels (grey or colour), and resized as its
    `bench.data.Preprocessing` says.

    Returns:
        For each file and each of the *top* classes: image, rank (from 1), class and
        probability (softmax, 0…1).

    Raises:
        BenchError: a file is missing or no image; it is named.
    """
    if network.input_shape[0] not in {1, 3}:
        raise BenchError(
            f"image files have one channel or three, and the network takes {network.input_shape[0]}"
        )
    rows = []
    for file in files:
        with open_image(file, network.input_shape[0]) as image:
            pixels = torch.from_numpy(planes(image).copy())[None]
        logits = network.model(network.preprocess(pixels))[0]
        # Of equal logits, as int8 files have, the first is the answer, as where accuracy is tested.
        classes = logits.argsort(descending=True, stable=True)[:top]
        values = logits.softmax(0)[classes]
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
