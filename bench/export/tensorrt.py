"""TensorRT's Python API, as narrow as building an engine needs it.

`tensorrt_rtx` (TensorRT for RTX) builds ahead of time without a GPU; `tensorrt`, the
classic library, builds for the GPU it finds. Both are imported only when they are used.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

from bench.errors import BenchError
from bench.export.preprocess import resizes_images
from bench.store.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.export.settings import Flavor

MODULES = {"rtx": "tensorrt_rtx", "standard": "tensorrt"}
_RTX_MISSING = (
    "--flavor rtx needs the package tensorrt-rtx: pip install tensorrt-rtx (Linux and Windows "
    "on x86-64; no GPU is needed to build an engine)"
)
_STANDARD_MISSING = (
    "--flavor standard needs the package tensorrt and an NVIDIA GPU: on a Linux or Windows "
    "machine with one, pip install tensorrt --extra-index-url https://pypi.nvidia.com; "
    "without one use --flavor rtx"
)


class BuildError(BenchError):
    """TensorRT was asked to build an engine, and failed."""


@dataclass(frozen=True)
class Profile:
    """The batch sizes an engine takes, and the one it is tuned for."""

    minimum: int = 1
    optimum: int = 32
    maximum: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            raise BenchError(
                f"--min-batch {self.minimum} --opt-batch {self.optimum} --max-batch "
                f"{self.maximum}: they must be at least 1 and in this order"
            )


class Toolkit:
    """One flavour of TensorRT.

    Args:
        flavor: rtx or standard.
        load: imports a module by name.

    Raises:
        BenchError: the library is not installed, saying how it can be.
    """

    def __init__(
        self, flavor: Flavor, load: Callable[[str], Any] = importlib.import_module
    ) -> None:
        self.flavor = flavor
        try:
            self.library = load(MODULES[flavor])
        except (ImportError, OSError) as error:
            missing = _RTX_MISSING if flavor == "rtx" else _STANDARD_MISSING
            raise BenchError(f"{missing} ({error})") from None
        self.messages: list[str] = []

    @property
    def version(self) -> str:
        """The library's version."""
        return str(self.library.__version__)

    def capabilities(self) -> list[str]:
        """Compute capabilities that engines can be built for ahead of time."""
        names = [n for n in dir(self.library.ComputeCapability) if n.startswith("SM")]
        return sorted((n.removeprefix("SM") for n in names), key=int)

    def build(
        self,
        model: Path,
        profile: Profile,
        *,
        image: Sequence[int] | None = None,
        capability: str | None = None,
        timing_cache: Path | None = None,
    ) -> bytes:
        """Build an engine.

        The network is strongly typed: its precision is that of the graph's types and Q/DQ pairs
        (version 11 removed the builder flags, and version 10 works the same way without them).

        Args:
            model: a valid ONNX file.
            profile: batch sizes, for a file of any batch size.
            image: sizes of an image, for a file that leaves some open.
            capability: such as 86 (default: the GPU of this machine).
            timing_cache: file of kernel timings, which the standard flavour reuses.

        Raises:
            BuildError: the library refuses the file, or fails.
            BenchError: it cannot start here, or build that precision for the target.
        """
        library = self.library
        logger = self._logger()
        builder = self._builder(logger)
        typed = 1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(typed)
        parser = library.OnnxParser(network, logger)
        if not parser.parse_from_file(str(model)):
            raise self._refused(model, self._parser_reason(parser))
        config = builder.create_builder_config()
        config.clear_flag(library.BuilderFlag.TF32)  # on by default: fp32 would not be fp32
        if capability is not None:
            config.num_compute_capabilities = 1
            known = getattr(library.ComputeCapability, f"SM{capability}")
            config.set_compute_capability(known, 0)
        self._add_profile(builder, network, config, profile, image)
        cache = timing_cache if self.flavor == "standard" else None
        if cache is not None:
            timings = config.create_timing_cache(cache.read_bytes() if cache.is_file() else b"")
            if not config.set_timing_cache(timings, ignore_mismatch=False):  # of another GPU
                config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise self._refused(model, self.messages[0] if self.messages else "no engine")
        if cache is not None:
            write_atomically(cache, bytes(config.get_timing_cache().serialize()))
        return bytes(engine)

    def _builder(self, logger: Any) -> Any:
        try:
            return self.library.Builder(logger)
        except Exception as error:  # without a GPU its bindings raise exceptions of various kinds
            reason = self.messages[0] if self.messages else str(error).strip().split("\n")[0]
            if self.flavor == "standard":
                raise BenchError(
                    f"--flavor standard finds no usable NVIDIA GPU here ({reason[:120]}): build "
                    "on the machine where the engine will run, or use --flavor rtx"
                ) from None
            raise BenchError(f"TensorRT RTX cannot start here: {reason[:160]}") from None

    def _add_profile(
        self,
        builder: Any,
        network: Any,
        config: Any,
        profile: Profile,
        image: Sequence[int] | None,
    ) -> None:
        """Set the batch sizes and the size of images; a file of one of both needs no profile."""
        entry = network.get_input(0)
        batch, *sides = entry.shape
        if -1 not in entry.shape:
            return
        made = builder.create_optimization_profile()
        sizes = (profile.minimum, profile.optimum, profile.maximum) if batch == -1 else (batch,) * 3
        made.set_shape(entry.name, *((size, *(image or sides)) for size in sizes))
        config.add_optimization_profile(made)

    def _parser_reason(self, parser: Any) -> str:
        if not parser.num_errors:
            return self.messages[0] if self.messages else "no reason given"
        error = parser.get_error(0)
        node = f"node {error.node_name()}: " if hasattr(error, "node_name") else ""
        return f"{node}{error.desc()}"

    def _refused(self, model: Path, reason: str) -> BenchError:
        first = reason.strip().split("\n")[0][:200]
        if resizes_images(onnx.load(str(model), load_external_data=False)):
            return BuildError(
                f"TensorRT ({self.flavor}) refuses {model}: {first}; it has no double precision, "
                "in which the file resizes its images: export it again without "
                "--with-preprocessing, and prepare them as the properties of that file say"
            )
        kind: type[BenchError] = BuildError
        advice = "export it again with bench export-onnx"
        if "Int32" in first or "UInt8" in reason or "Quantize" in reason:
            advice += " --precision int8 --target tensorrt"
        elif "Turing" in reason and "FP32" in reason:
            advice += " --precision fp16, or choose a compute capability of 80 or more"
            kind = BenchError
        return kind(f"TensorRT ({self.flavor}) refuses {model}: {first}; {advice}")

    def _logger(self) -> Any:
        """Keep the library's messages instead of printing them."""
        library, messages = self.library, self.messages
        messages.clear()

        class Logger(library.ILogger):  # type: ignore[misc, name-defined]  # known at run time
            def __init__(self) -> None:
                library.ILogger.__init__(self)

            def log(self, severity: Any, text: str) -> None:
                if severity in {library.ILogger.ERROR, library.ILogger.INTERNAL_ERROR}:
                    messages.append(text)

        return Logger()
