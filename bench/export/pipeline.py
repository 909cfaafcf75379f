"""Exporting networks to ONNX and comparing each file with its network (`bench export-onnx`)."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import BenchError
from bench.export.convert import Converted, Int8, count_layers, to_fp16
from bench.export.files import save
from bench.export.graph import Traced, set_properties, trace
from bench.export.metadata import environment, properties
from bench.export.output import deliver
from bench.export.preprocess import require_preprocessing, with_preprocessing
from bench.export.proof import Proof, Prover
from bench.export.settings import Settings
from bench.store.exports import ExportRecord, Exports
from bench.store.files import StorageError, prove_writable, sha256_of
from bench.system.devices import physical_cores
from bench.system.environment import version_of
from bench.targets.find import default_names, find_networks

if TYPE_CHECKING:
    import onnx

    from bench.targets.network import LoadedNetwork, NamedNetwork

FILE, REJECTED = "model.onnx", "model.rejected.onnx"

Say = Callable[[str], None]
Draw = Callable[[list[dict[str, Any]], Path, str], None]


@dataclass(frozen=True)
class Exporter:
    """Exports networks into a results folder.

    Attributes:
        exports: the results folder's exports.
        settings: what the files are to be.
        threads: CPU threads.
        force: export again what is there already.
        say: called with what is being done.
        draw: called with the effect of each layer in int8, where it was measured, the export's
            folder and the network's name; what it writes there becomes part of the export.
    """

    exports: Exports
    settings: Settings
    threads: int = 1
    force: bool = False
    say: Say = lambda _text: None
    draw: Draw = lambda _effects, _folder, _name: None

    def export(self, source: LoadedNetwork) -> ExportRecord:
        """Export one network and compare the file with it, unless that was done before.

        Returns:
            The record; its row's `status` is complete or rejected.

        Raises:
            BenchError: the network cannot be exported with these settings.
            StorageError: the results folder cannot be written; nothing is left there.
        """
        if self.settings.with_preprocessing:
            require_preprocessing(source, "--with-preprocessing")
        request = self._request(source)
        self.exports.tidy()
        known = None if self.force else self.exports.find(request)
        if known is not None:
            self.say(f"{source.name}: exported already, {known.export[:12]}")
            return known
        with _threads(self.threads), self.exports.workspace() as folder:
            return self._export(source, request, folder)

    def _export(self, source: LoadedNetwork, request: dict[str, Any], folder: Path) -> ExportRecord:
        begun = time.monotonic()
        self.say(f"{source.name}: exporting")
        traced, prover = self._trace(source)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            converted = self._convert(source, traced.proto, prover, Path(work))
        raw = self.settings.with_preprocessing
        proto = converted.proto
        if raw:
            preparation = require_preprocessing(source, "--with-preprocessing")
            static_batch = self.settings.static_batch
            proto = with_preprocessing(proto, preparation, source.input_shape[0], static_batch)
        set_properties(proto, properties(source, self.settings))
        save(proto, folder / FILE)
        self.say(f"{source.name}: comparing with PyTorch")
        layers = count_layers(traced.proto)
        proof = prover.prove(folder / FILE, traced, self.settings, layers=layers, raw=raw)
        name = FILE if proof.accepted else REJECTED
        if not proof.accepted:
            (folder / FILE).rename(folder / REJECTED)
        sha256 = sha256_of(folder / name)
        row = self._row(source, proof, folder / name, sha256, time.monotonic() - begun)
        if converted.details.get("sensitivity"):
            self.draw(converted.details["sensitivity"], folder, source.name)
        record = ExportRecord(
            export=sha256,
            request=request,
            row=row,
            proof=proof.as_dict() | {self.settings.precision: converted.details},
            environment=environment(self.threads),
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        return self.exports.publish(folder, record)

    def _trace(self, source: LoadedNetwork) -> tuple[Traced, Prover]:
        """Capture a network; without torch's graph optimiser if that changes what it computes."""
        how: dict[str, Any] = {
            "opset": self.settings.opset,
            "static_batch": self.settings.static_batch,
        }
        traced = trace(source, **how)
        prover = Prover(source, self.threads, self.settings.static_batch)
        if prover.agrees(traced.proto):
            return traced, prover
        self.say(f"{source.name}: exporting again, without torch's graph optimiser")
        plain = trace(source, **how, optimize=False)
        if prover.agrees(plain.proto):
            return plain, prover
        if self.settings.precision != "fp32":
            raise BenchError(
                f"{source.name} is not exported in {self.settings.precision}: its fp32 graph does "
                "not compute what PyTorch does; --precision fp32 names the first layer that differs"
            )
        return traced, prover

    def _convert(
        self, source: LoadedNetwork, proto: onnx.ModelProto, prover: Prover, work: Path
    ) -> Converted:
        if self.settings.precision == "fp16":
            return to_fp16(proto, source, self.settings, self.threads)
        if self.settings.precision == "int8":
            self.say(f"{source.name}: calibrating")
            return Int8(
                proto, source, self.settings, prover.judge, work, self.threads, self.say
            ).convert()
        return Converted(proto)

    def _request(self, source: LoadedNetwork) -> dict[str, Any]:
        """Return everything that the file and its proof depend on, as JSON values."""
        prepared = source.preprocessing if self.settings.with_preprocessing else None
        packages = ("resnet-bench", "torch", "onnx", "onnxscript", "onnxruntime-gpu", "onnxruntime")
        values = {
            "run": source.run,
            "model": source.model_name,
            "options": source.options,
            "weights": source.weights,
            "input_shape": source.input_shape,
            "settings": self.settings.as_dict(),
            **({"preprocessing": asdict(prepared)} if prepared else {}),
            "versions": {name: version_of(name) for name in packages},
            "instruction_sets": environment(self.threads)["instruction_sets"],
        }
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain

    def _row(
        self, source: LoadedNetwork, proof: Proof, file: Path, sha256: str, seconds: float
    ) -> dict[str, Any]:
        here = environment(self.threads)
        accuracy = proof.accuracy
        return {
            "export": sha256,
            "run": source.run,
            "model": source.model_name,
            "format": "onnx",
            "precision": self.settings.precision,
            "target": self.settings.target if self.settings.precision == "int8" else "any",
            "opset": self.settings.opset,
            "file": file.name,
            "sha256": sha256,
            "bytes": sum(f.stat().st_size for f in file.parent.iterdir()),
            "max_abs_diff": proof.parity.max_abs_diff,
            "max_rel_diff": proof.parity.max_rel_diff,
            "flipped_predictions": proof.flipped,
            "images_compared": proof.parity.images,
            "torch_accuracy": accuracy.reference if accuracy else None,
            "test_accuracy": accuracy.accuracy if accuracy else None,
            "seconds": seconds,
            "cpu": f"{here['cpu']} ({' '.join(here['instruction_sets'])})",
            "status": "complete" if proof.accepted else "rejected",
            "error": proof.error,
            "executed_precision": proof.executed_precision,
        }


def export_networks(
    targets: str | Path | Sequence[str | Path],
    *,
    results: str | Path,
    options: dict[str, Any] | None,
    input_size: int | None,
    output: str | Path | None,
    bundle: bool,
    force: bool,
    threads: int | None,
    say: Say,
    draw: Draw,
    **settings: Any,
) -> list[ExportRecord]:
    """Export networks to ONNX; the arguments, but for *draw*, are those of `bench.export_onnx`.

    Returns:
        A record of each network, in order; one that failed has an empty `export`, and the reason
        in its row.

    Raises:
        BenchError: a target or a setting cannot be understood or met, or the only network failed.
    """
    wanted = Settings(**{**settings, **({"with_preprocessing": True} if bundle else {})})
    names = [str(t) for t in ([targets] if isinstance(targets, str | Path) else targets)]
    if output is not None:
        prove_writable(Path(output), "--output")
    exporter = Exporter(Exports(results), wanted, threads or physical_cores(), force, say, draw)
    records = []
    for network in find_networks(
        names or default_names(results), results=results, options=options, input_size=input_size,
        takes=("model", "run"), unfinished=True,
    ):  # fmt: skip
        try:
            source = network.load()
            record = exporter.export(source)
        except StorageError:
            raise
        except BenchError as error:
            records.append(ExportRecord("", {}, _failed(network, str(error), wanted)))
            continue
        deliver(source, record, exporter.exports, output=output, bundle=bundle)
        records.append(record)
    if len(records) == 1 and records[0].row["status"] == "failed":
        raise BenchError(records[0].row["error"])
    return records


def _failed(network: NamedNetwork, reason: str, settings: Settings) -> dict[str, Any]:
    return {
        "run": network.run,
        "model": network.model,
        "format": "onnx",
        "precision": settings.precision,
        "opset": settings.opset,
        "status": "failed",
        "error": reason,
    }


@contextmanager
def _threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
