"""From networks and ONNX files to TensorRT engines: what `bench export-tensorrt` does."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import BenchError, nearest
from bench.export.engines import SUFFIX, Sidecar, why_rebuild, write_engine
from bench.export.examine import open_shape, opset_of, static_batch_of
from bench.export.export_targets import find_exportable
from bench.export.files import load, onnx_sha256, precision_of
from bench.export.foreign import quantise_file, read_foreign
from bench.export.metadata import environment
from bench.export.output import check_copies, readable_name
from bench.export.pipeline import FILE as ONNX
from bench.export.pipeline import Exporter, Say
from bench.export.settings import Flavor, Precision, Settings
from bench.export.tensorrt import BuildError, Profile, Toolkit
from bench.store.exports import ExportRecord, Exports
from bench.store.files import StorageError, prove_writable, sha256_of, storage_errors
from bench.system.devices import default_threads
from bench.targets.find import sides_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.export.examine import Size
    from bench.targets.find import InputSize
    from bench.targets.network import NamedNetwork

ENGINE = "model" + SUFFIX


@dataclass(frozen=True)
class OnnxInput:
    """An ONNX file to build engines from.

    Attributes:
        name: for people and file names.
        file: its path.
        sha256: of the file and its external data.
        precision: of its arithmetic: fp32, fp16, bf16 or int8.
        row: the columns of the `exports` table that its engines share with it.
        image: sizes of an image, if the file leaves some open.
        static_batch: the one batch size the file takes; None for any.
    """

    name: str
    file: Path
    sha256: str
    precision: str
    row: dict[str, Any]
    image: tuple[int, ...] | None = None
    static_batch: int | None = None


@dataclass(frozen=True)
class EngineBuilder:
    """Builds engines into a results folder.

    Attributes:
        toolkit: the flavour of TensorRT.
        exports: where engines are recorded.
        profile: batch sizes.
        say: called with what is being done, and why an engine is built again.
    """

    toolkit: Toolkit
    exports: Exports
    profile: Profile
    say: Say = lambda _text: None

    def build(self, model: OnnxInput, capability: str | None) -> ExportRecord:
        """Build an engine, or return one whose sidecar would be the same.

        Raises:
            BenchError: as of `Toolkit.build`.
            StorageError: the results folder cannot be written.
        """
        sidecar = self._sidecar(model, capability)
        label = f"{model.name} for {sidecar.compute_capability}"
        identity = {
            "format": "engine",
            "name": model.name,
            "flavor": sidecar.flavor,
            "compute_capability": sidecar.compute_capability,
            "precision": sidecar.precision,
        }
        reasons = []
        for record in self.exports.records():
            if record.request == identity:
                reason = why_rebuild(self.exports.file(record), sidecar)
                if reason is None:
                    self.say(f"{label}: built already, {record.export[:12]}")
                    return record
                reasons.append(reason)
        if reasons:
            self.say(f"{label}: building again, since {min(reasons, key=len)}")
        return self._build(model, sidecar, capability, identity)

    def _build(
        self, model: OnnxInput, sidecar: Sidecar, capability: str | None, identity: dict[str, Any]
    ) -> ExportRecord:
        begun = time.monotonic()
        cache = self.exports.root.parent / "timing-caches" / f"{self.toolkit.version}.cache"
        engine = self.toolkit.build(
            model.file, self.profile, image=model.image, capability=capability, timing_cache=cache
        )
        seconds = time.monotonic() - begun
        with self.exports.workspace() as folder:
            write_engine(folder / ENGINE, engine, sidecar)
            sha256, here = sha256_of(folder / ENGINE), environment(1)
            row = {
                **model.row,
                "export": sha256,
                "format": f"tensorrt-{sidecar.flavor}",
                "precision": sidecar.precision,
                "target": f"sm{sidecar.compute_capability}",
                "file": ENGINE,
                "sha256": sha256,
                "bytes": len(engine),
                "seconds": seconds,
                "cpu": f"{here['cpu']} ({' '.join(here['instruction_sets'])})",
                # It was not run, so there are no logits and no accuracy.
                "status": "unverified",
            }
            record = ExportRecord(
                export=sha256,
                request=identity,
                row=row,
                proof={"sidecar": sidecar.as_dict(), "note": "built, not run"},
                environment=here,
                created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            )
            return self.exports.publish(folder, record)

    def _sidecar(self, model: OnnxInput, capability: str | None) -> Sidecar:
        profile, only = self.profile, model.static_batch
        if only is not None:
            profile = Profile(only, only, only)
        return Sidecar(
            onnx_sha256=model.sha256,
            tensorrt=self.toolkit.version,
            flavor=self.toolkit.flavor,
            compute_capability=capability or _this_gpu(),
            min_batch=profile.minimum,
            opt_batch=profile.optimum,
            max_batch=profile.maximum,
            precision=model.precision,
            image=model.image,
        )


def build_engines(
    targets: str | Path | Sequence[str | Path],
    *,
    flavor: Flavor,
    precision: Precision,
    dataset: str | None,
    preprocessing: dict[str, Any] | None,
    compute_capabilities: Sequence[str],
    profile: Profile | None,
    results: str | Path,
    options: dict[str, Any] | None,
    input_size: InputSize | None,
    output: str | Path | None,
    force: bool,
    threads: int | None,
    say: Say,
    toolkit: Callable[[Flavor], Toolkit] | None = None,
) -> list[dict[str, Any]]:
    """Build TensorRT engines; the arguments are those of `bench.api.export_tensorrt`.

    Returns:
        Rows of the `exports` table.

    Raises:
        BenchError: a target cannot be understood or met, the library is missing, or it supports
            none of the targets.
    """
    library = (toolkit or Toolkit)(flavor)
    chosen = _capabilities(library, compute_capabilities)
    if output is not None:
        prove_writable(Path(output), "--output")
    exports = Exports(results)
    settings = Settings(precision=precision, target="tensorrt", dataset=dataset)
    exporter = Exporter(exports, settings, threads or default_threads(), force, say)
    builder = EngineBuilder(library, exports, profile or Profile(), say)
    rows = []
    found = find_exportable(targets, results, options, input_size)
    size = sides_of(input_size)
    files = {one.file: from_file(one.file, size) for one in found if one.file is not None}
    for file in files.values():
        _check_batch(file, builder.profile)
    if preprocessing and (not files or precision != "int8"):
        raise BenchError(
            "--set goes with .onnx files and --precision int8, which is calibrated on images: "
            "leave it out"
        )
    if output is not None:
        check_copies((one, _copied_as(one, files, precision)) for one in found)
    for model in _inputs(found, files, exporter, size, preprocessing or {}):
        for capability in chosen:
            record = _built(builder, model, capability)
            if isinstance(record, ExportRecord) and output is not None:
                _copy(Path(output), model.name, record, exports)
            rows.append(record.row if isinstance(record, ExportRecord) else record)
    if rows and all(row["status"] == "unsupported" for row in rows):
        raise BenchError(rows[0]["error"])
    return rows


def _built(
    builder: EngineBuilder, model: OnnxInput, capability: str | None
) -> ExportRecord | dict[str, Any]:
    """Build one engine; return a row with the reason if the library fails, or cannot here."""
    try:
        return builder.build(model, capability)
    except StorageError:
        raise
    except BenchError as error:
        return {
            **model.row,
            "format": f"tensorrt-{builder.toolkit.flavor}",
            "precision": model.precision,
            "target": f"sm{capability or _this_gpu()}",
            "status": "failed" if isinstance(error, BuildError) else "unsupported",
            "error": str(error),
        }


def _copied_as(network: NamedNetwork, files: dict[Path, OnnxInput], precision: Precision) -> str:
    """Return the beginning of the name that a network's engines are copied under."""
    if network.file is None:
        return readable_name(network.file_name, precision)
    made = files[network.file]
    return readable_name(made.name, "int8" if precision == "int8" else made.precision)


def _inputs(
    found: list[NamedNetwork],
    files: dict[Path, OnnxInput],
    exporter: Exporter,
    size: Size | None,
    preprocessing: dict[str, Any],
) -> Iterator[OnnxInput]:
    """Yield the ONNX files of the targets, exporting networks first."""
    for network in sorted(found, key=lambda network: network.file is None):  # files first
        if network.file is not None:
            model = files[network.file]
            if exporter.settings.precision == "int8" and model.precision != "int8":
                source = read_foreign(network.file, exporter.settings, size, preprocessing)
                record = _accepted(network, quantise_file(source, exporter))
                made = _exported(model.name, record, exporter)
                model = replace(made, image=model.image, static_batch=model.static_batch)
            yield model
            continue
        if network.error is not None:
            exporter.say(f"{network.error}: passed over")
            continue
        loaded = network.load()
        record = _accepted(network, exporter.export(loaded))
        yield _exported(loaded.name, record, exporter)


def _accepted(network: NamedNetwork, record: ExportRecord) -> ExportRecord:
    """Return the record of an ONNX file that was not rejected.

    Raises:
        BenchError: it was.
    """
    if record.row["status"] != "complete":
        reason = record.row["error"]
        raise BenchError(f"{network.label} is not built: its ONNX file was rejected: {reason}")
    return record


def _exported(name: str, record: ExportRecord, exporter: Exporter) -> OnnxInput:
    row = {key: record.row.get(key) for key in ("run", "model", "opset", "calibration")}
    file = exporter.exports.file(record)
    return OnnxInput(name, file, record.export, record.row["precision"], row)


def from_file(path: Path, size: Size | None = None) -> OnnxInput:
    """Read a user's file, which takes images of *size* (height, width) if it takes any."""
    proto = load(path)
    known = {entry.key: entry.value for entry in proto.metadata_props}
    row = {
        "run": known.get("run"),
        "model": known.get("model", path.stem),
        "opset": opset_of(proto) or None,
    }
    name = path.stem if path.name != ONNX else f"{row['run'] or row['model']}"
    image = open_shape(path, proto.graph, size)
    precision, batch = precision_of(proto.graph), static_batch_of(proto.graph)
    return OnnxInput(name, path, onnx_sha256(path), precision, row, image, batch)


def _check_batch(model: OnnxInput, profile: Profile) -> None:
    """Refuse batch sizes for a file that takes only one."""
    only = model.static_batch
    if only is not None and profile not in {Profile(), Profile(only, only, only)}:
        raise BenchError(
            f"{model.file} takes batches of {only} only: leave out --min-batch, --opt-batch and "
            "--max-batch, or export it for batches of any size"
        )


def _capabilities(library: Toolkit, requested: Sequence[str]) -> list[str | None]:
    if library.flavor == "standard":
        if requested:
            raise BenchError(
                "--compute-capability goes with --flavor rtx: the standard flavor builds for "
                "the GPU of the machine it runs on"
            )
        return [None]
    known = library.capabilities()
    wanted = [str(a).replace(".", "").lower().removeprefix("sm") for a in requested]
    for capability in wanted:
        if capability not in known:
            raise BenchError(
                f"--compute-capability {capability}: TensorRT RTX {library.version} cannot "
                f"target it{nearest(capability, known)} (it can: {', '.join(known)})"
            )
    here = _this_gpu()
    if not wanted and here not in {*known, "none"}:
        raise BenchError(
            f"TensorRT RTX {library.version} cannot target this GPU, of compute capability {here} "
            f"(it can: {', '.join(known)}): use --flavor standard, or name another GPU's "
            "--compute-capability"
        )
    return list(dict.fromkeys(wanted)) or ([here] if here in known else list(known))


def _this_gpu() -> str:
    if not torch.cuda.is_available():
        return "none"
    return "".join(map(str, torch.cuda.get_device_capability()))


def _copy(folder: Path, name: str, record: ExportRecord, exports: Exports) -> None:
    """Copy an engine and its sidecar under readable names."""
    copy = readable_name(name, record.row["precision"], record.row["target"]) + SUFFIX
    with storage_errors(folder):
        content = exports.file(record).read_bytes()
    write_engine(folder / copy, content, Sidecar(**record.proof["sidecar"]))
