"""Copies of exports under readable names, and folders that can be used without torch."""

from __future__ import annotations

import io
import json
import re
import shutil
from dataclasses import asdict
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bench.errors import BenchError
from bench.export.accuracy import feed
from bench.export.parity import reference_logits
from bench.export.preprocess import require_preprocessing
from bench.store.files import storage_errors, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bench.store.exports import ExportRecord, Exports
    from bench.targets.network import LoadedNetwork, NamedNetwork

_IMAGES = 10
_README = """# {name}

`python predict.py` needs onnxruntime and numpy. It classifies the ten test images of
`images.npy` and compares its logits with those of PyTorch in `logits.npy`;
`python predict.py FILE.npy` classifies your own images (uint8, N×H×W×C or H×W×C with
C = {channels}, of grey also H×W; any height and width: resizing and normalisation are inside the file).

| | |
|---|---|
| network | {model} {options} |
| images | {dataset} (run {run}) |
| precision | {precision} |
| SHA-256 of model.onnx | {sha256} |
| largest difference of a logit from PyTorch, {images} images | {max_abs_diff:.3g} ({max_rel_diff:.2g} of the largest logit) |
| accuracy on the test set, this file | {test_accuracy} |
| accuracy on the test set, PyTorch | {torch_accuracy} |
| answers that differ | {flipped} |
| measured on | {cpu} |
"""  # noqa: E501 - a Markdown table's rows are lines


def readable_name(name: str, *details: str) -> str:
    """Return a file name of safe characters, without a suffix."""
    return "-".join([re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-."), *details])


def check_copies(copies: Iterable[tuple[NamedNetwork, str]]) -> None:
    """Check that no copy of an export would replace that of another network.

    Args:
        copies: each network, and the name of its copy.

    Raises:
        BenchError: two copies would have one name.
    """
    taken: dict[str, object] = {}
    for network, name in copies:
        named = network.file or network.label
        if name in taken:
            raise BenchError(
                f"{taken[name]} and {named} would both be copied as {name}: export them one by "
                "one, each into an --output folder of its own"
            )
        taken[name] = named


def copy_export(folder: Path, name: str, record: ExportRecord, exports: Exports) -> None:
    """Copy file and proof under a readable name; with external data, into a folder of that name.

    Raises:
        StorageError: the folder cannot be written.
    """
    name = copy_name(name, record.row["precision"])
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


def write_bundle(
    folder: Path, source: LoadedNetwork, record: ExportRecord, exports: Exports
) -> None:
    """Write an export with preprocessing as a folder `NAME-bundle` that runs without torch.

    Raises:
        StorageError: it cannot be written.
    """
    folder /= f"{copy_name(source.name, record.row['precision'])}-bundle"
    require_preprocessing(source, "--bundle")
    images = source.proof_images()[:_IMAGES]
    static_batch = record.request["settings"]["static_batch"]
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in record.files:
            shutil.copyfile(exports.folder(record.export) / name, folder / name)
    template = resources.files("bench.export").joinpath("predict.template")
    for name, content in {
        "labels.json": json.dumps(source.classes, indent=1).encode(),
        "images.npy": _npy(feed(source, images, raw=True)),
        "logits.npy": _npy(reference_logits(source, images, static_batch)),
        "predict.py": template.read_bytes(),
        "README.md": _readme(source, record).encode(),
    }.items():
        write_atomically(folder / name, content)


def copy_name(name: str, precision: str) -> str:
    """Return the readable name of an ONNX export; fp32 is not mentioned."""
    return readable_name(name, *([] if precision == "fp32" else [precision]))


def _npy(values: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _readme(source: LoadedNetwork, record: ExportRecord) -> str:
    row = record.row
    assert source.trained is not None  # noqa: S101 - a bare model was refused before
    return _README.format(
        name=source.name,
        model=source.model_name,
        options=" ".join(f"{k}={v}" for k, v in source.options.items()),
        dataset=source.trained.request.dataset,
        channels=source.input_shape[0],
        images=row["images_compared"],
        flipped=row["flipped_predictions"],
        **{k: _percent(row[k]) for k in ("test_accuracy", "torch_accuracy")},
        **{
            k: row[k] for k in ("run", "precision", "sha256", "max_abs_diff", "max_rel_diff", "cpu")
        },
    )


def _percent(accuracy: float | None) -> str:
    return "not measured" if accuracy is None else f"{accuracy * 100:.2f} %"
