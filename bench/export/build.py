"""From targets to TensorRT engines: what `bench export-tensorrt` does."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, nearest
from bench.export.engines import SUFFIX, Sidecar, why_rebuild, write_engine
from bench.export.foreign import OnnxInput, from_file
from bench.export.metadata import environment
from bench.export.pipeline import Exporter, Say
from bench.export.settings import Settings
from bench.export.tensorrt import Profile, Toolkit
from bench.store.exports import ExportRecord, Exports
from bench.store.files import StorageError, sha256_of, storage_errors
from bench.targets.network import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd

    from bench.export.choices import Flavor, Precision

ENGINE = "model" + SUFFIX


@dataclass(frozen=True)
class EngineBuilder:
    """Builds engines into a results folder.

    Attributes:
        toolkit: the flavour of TensorRT.
        exports: where engines are recorded.
        profile: batch sizes.
        say: told what is being done, and why an engine is built again.
    """

    toolkit: Toolkit
    exports: Exports
    profile: Profile
    say: Say = lambda _text: None

    def build(self, model: OnnxInput, capability: str | None) -> ExportRecord:
        """Build an engine, unless one that matches in every field is there.

        Raises:
            BenchError: TensorRT refuses the file or the target.
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
            model.file, self.profile, capability=capability, timing_cache=cache
        )
        seconds = time.monotonic() - begun
        with self.exports.workspace() as folder:
            write_engine(folder / ENGINE, engine, sidecar)
            sha256 = sha256_of(folder / ENGINE)
            record = ExportRecord(
                export=sha256,
                request=identity,
                row=self._row(model, sidecar, sha256, len(engine), seconds),
                proof={"sidecar": sidecar.as_dict(), "note": "built, not run: no GPU was asked"},
                environment=environment(1),
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            return self.exports.publish(folder, record)

    def _sidecar(self, model: OnnxInput, capability: str | None) -> Sidecar:
        return Sidecar(
            onnx_sha256=model.sha256,
            tensorrt=self.toolkit.version,
            flavor=self.toolkit.flavor,
            compute_capability=capability or _this_gpu(),
            min_batch=self.profile.minimum,
            opt_batch=self.profile.optimum,
            max_batch=self.profile.maximum,
            precision=model.precision,
        )

    def _row(
        self, model: OnnxInput, sidecar: Sidecar, sha256: str, size: int, seconds: float
    ) -> dict[str, Any]:
        here = environment(1)
        return {
            **model.row,
            "export": sha256,
            "format": f"tensorrt-{sidecar.flavor}",
            "precision": sidecar.precision,
            "target": f"sm{sidecar.compute_capability}",
            "file": ENGINE,
            "sha256": sha256,
            "bytes": size,
            "seconds": seconds,
            "cpu": f"{here['cpu']} ({' '.join(here['instruction_sets'])})",
            # Nothing was run: no parity and no accuracy may be claimed for it.
            "status": "unverified",
        }


def export_tensorrt(
    targets: str | Path | Sequence[str | Path] = (),
    *,
    flavor: Flavor = "rtx",
    precision: Precision = "fp32",
    compute_capabilities: Sequence[str] = (),
    profile: Profile | None = None,
    results: str | Path = "bench-runs",
    options: dict[str, Any] | None = None,
    input_size: int | None = None,
    output: str | Path | None = None,
    force: bool = False,
    threads: int | None = None,
    say: Say = lambda _text: None,
    toolkit: Callable[[Flavor], Toolkit] = Toolkit,
) -> pd.DataFrame:
    """Build TensorRT engines, each with a sidecar that says what it fits.

    Args:
        targets: runs, studies, models, or `.onnx` files; without any as in `export_onnx`.
        flavor: rtx (ahead of time, no GPU needed) or standard.
        precision: of runs and models, which are exported first if they are not yet;
            int8 for TensorRT. A file's own is in its graph.
        compute_capabilities: such as 86 (rtx); this machine's GPU, or without one all that
            the library can target.
        profile: batch sizes of files that take any.
        results: the results folder; engines go to its `exports/SHA/`.
        options: options of a model that is named.
        input_size: side in pixels for a model that is named.
        output: a folder that engines and sidecars are copied to.
        force: export ONNX files again.
        threads: CPU threads.
        say: told what is being done.
        toolkit: makes the library's narrow interface.

    Returns:
        Rows of the `exports` table; `status` is unverified, because nothing has run the
        engine yet, or unsupported, if the library cannot build it for that target.

    Raises:
        BenchError: a target cannot be understood or met, or the library is missing.
    """
    from bench.export.output import check_output
    from bench.store.tables.frames import exports_frame
    from bench.system.devices import physical_cores

    library = toolkit(flavor)
    chosen = _capabilities(library, compute_capabilities)
    if output is not None:
        check_output(Path(output))
    exports = Exports(results)
    settings = Settings(precision=precision, target="tensorrt")
    exporter = Exporter(exports, settings, threads or physical_cores(), force, say)
    names = [str(t) for t in ([targets] if isinstance(targets, str | Path) else targets)]
    builder = EngineBuilder(library, exports, profile or Profile(), say)
    rows = []
    for model in _inputs(names, exporter, results, options, input_size):
        for capability in chosen:
            record = _built(builder, model, capability)
            if isinstance(record, ExportRecord) and output is not None:
                _copy(Path(output), model.name, record, exports)
            rows.append(record.row if isinstance(record, ExportRecord) else record)
    if rows and all(row["status"] == "unsupported" for row in rows):
        raise BenchError(rows[0]["error"])
    return exports_frame(rows)


def _built(
    builder: EngineBuilder, model: OnnxInput, capability: str | None
) -> ExportRecord | dict[str, Any]:
    """Build one engine; what the library cannot build is a row that says why."""
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
            "status": "unsupported",
            "error": str(error),
        }


def _inputs(
    names: list[str],
    exporter: Exporter,
    results: str | Path,
    options: dict[str, Any] | None,
    input_size: int | None,
) -> Iterator[OnnxInput]:
    """Find the ONNX files of the targets, exporting networks first."""
    from bench.store import Store
    from bench.targets.find import find_sources

    files = [Path(n) for n in names if n.endswith(".onnx")]
    others = [n for n in names if not n.endswith(".onnx")]
    yield from map(from_file, files)
    if files and not others:
        return
    for source in find_sources(others, Store(results), options=options, input_size=input_size):
        if not isinstance(source, Source):
            exporter.say(f"run {source.run} is {source.status}: passed over")
            continue
        record = exporter.export(source)
        if record.row["status"] != "complete":
            raise BenchError(f"{source.name} is not built: its ONNX file {record.row['error']}")
        shared = {k: record.row[k] for k in ("run", "model", "opset")}
        yield OnnxInput(
            source.name, exporter.exports.file(record), record.export,
            record.row["precision"], shared,
        )  # fmt: skip


def _capabilities(library: Toolkit, asked: Sequence[str]) -> list[str | None]:
    if library.flavor == "standard":
        if asked:
            raise BenchError(
                "--compute-capability goes with --flavor rtx: the standard flavor builds for "
                "the GPU of the machine it runs on"
            )
        return [None]
    known = library.capabilities()
    wanted = [str(a).replace(".", "").lower().removeprefix("sm") for a in asked]
    for capability in wanted:
        if capability not in known:
            raise BenchError(
                f"--compute-capability {capability}: TensorRT RTX {library.version} cannot "
                f"target it{nearest(capability, known)} (it can: {', '.join(known)})"
            )
    here = _this_gpu()
    return list(dict.fromkeys(wanted)) or ([here] if here in known else list(known))


def _this_gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none"
    return "".join(map(str, torch.cuda.get_device_capability()))


def _copy(folder: Path, name: str, record: ExportRecord, exports: Exports) -> None:
    """Copy an engine and then its sidecar under readable names."""
    import re

    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
    target = folder / f"{slug}-{record.row['precision']}-{record.row['target']}{SUFFIX}"
    sidecar = Sidecar(**record.proof["sidecar"])
    with storage_errors(folder):
        content = exports.file(record).read_bytes()
    write_engine(target, content, replace(sidecar, builder_flags=tuple(sidecar.builder_flags)))
