"""Trained networks: loading one back, and asking it about image files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from bench.data import to_float
from bench.errors import BenchError
from bench.store import RunRecord, Store
from bench.studies.request import RunRequest
from bench.training.setup import read_trained

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image


@dataclass(frozen=True)
class Trained:
    """A finished run, with its network in evaluation mode on the CPU."""

    record: RunRecord
    request: RunRequest
    model: nn.Module
    root: Path

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the logits."""
        return list(self.record.result["classes"])

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width the network was trained at."""
        channels, height, width = self.record.result["input_shape"]
        return channels, height, width

    def preprocess(self, images: Tensor) -> Tensor:
        """Turn uint8 images N×C×H×W into what the network was trained on."""
        return to_float(
            images,
            input_size=self.input_shape[-1],
            mean=tuple(self.record.result["mean"]),
            std=tuple(self.record.result["std"]),
            antialias=self.request.recipe.antialias,
            normalize=self.request.recipe.normalize,
        )


class Classifier(Protocol):
    """What `predict` needs: a `Trained` run, or `bench.export.predict.Exported`."""

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the logits."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""

    @property
    def model(self) -> Callable[[Tensor], Any]:
        """Prepared images to logits N×classes."""

    def preprocess(self, images: Tensor) -> Tensor:
        """Prepare uint8 images N×C×H×W."""


def load_trained(run: str | Path, *, results: str | Path = "bench-runs") -> Trained:
    """Load a run by id, unambiguous beginning of an id, or folder.

    Raises:
        BenchError: there is no such run, it did not finish, or its files are damaged.
    """
    path = Path(run)
    inside = path.parent.name == "runs" and path.is_dir()
    store = Store(path.resolve().parent.parent if inside else results)
    record, model = read_trained(store, str(run))
    return Trained(record, RunRequest.from_dict(record.request), model, store.root)


def load_model(run: str | Path, *, results: str | Path = "bench-runs") -> nn.Module:
    """Load a run's trained network, in evaluation mode on the CPU.

    Args:
        run: id, unambiguous beginning of one, or folder of a finished run.
        results: the results folder, unless *run* is a folder.

    Returns:
        The network: float images N×C×H×W (as `bench predict` prepares them) to logits
        N×classes.

    Raises:
        BenchError: there is no such run, it did not finish, or its files are damaged.
    """
    return load_trained(run, results=results).model


@torch.inference_mode()
def predict(trained: Classifier, files: Sequence[Path], *, top: int = 1) -> list[dict[str, Any]]:
    """Classify image files with a trained network and its own preprocessing.

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
        pixels = _read_image(file, trained.input_shape[0])
        probabilities = trained.model(trained.preprocess(pixels)).softmax(1)[0]
        values, classes = probabilities.topk(min(top, len(probabilities)))
        rows += [
            {
                "image": str(file),
                "rank": rank,
                "class": trained.classes[int(index)],
                "probability": float(value),
            }
            for rank, (value, index) in enumerate(zip(values, classes, strict=True), 1)
        ]
    return rows


def _read_image(file: Path, channels: int) -> Tensor:
    """Read an image file as uint8, 1×C×H×W."""
    import numpy as np
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
