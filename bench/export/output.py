"""Copies of exports under readable names, for `--output` and `--bundle`."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bench.store.files import write_atomically

if TYPE_CHECKING:
    from bench.store.exports import ExportRecord, Exports
    from bench.targets.network import LoadedNetwork


def readable_name(source: LoadedNetwork, record: ExportRecord) -> str:
    """Name a file after its run or model and precision."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", source.name).strip("-.")
    precision = record.row["precision"]
    return slug if precision == "fp32" else f"{slug}-{precision}"


def deliver(
    source: LoadedNetwork,
    record: ExportRecord,
    exports: Exports,
    *,
    output: str | Path | None,
    bundle: bool,
) -> None:
    """Copy an export to *output*, and write its bundle.

    Raises:
        StorageError: a folder cannot be written.
    """
    name = readable_name(source, record)
    if output is not None:
        _copy(Path(output), name, record, exports)
    if bundle and record.row["status"] == "complete":
        from bench.export.bundle import write_bundle

        write_bundle(Path(output or os.curdir) / f"{name}-bundle", source, record, exports)


def _copy(folder: Path, name: str, record: ExportRecord, exports: Exports) -> None:
    """Copy file and proof; a file with external data keeps its names, in a folder of its own."""
    source = exports.folder(record.export)
    kind = str(record.row["file"]).removeprefix("model")
    beside = [f for f in record.files if f.endswith(".data")]
    if beside:
        for file in record.files:
            write_atomically(folder / name / file, (source / file).read_bytes())
    else:
        write_atomically(folder / f"{name}{kind}", exports.file(record).read_bytes())
    proof = json.dumps(asdict(record), indent=1) + "\n"
    write_atomically(folder / f"{name}.export.json", proof.encode())
