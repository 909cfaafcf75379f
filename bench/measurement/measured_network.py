"""What is measured: a model by name, a finished run, or a file."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import BenchError
from bench.models import ModelError, build_model, canonical, default_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from bench.networks.memory_traffic import Traffic
    from bench.store import Store
    from bench.targets.network import Source

Kind = Literal["model", "run", "onnx", "engine"]
DEFAULT_TARGET = "resnet18"


@dataclass(frozen=True)
class Target:
    """A network to measure; small enough to be sent to another process, which loads it there.

    Attributes:
        label: as it was named.
        kind: where its weights come from: a fixed seed, a run, or a file.
        input_shape: channels, height, width.
        macs: multiply-adds of one image.
        traffic: what the layers that do them read and write; None where it cannot be told.
        model: canonical name; None for a file that does not tell.
        options: canonical options of the model.
        run: id of the run.
        results: the results folder the run is in.
        file: the file.
        file_precision: precision of the file's weights: fp32, fp16 or int8.
        static_batch: the one batch size the file takes; None for any.
        test_accuracy: of the run in fp32 PyTorch, or of exactly this file; None if unknown.
    """

    label: str
    kind: Kind
    input_shape: tuple[int, int, int]
    macs: int | None
    traffic: Traffic | None = None
    model: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    run: str | None = None
    results: str = "bench-runs"
    file: Path | None = None
    file_sha256: str | None = None
    file_precision: str | None = None
    static_batch: int | None = None
    test_accuracy: float | None = None

    def source(self) -> Source:
        """Load or build the network."""
        from bench.targets.network import Source

        if self.kind == "run":
            from bench.targets.trained_run import load_trained

            trained = load_trained(str(self.run), results=self.results)
            request = trained.request
            weights = trained.record.files["model.safetensors"]
            return Source(
                self.label, trained.model, request.model, dict(request.options),
                trained.input_shape, trained, weights,
            )  # fmt: skip
        if self.model is None:
            raise BenchError(f"{self.label} is a file and has no torch network")
        import torch

        torch.manual_seed(0)  # the same weights in every lane and every process
        network = build_model(self.model, **self.options).eval()
        return Source(self.label, network, self.model, self.options, self.input_shape)

    def module(self) -> nn.Module:
        """Return the network in evaluation mode on the CPU, a copy of its own each time."""
        return self.source().model

    def preprocess(self) -> Callable[[Tensor], Tensor]:
        """Return what turns uint8 images N×C×H×W into the network's input, on the CPU."""
        if self.kind == "run":
            return self.source().prepare
        return lambda images: images.float() / 255


def find_targets(
    names: Sequence[str],
    *,
    results: str | Path = "bench-runs",
    options: dict[str, Any] | None = None,
    input_size: int | None = None,
) -> list[Target]:
    """Find what each name names, as `find_target` does; a study stands for its networks.

    Of a study each variant is measured once, by the finished run of its lowest random seed: seeds
    differ in accuracy, not in speed.

    Raises:
        BenchError: nothing is called so, it cannot be measured, or no run of a study is finished.
    """
    found = [part for name in dict.fromkeys(names) for part in _of_study(name, Path(results))]
    return [
        find_target(name, results=results, options=options, input_size=input_size)
        for name in dict.fromkeys(found)
    ]


def _of_study(name: str, results: Path) -> list[str]:
    """Return one finished run for each variant of a study, or the name if none is called so."""
    from bench.store import Store

    store = Store(results)
    study = store.read_study(name) if _is_plain(name) and not _is_model(name) else None
    if study is None or store.folder(name).is_dir():
        return [name]
    runs = []
    for entry in study.variants.values():
        by_seed = sorted(entry["runs"].items(), key=lambda item: int(item[0]))
        finished = (run for _, run in by_seed if _is_complete(store, run))
        runs += list(itertools.islice(finished, 1))
    if not runs:
        raise BenchError(
            f"study '{name}' has no finished run to measure; "
            f"'bench run-ablation {name}' trains them"
        )
    return runs


def _is_complete(store: Store, run: str) -> bool:
    record = store.read_run(run)
    return record is not None and record.status == "complete"


def _is_plain(name: str) -> bool:
    """Whether it may name something in the results folder, and is no path or foreign model."""
    return not set(name) & set("/\\:")


def _is_model(name: str) -> bool:
    try:
        canonical(name)
    except ModelError:
        return False
    return True


def find_target(
    name: str,
    *,
    results: str | Path = "bench-runs",
    options: dict[str, Any] | None = None,
    input_size: int | None = None,
) -> Target:
    """Find what *name* names: an .onnx file, a run (id, beginning of one, folder), a model.

    Args:
        name: what the person gave.
        results: where runs are looked for.
        options: options of a model.
        input_size: side in pixels; the family's, the run's or the file's own without.

    Raises:
        BenchError: nothing is called so, or it cannot be measured.
    """
    if name.endswith((".onnx", ".engine")):
        return _from_file(Path(name), Path(results), input_size)
    if _names_a_run(name, Path(results)):
        return _from_run(name, str(results), input_size)
    try:
        own_name, own_options = canonical(name, options)
    except ModelError as error:
        if ":" in name or options:
            raise
        raise BenchError(
            f"no model, run or file '{name}': 'bench list models' and 'bench results ls' list "
            f"them, files end in .onnx ({error})"
        ) from None
    channels, size, _ = default_shape(own_name, own_options)
    shape = (channels, input_size or size, input_size or size)
    return Target(
        label=" ".join([name, *(f"{k}={v}" for k, v in (options or {}).items())]),
        kind="model",
        input_shape=shape,
        **_costs(build_model(own_name, **own_options).eval(), shape),
        model=own_name,
        options=own_options,
        results=str(results),
    )


def _names_a_run(name: str, results: Path) -> bool:
    path = Path(name)
    if path.parent.name == "runs" and path.is_dir():
        return True
    if not _is_plain(name) or not (results / "runs").is_dir():
        return False
    from bench.store import Store

    if _is_model(name):
        return False
    try:
        Store(results).find_run(name)
    except BenchError as error:
        return "fits" in str(error)  # ambiguous: `_from_run` says so
    return True


def _from_run(name: str, results: str, input_size: int | None) -> Target:
    from bench.targets.trained_run import load_trained

    path = Path(name)
    if path.parent.name == "runs":
        results, name = str(path.resolve().parent.parent), path.name
    trained = load_trained(name, results=results)
    shape = trained.input_shape
    if input_size is not None and input_size != shape[-1]:
        raise BenchError(
            f"--input-size {input_size}: run {trained.record.run} was trained at {shape[-1]}"
        )
    timing_only = trained.record.result.get("timing_only")
    return Target(
        label=trained.record.run,
        kind="run",
        input_shape=shape,
        **_costs(trained.model, shape),
        model=trained.request.model,
        options=dict(trained.request.options),
        run=trained.record.run,
        results=results,
        test_accuracy=None if timing_only else trained.record.result.get("test_accuracy"),
    )


def _from_file(path: Path, results: Path, input_size: int | None) -> Target:
    from bench.measurement.onnx_file import examine
    from bench.store.exports import Exports
    from bench.store.files import sha256_of

    if path.suffix == ".engine":
        return _from_engine(path, results, input_size)
    found = examine(path)
    size = found.input_shape[-1]
    if input_size is not None and input_size != size:
        raise BenchError(f"--input-size {input_size}: {path} was made for {size}")
    digest = sha256_of(path)
    export = Exports(results).named(digest)
    row = export.row if export else {}
    return Target(
        label=path.name,
        kind="onnx",
        input_shape=found.input_shape,
        macs=found.macs,
        traffic=found.traffic,
        model=row.get("model"),
        run=row.get("run"),
        results=str(results),
        file=path,
        file_sha256=digest,
        file_precision=found.precision,
        static_batch=found.static_batch,
        test_accuracy=row.get("test_accuracy"),
    )


def _from_engine(path: Path, results: Path, input_size: int | None) -> Target:
    import torch

    from bench.export.engines import read_sidecar
    from bench.measurement.backends.tensorrt import engine_input
    from bench.store.exports import Exports

    sidecar = read_sidecar(path)
    if not torch.cuda.is_available():
        raise BenchError(
            f"{path}: an engine needs a CUDA device, and torch finds none; measure the .onnx "
            "file it was built from"
        )
    shape = engine_input(path)
    if input_size is not None and input_size != shape[-1]:
        raise BenchError(f"--input-size {input_size}: {path} was made for {shape[-1]}")
    export = Exports(results).named(sidecar["engine_sha256"])
    row = export.row if export else {}
    low, high = sidecar["min_batch"], sidecar["max_batch"]
    return Target(
        label=path.name,
        kind="engine",
        input_shape=shape,
        macs=_macs_of_source(sidecar["onnx_sha256"], results),
        model=row.get("model"),
        run=row.get("run"),
        results=str(results),
        file=path,
        file_sha256=sidecar["engine_sha256"],
        file_precision=sidecar["precision"],
        static_batch=low if low == high else None,
        test_accuracy=row.get("test_accuracy"),
    )


def _macs_of_source(sha256: str, results: Path) -> int | None:
    """Count those of the ONNX file that an engine was built from; None if it is not here."""
    from bench.measurement.onnx_file import examine
    from bench.store.exports import Exports

    exports = Exports(results)
    record = exports.named(sha256)
    try:
        return examine(exports.file(record)).macs if record else None
    except BenchError:  # gone or damaged: nothing is known
        return None


def _costs(model: nn.Module, shape: tuple[int, int, int]) -> dict[str, Any]:
    from bench.networks.memory_traffic import count_traffic
    from bench.networks.summary import count_macs

    return {"macs": count_macs(model, (1, *shape)), "traffic": count_traffic(model, shape)}
