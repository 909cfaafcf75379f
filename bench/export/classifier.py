"""An exported file as a classifier of image files, prepared as its properties say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor

from bench.data import Preprocessing
from bench.data.preprocessing import Resize
from bench.errors import BenchError
from bench.export.examine import image_input
from bench.export.files import load
from bench.export.session import logits_of, open_session

if TYPE_CHECKING:
    from pathlib import Path


_WAY_ON = (
    "give a file that 'bench export-onnx RUN' made, or the int8 file that 'bench export-onnx "
    "FILE.onnx --precision int8 --dataset NAME' makes (--force remakes that of an earlier version)"
)
_RESIZE: dict[str, Resize] = {mode: mode for mode in get_args(Resize)}


class ExportedClassifier:
    """A file of `bench export-onnx`, for `bench.targets.classify.predict`.

    Attributes:
        classes: names, in the order of the logits.
        input_shape: channels, height, width.

    Args:
        path: the file.

    Raises:
        BenchError: it is not a valid ONNX file, or does not say how its images are prepared.
    """

    def __init__(self, path: Path) -> None:
        proto = load(path)
        known = {entry.key: entry.value for entry in proto.metadata_props}
        if "classes" not in known:
            raise BenchError(f"{path} does not say how images are prepared for it: {_WAY_ON}")
        try:
            self.classes = [str(name) for name in json.loads(known["classes"])]
            channels, height, width = map(int, json.loads(known["input_shape"]))
            raw = bool(json.loads(known["with_preprocessing"]))
            self._preprocessing = Preprocessing(
                input_size=height if height == width else None,
                mean=tuple(map(float, json.loads(known["mean"]))),
                std=tuple(map(float, json.loads(known["std"]))),
                antialias=bool(json.loads(known["antialias"])),
                normalize=bool(json.loads(known["normalize"])),
                # Files made before it was recorded are of an image folder, mostly.
                image_size=int(json.loads(known.get("image_size", str(height)))),
                resize=_RESIZE[known.get("resize", "crop")],
            )
        except (KeyError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
            raise BenchError(
                f"{path} does not say rightly how images are prepared for it ({error}): {_WAY_ON}"
            ) from None
        self.input_shape = (channels, height, width)
        self._input = None if raw else image_input(path, proto.graph, (height, width))
        self._session = open_session(path, threads=1)

    def preprocess(self, images: Tensor) -> Tensor:
        """Turn uint8 images N×C×H×W into what the file takes."""
        if self._input is None:
            return images.permute(0, 2, 3, 1)
        return torch.from_numpy(self._input.feed(images, self._preprocessing))

    def model(self, images: Tensor) -> Tensor:
        """Return the file's logits, float32, N×classes."""
        return torch.from_numpy(logits_of(self._session, images.numpy(), len(images)))
