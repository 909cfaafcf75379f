"""int8 by ONNX Runtime's static quantiser: Q/DQ pairs, int8 weights per channel."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from bench.export.graph import INPUT, silence
from bench.system.environment import processor

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from bench.export.settings import Settings

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
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
    """Whether int8 products can saturate here: x86 without VNNI adds them in 16 bits.

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
    """

    def __init__(
        self, file: Path, folder: Path, images: npt.NDArray[np.float32], settings: Settings
    ) -> None:
        self.tools = runtime_tool("onnxruntime.quantization")
        self.settings = settings
        self.images = images
        self.prepared = folder / "prepared.onnx"
        self.ranges = folder / "ranges.json"
        with silence():
            # The graph is folded already; the tool's own optimiser would rename its nodes.
            self.tools.quant_pre_process(
                file, self.prepared, skip_optimization=True, skip_symbolic_shape=True
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
        tools = self.tools
        methods = {
            "minmax": tools.CalibrationMethod.MinMax,
            "entropy": tools.CalibrationMethod.Entropy,
            "percentile": tools.CalibrationMethod.Percentile,
        }
        with silence():
            tools.quantize_static(
                self.prepared,
                path,
                None if self.ranges.exists() else _reader(self.images, self.settings),
                quant_format=tools.QuantFormat.QDQ,
                per_channel=True,
                calibrate_method=methods[self.settings.calibration_method],
                nodes_to_quantize=list(only) if only is not None else None,
                nodes_to_exclude=list(keep),
                calibration_cache_path=self.ranges,
                **self._types(),
            )
        return path

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


def _reader(images: npt.NDArray[np.float32], settings: Settings) -> Any:
    """Feed whole batches of calibration images, one after the other."""
    reader = runtime_tool("onnxruntime.quantization").CalibrationDataReader
    step = settings.calibration_batch
    starts = range(0, len(images) - step + 1, step)
    batches = iter([{INPUT: images[start : start + step]} for start in starts])

    class Reader(reader):  # type: ignore[misc, valid-type]  # untyped
        def get_next(self) -> Any:
            return next(batches, None)

    return Reader()
