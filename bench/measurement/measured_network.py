"""What is measured: a network that was named, with its costs and what is known of its file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import BenchError
from bench.export.engines import read_sidecar
from bench.export.examine import Size, examine, image_shape
from bench.export.files import onnx_sha256
from bench.measurement.backends.tensorrt import engine_input
from bench.networks.memory_traffic import Traffic, count_traffic
from bench.networks.summary import count_macs
from bench.store.exports import Exports
from bench.targets.find import InputSize, find_network, find_networks, sides_of
from bench.targets.network import NamedNetwork

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor


@dataclass(frozen=True)
class MeasuredNetwork(NamedNetwork):
    """A network to measure; small enough to be sent to another process, which loads it there.

    Attributes:
        input_shape: sizes of an image in the network's own order, C×H×W or H×W×C.
        raw_shape: sizes of a dataset's image before `preprocess`, of a run; None: `input_shape`.
        channels_last: whether a file takes H×W×C.
        input_type: element type of the images, such as float32 or uint8.
        macs: multiply-adds of one image; None where they cannot be counted.
        traffic: what the layers that do them read and write; None where that is unknown.
        file_sha256: of the file.
        file_precision: precision of the file's weights: fp32, fp16 or int8.
        static_batch: the one batch size the file takes; None for any.
        test_accuracy: of the run in fp32 PyTorch, or of exactly this file; None if unknown.
        calibration: images that an int8 file's ranges come from; None if unknown.
    """

    input_shape: tuple[int, int, int] = (3, 224, 224)
    raw_shape: tuple[int, int, int] | None = None
    channels_last: bool = False
    input_type: str = "float32"
    macs: int | None = None
    traffic: Traffic | None = None
    file_sha256: str | None = None
    file_precision: str | None = None
    static_batch: int | None = None
    test_accuracy: float | None = None
    calibration: str | None = None

    def preprocess(self) -> Callable[[Tensor], Tensor]:
        """Return what turns uint8 images of `raw_shape` into its input, where they are."""
        if self.kind == "run":
            return self.load().prepare
        if not self.input_type.startswith("float"):
            return lambda images: images  # it is part of the file
        return lambda images: images.float() / 255

    def is_called(self, name: str) -> bool:
        """Return whether `--reference` may name it so: as it was given, or by its run's id."""
        known = {self.name, self.label, str(self.file)}
        return name in known or (self.run is not None and self.run.startswith(name))

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.input_shape[:2] if self.channels_last else self.input_shape[1:]
        return height, width


def find_targets(
    names: Sequence[str | Path],
    *,
    results: str | Path = "bench-runs",
    options: dict[str, Any] | None = None,
    input_size: InputSize | None = None,
) -> list[MeasuredNetwork]:
    """Find what is to be measured, as `bench.targets.find.find_networks` does.

    Of a study each variant is measured once, by the finished run of its lowest random seed: seeds
    differ in accuracy, not in speed.

    Raises:
        BenchError: nothing is called so, or it cannot be measured.
    """
    found = find_networks(
        names, results=results, options=options, input_size=input_size, every_seed=False
    )
    return [_measured(network, input_size) for network in found]


def find_target(
    name: str,
    *,
    results: str | Path = "bench-runs",
    options: dict[str, Any] | None = None,
    input_size: InputSize | None = None,
) -> MeasuredNetwork:
    """Find the one network that *name* names, to measure it.

    Raises:
        BenchError: nothing or several networks are called so, or it cannot be measured.
    """
    found = find_network(name, results=results, options=options, input_size=input_size)
    return _measured(found, input_size)


def _measured(network: NamedNetwork, input_size: InputSize | None) -> MeasuredNetwork:
    """Add a network's costs, and what is known of its accuracy."""
    if network.file is not None:
        known = (_of_onnx if network.kind == "onnx" else _of_engine)(
            network.file, network.results, sides_of(input_size)
        )
        return MeasuredNetwork(**{**vars(network), **known})
    loaded = network.load()
    accuracy = raw_shape = None
    if (made := loaded.preprocessing) is not None and made.image_size is not None:
        raw_shape = (loaded.input_shape[0], made.image_size, made.image_size)
    if loaded.trained is not None and not loaded.timing_only:
        accuracy = loaded.trained.record.result.get("test_accuracy")
    return MeasuredNetwork(
        **vars(network),
        raw_shape=raw_shape,
        macs=count_macs(loaded.model, (1, *loaded.input_shape)),
        traffic=count_traffic(loaded.model, loaded.input_shape),
        test_accuracy=accuracy,
    )


def _of_onnx(path: Path, results: str, size: Size | None) -> dict[str, Any]:
    facts = dict(vars(examine(path, size)))
    digest = onnx_sha256(path)
    known = {"file_sha256": digest, "file_precision": facts.pop("precision")}
    return facts | known | _of_export(digest, results)


def _of_engine(path: Path, results: str, size: Size | None) -> dict[str, Any]:
    sidecar = read_sidecar(path)
    if not torch.cuda.is_available():
        raise BenchError(
            f"{path}: an engine needs a CUDA device, and torch finds none; measure the .onnx "
            "file it was built from"
        )
    low, high = sidecar["min_batch"], sidecar["max_batch"]
    dimensions, input_type = engine_input(path)
    shape, channels_last = image_shape(path, dimensions, size)
    return {
        "input_shape": shape,
        "channels_last": channels_last,
        "input_type": input_type,
        "macs": _macs_of_source(sidecar["onnx_sha256"], results, size),
        "file_sha256": sidecar["engine_sha256"],
        "file_precision": sidecar["precision"],
        "static_batch": low if low == high else None,
        **_of_export(sidecar["engine_sha256"], results),
    }


def _of_export(sha256: str, results: str) -> dict[str, Any]:
    """Return what the results folder knows of an exported file."""
    record, known = Exports(results).describing(sha256), {}
    if record is not None and record.row["sha256"] == sha256:
        known = record.row
    elif record is not None:  # what was quantised from it
        known = {"model": record.row["model"], "test_accuracy": record.row["torch_accuracy"]}
    return {key: known.get(key) for key in ("model", "run", "test_accuracy", "calibration")}


def _macs_of_source(sha256: str, results: str, size: Size | None) -> int | None:
    """Count the multiply-adds of the ONNX file an engine was built from; None if it is not here."""
    exports = Exports(results)
    record = exports.named(sha256)
    try:
        return examine(exports.file(record), size).macs if record else None
    except BenchError:  # gone or damaged: nothing is known
        return None
