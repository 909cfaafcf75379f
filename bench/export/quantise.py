"""int8 by ONNX Runtime's static quantiser: Q/DQ pairs, int8 weights per channel."""

from __future__ import annotations

import importlib
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from bench.export.graph import silence
from bench.export.settings import CALIBRATION_BATCH
from bench.system.environment import processor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

    from bench.export.settings import Settings

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
HISTOGRAM_BATCH = 8  # images whose activations are in memory at once
_METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
_VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}


def runtime_tool(module: str) -> Any:
    """Import a module of ONNX Runtime's tools.

    They import one another from their own folder, which has to be on the path. It holds a
    `models`, which would hide the user's own, so it is removed from the path again.
    """
    spec = find_spec("onnxruntime")
    assert spec is not None  # noqa: S101 - a dependency of this package
    assert spec.origin is not None  # noqa: S101
    path = list(sys.path)
    sys.path.append(str(Path(spec.origin).parent / "transformers"))
    try:
        return importlib.import_module(module)
    finally:
        sys.path[:] = path


def saturates() -> bool:
    """Return whether int8 products can saturate here: x86 without VNNI adds them in 16 bits.

    Weights are then kept to 7 bits (microsoft/onnxruntime#12072, #14642).
    """
    sets = set(processor()[1])
    return "avx2" in sets and not sets & _VNNI


class Quantiser:
    """Quantises all or some layers of one fp32 file; ranges are calibrated once.

    Args:
        file: the fp32 file.
        folder: for intermediate files.
        images: calibration images, as the file takes them.
        settings: method, target and batch.
        optimize: let the tool fold constants and normalisations first, renaming nodes.
    """

    def __init__(
        self,
        file: Path,
        folder: Path,
        images: npt.NDArray[Any],
        settings: Settings,
        optimize: bool = False,
    ) -> None:
        self.tools = runtime_tool("onnxruntime.quantization")
        self.settings = settings
        self.images = images
        graph = onnx.load(str(file), load_external_data=False).graph
        self.input = graph.input[0].name
        self.prepared = folder / "prepared.onnx"
        self.ranges = folder / "ranges.json"
        with silence():
            self.tools.quant_pre_process(
                file, self.prepared, skip_optimization=not optimize, skip_symbolic_shape=True
            )

    @property
    def layers(self) -> list[str]:
        """Names of the convolutions and linear layers, in order of the graph."""
        graph = onnx.load(str(self.prepared), load_external_data=False).graph
        return [node.name for node in graph.node if node.op_type in LAYERS]

    def write(
        self, path: Path, *, only: Sequence[str] | None = None, keep: Sequence[str] = ()
    ) -> Path:
        """Write a file with all layers quantised, or *only* some, and those in *keep* in fp32."""
        method = getattr(self.tools.CalibrationMethod, _METHODS[self.settings.calibration_method])
        with silence():
            if method != self.tools.CalibrationMethod.MinMax and not self.ranges.exists():
                self._calibrate_histograms(method)
            self.tools.quantize_static(
                self.prepared,
                path,
                None if self.ranges.exists() else _reader(self._batches(CALIBRATION_BATCH)),
                quant_format=self.tools.QuantFormat.QDQ,
                per_channel=True,
                calibrate_method=method,
                nodes_to_quantize=list(only) if only is not None else None,
                nodes_to_exclude=list(keep),
                calibration_cache_path=self.ranges,
                **self._types(),
            )
        return path

    def _calibrate_histograms(self, method: Any) -> None:
        """Write the ranges that ONNX Runtime's calibrator finds, within bounded memory.

        It would keep the activations of all images. Given them in parts, it would choose the bins
        by the first part and widen them later, which changes the result: entropy chooses among
        the added bins only. So the range of each histogram is found in a first pass.
        """
        tools = runtime_tool("onnxruntime.quantization.calibrate")
        registry = runtime_tool("onnxruntime.quantization.registry")
        operators = sorted({*registry.QLinearOpsRegistry, *registry.QDQRegistry})
        with TemporaryDirectory(dir=self.prepared.parent) as folder:
            calibrator = tools.create_calibrator(
                self.prepared, operators, str(Path(folder) / "augmented.onnx"), method
            )
            batches = list(self._batches(HISTOGRAM_BATCH))
            calibrator.collector = _empty_histograms(calibrator, batches)
            for batch in batches:
                calibrator.collect_data(_reader([batch]))
            tools.save_tensors_data(calibrator.compute_data(), self.ranges)

    def _batches(self, size: int) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """Yield batches of calibration images; a file of one batch size takes whole ones only."""
        step = self.settings.static_batch or size
        for start in range(0, len(self.images), step):
            batch = self.images[start : start + step]
            if len(batch) == step or self.settings.static_batch is None:
                yield {self.input: batch}

    def _types(self) -> dict[str, Any]:
        kinds = self.tools.QuantType
        if self.settings.target == "tensorrt":
            # Its parser refuses uint8 activations, zero points and int32 biases.
            symmetric = ("ActivationSymmetric", "WeightSymmetric")
            return {
                "activation_type": kinds.QInt8,
                "weight_type": kinds.QInt8,
                "reduce_range": False,
                "extra_options": {**dict.fromkeys(symmetric, True), "QuantizeBias": False},
            }
        return {
            "activation_type": kinds.QUInt8,
            "weight_type": kinds.QInt8,
            "reduce_range": saturates(),
            "extra_options": {"WeightSymmetric": True},
        }

    def describe(self) -> dict[str, Any]:
        """Return the choices that were made, as JSON values."""
        types = self._types()
        return {
            "activations": types["activation_type"].name,
            "weights": f"{types['weight_type'].name} per channel",
            "reduce_range": types["reduce_range"],
            "method": self.settings.calibration_method,
            "images": len(self.images),
            "seed": self.settings.calibration_seed,
        }


def _empty_histograms(calibrator: Any, batches: Sequence[dict[str, npt.NDArray[Any]]]) -> Any:
    """Return a collector whose histograms have the range of all batches, and no counts yet."""
    absolute = calibrator.method == "percentile" and calibrator.symmetric
    session = calibrator.infer_session
    found: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    names = [output.name for output in session.get_outputs()]
    for batch in batches:
        for name, values in zip(names, session.run(None, batch), strict=True):
            if name in calibrator.tensors_to_calibrate and values.size:
                sizes = np.abs(values)
                found[name].append((values.min(), values.max(), sizes.min(), sizes.max()))
    collector = runtime_tool("onnxruntime.quantization.calibrate").HistogramCollector(
        calibrator.method, calibrator.symmetric, calibrator.num_bins,
        calibrator.num_quantized_bins, calibrator.percentile, calibrator.scenario,
    )  # fmt: skip
    for name, ranges in found.items():
        lows, highs, leasts, mosts = zip(*ranges, strict=True)
        most = max(mosts)
        start = min(leasts) if absolute else -most
        counts, edges = np.histogram(
            np.empty(0, most.dtype), collector.num_bins, range=(start, most)
        )
        edges = edges.astype(most.dtype) if absolute else edges
        known = (counts, edges, min(lows), max(highs))
        collector.histogram_dict[name] = known if absolute else (*known, most)
    return collector


def _reader(batches: Iterable[dict[str, npt.NDArray[Any]]]) -> Any:
    """Feed batches of calibration images, one after the other."""
    reader = runtime_tool("onnxruntime.quantization").CalibrationDataReader
    left = iter(batches)

    class Reader(reader):  # type: ignore[misc, valid-type]  # untyped
        def get_next(self) -> Any:
            return next(left, None)

    return Reader()
