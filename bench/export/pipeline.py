"""Exporting a network to ONNX, and comparing the file with it."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import BenchError
from bench.export.calibration import calibrated_on, calibration_dataset, calibration_images
from bench.export.convert import Converted, Int8, to_fp16
from bench.export.files import save
from bench.export.graph import Traced, set_properties, trace
from bench.export.metadata import environment, properties
from bench.export.preprocess import require_preprocessing, with_preprocessing
from bench.export.proof import Prover, flipped
from bench.store.exports import ExportRecord, Exports
from bench.store.files import sha256_of
from bench.system.caller_state import caller_state
from bench.system.environment import version_of
from bench.system.user_code import current_code

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

    from bench.export.accuracy import Comparison
    from bench.export.parity import Parity
    from bench.export.settings import Settings
    from bench.targets.network import LoadedNetwork

FILE, REJECTED = "model.onnx", "model.rejected.onnx"

Say = Callable[[str], None]
Draw = Callable[[list[dict[str, Any]], Path, str], None]
Make = Callable[[Path], tuple[dict[str, Any], dict[str, Any]]]


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
        if source.trained is None:
            fix = "make a run of the trained network with 'bench import'"
            self.settings.require_test_set(source.name, fix)
        elif source.timing_only:
            self.settings.require_test_set(source.name, "leave it out: its images are noise")
        return self.once(
            source.name, self._request(source), lambda folder: self._export(source, folder)
        )

    def once(self, name: str, request: dict[str, Any], make: Make) -> ExportRecord:
        """Return the export of *request*, or make it.

        Args:
            name: for people.
            request: everything that the file and its proof depend on; versions are added here.
            make: writes the file into a folder; returns columns of its row and its proof.
        """
        packages = ("resnet-bench", "torch", "onnx", "onnxscript", "onnxruntime-gpu", "onnxruntime")
        here = environment(self.threads)
        request = request | {
            "versions": {name: version_of(name) for name in packages},
            "instruction_sets": here["instruction_sets"],
        }
        request = json.loads(json.dumps(request))
        self.exports.tidy()
        known = None if self.force else self.exports.find(request)
        if known is not None:
            self.say(f"{name}: exported already, {known.export[:12]}")
            return known
        with caller_state(), self.exports.workspace() as folder:
            torch.set_num_threads(self.threads)
            begun = time.monotonic()
            columns, proof = make(folder)
            file = folder / columns["file"]
            sha256 = sha256_of(file)
            row = {
                "export": sha256,
                "format": "onnx",
                "precision": self.settings.precision,
                "target": self.settings.target if self.settings.precision == "int8" else "any",
                "sha256": sha256,
                "bytes": sum(f.stat().st_size for f in file.parent.iterdir()),
                "seconds": time.monotonic() - begun,
                "cpu": f"{here['cpu']} ({' '.join(here['instruction_sets'])})",
                "calibration": calibrated_on(self.settings),
                **columns,
            }
            if effects := proof.get(self.settings.precision, {}).get("sensitivity"):
                self.draw(effects, folder, name)
            record = ExportRecord(
                export=sha256,
                request=request,
                row=row,
                proof=proof,
                environment=here,
                created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            )
            return self.exports.publish(folder, record)

    def _export(self, source: LoadedNetwork, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        self.say(f"{source.name}: exporting")
        traced, prover = self._trace(source)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            converted = self._convert(source, traced.proto, prover, Path(work))
        proto = converted.proto
        if self.settings.with_preprocessing:
            preparation = require_preprocessing(source, "--with-preprocessing")
            static_batch = self.settings.static_batch
            proto = with_preprocessing(proto, preparation, source.input_shape[0], static_batch)
        set_properties(proto, properties(source, self.settings))
        save(proto, folder / FILE)
        self.say(f"{source.name}: comparing with PyTorch")
        proof = prover.prove(folder / FILE, traced, self.settings)
        if not proof.accepted:
            (folder / FILE).rename(folder / REJECTED)
        columns = {
            "run": source.run,
            "model": source.model_name,
            "opset": self.settings.opset,
            "file": FILE if proof.accepted else REJECTED,
            **compared(proof.parity, proof.accuracy),
            "status": "complete" if proof.accepted else "rejected",
            "error": proof.error,
            "executed_precision": proof.executed_precision,
        }
        return columns, proof.as_dict() | {self.settings.precision: converted.details}

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

            def images(settings: Settings) -> npt.NDArray[Any]:
                drawn: npt.NDArray[Any] = calibration_images(source, settings).numpy()
                return drawn

            return Int8(
                proto, images, self.settings, prover.judge, work, self.threads, self.say
            ).convert()
        return Converted(proto)

    def _request(self, source: LoadedNetwork) -> dict[str, Any]:
        prepared = source.preprocessing if self.settings.with_preprocessing else None
        dataset = None
        if self.settings.precision == "int8":
            dataset = calibration_dataset(source, self.settings)
        # A run's weights belong to the code that made them, which was checked when it was read.
        code = current_code(source.model_name) if source.run is None else None
        return {
            "run": source.run,
            "model": source.model_name,
            "options": source.options,
            "weights": source.weights,
            "input_shape": source.input_shape,
            "settings": self.settings.as_dict(),
            **({"preprocessing": asdict(prepared)} if prepared else {}),
            **({"dataset_fingerprint": dataset.fingerprint} if dataset else {}),
            **({"user_code": code} if code else {}),
        }


def compared(parity: Parity, accuracy: Comparison | None) -> dict[str, Any]:
    """Return the columns that say how a file compares with its reference."""
    return {
        "max_abs_diff": parity.max_abs_diff,
        "max_rel_diff": parity.max_rel_diff,
        "flipped_predictions": flipped(parity, accuracy),
        "images_compared": parity.images,
        "torch_accuracy": accuracy.reference if accuracy else None,
        "test_accuracy": accuracy.accuracy if accuracy else None,
    }
