"""Exporting what a person named to ONNX: what `bench export-onnx` does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.export.foreign import quantise_file, read_foreign
from bench.export.output import check_copies, copy_export, copy_name, write_bundle
from bench.export.pipeline import Draw, Exporter, Say
from bench.export.settings import Settings
from bench.store.exports import ExportRecord, Exports
from bench.store.files import StorageError, prove_writable
from bench.system.devices import default_threads
from bench.targets.find import InputSize, as_tuple, default_names, find_networks, sides_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.export.examine import Size
    from bench.targets.network import NamedNetwork


def find_exportable(
    targets: str | Path | Sequence[str | Path],
    results: str | Path,
    options: dict[str, Any] | None,
    input_size: InputSize | None,
) -> list[NamedNetwork]:
    """Find the models, runs and ONNX files that *targets* name (default: the last study's runs).

    Raises:
        BenchError: nothing is called so.
    """
    return find_networks(
        as_tuple(targets) or default_names(results),
        results=results,
        options=options,
        input_size=input_size,
        takes=("model", "run", "onnx"),
        unfinished=True,
    )


def export_targets(
    targets: str | Path | Sequence[str | Path],
    *,
    results: str | Path,
    options: dict[str, Any] | None,
    input_size: InputSize | None,
    preprocessing: dict[str, Any] | None,
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
    if output is not None:
        prove_writable(Path(output), "--output")
    exporter = Exporter(Exports(results), wanted, threads or default_threads(), force, say, draw)
    found = find_exportable(targets, results, options, input_size)
    if preprocessing and not any(network.file for network in found):
        raise BenchError("--set goes with .onnx files: a run's images are prepared as in training")
    if output is not None or bundle:
        check_copies((one, copy_name(one.file_name, wanted.precision)) for one in found)
    bundles = Path(output or os.curdir) if bundle else None
    records = []
    for network in found:
        try:
            record = _export(network, exporter, sides_of(input_size), preprocessing or {}, bundles)
        except StorageError:
            raise
        except BenchError as error:
            if len(found) == 1:
                raise
            records.append(ExportRecord("", {}, _failed(network, str(error), wanted)))
            continue
        if output is not None:
            copy_export(Path(output), network.file_name, record, exporter.exports)
        records.append(record)
    return records


def _export(
    network: NamedNetwork,
    exporter: Exporter,
    size: Size | None,
    preprocessing: dict[str, Any],
    bundles: Path | None,
) -> ExportRecord:
    """Export one network, and write its bundle into the folder *bundles*, if there is one."""
    if network.file is not None:
        if bundles is not None:
            raise BenchError(
                f"--bundle needs a trained run: {network.file} keeps its own input; leave it out"
            )
        source = read_foreign(network.file, exporter.settings, size, preprocessing)
        return quantise_file(source, exporter)
    loaded = network.load()
    record = exporter.export(loaded)
    if bundles is not None and record.row["status"] == "complete":
        write_bundle(bundles, loaded, record, exporter.exports)
    return record


def _failed(network: NamedNetwork, reason: str, settings: Settings) -> dict[str, Any]:
    return {
        "run": network.run,
        "model": network.model or network.label,
        "format": "onnx",
        "precision": settings.precision,
        "opset": settings.opset,
        "status": "failed",
        "error": reason,
    }
