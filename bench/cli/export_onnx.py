"""`bench export-onnx`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import options
from bench.cli.options import argument, export, int8, output
from bench.cli.output import (
    network_names,
    print_json,
    print_line,
    print_table,
    print_text,
    remarks,
    scaled,
)
from bench.export.settings import CalibrationMethod, Int8Target, IoPrecision, Precision

if TYPE_CHECKING:
    from bench.store.exports import ExportRecord

_NEEDED = 6  # columns of the table: up to the status
_BAR = 40  # characters of the longest bar


def export_onnx(
    targets: Annotated[
        list[str] | None,
        argument(
            "TARGET", "Runs, studies, models, .onnx files (default: the latest study, or resnet18)."
        ),
    ] = None,
    input_size: options.ImageSize = None,
    option: options.KeyValues = None,
    precision: Annotated[
        Precision, export("--precision", "Precision of weights and arithmetic.")
    ] = "fp32",
    io_precision: Annotated[
        IoPrecision, export("--io-precision", "Precision of inputs and outputs of an fp16 file.")
    ] = "fp32",
    opset: Annotated[int, export("--opset N", "Version of the ONNX operator set.")] = 20,
    static_batch: Annotated[
        int | None, export("--static-batch N", "Fix the batch size (default: dynamic).")
    ] = None,
    with_preprocessing: Annotated[
        bool,
        export("--with-preprocessing", "Include preprocessing: uint8 images N×H×W×C of any size."),
    ] = False,
    dataset: options.Int8Data = None,
    values: options.FilePreprocessing = None,
    force: Annotated[bool, export("--force", "Export again even if the file exists.")] = False,
    target: Annotated[
        Int8Target, int8("--target", "Where the int8 file will run: cpu or tensorrt.")
    ] = "cpu",
    calibration_method: Annotated[
        CalibrationMethod, int8("--calibration-method", "Calibration method.")
    ] = "minmax",
    calibration_images: Annotated[
        int | None,
        int8(
            "--calibration-images N",
            "Number of calibration images (default: 128, or all there are).",
        ),
    ] = None,
    calibration_seed: Annotated[
        int, int8("--calibration-seed N", "Random seed for choosing calibration images.")
    ] = 0,
    calibration_draws: Annotated[
        int,
        int8(
            "--calibration-draws N",
            "Number of sets of calibration images to measure the accuracy with.",
        ),
    ] = 1,
    max_accuracy_drop: Annotated[
        float | None,
        int8(
            "--max-accuracy-drop POINTS",
            "Largest accuracy drop allowed for int8, in percentage points.",
        ),
    ] = None,
    sensitivity: Annotated[
        bool, int8("--sensitivity", "Measure and show the effect of each layer in int8.")
    ] = False,
    threads: options.Threads = None,
    output: Annotated[
        Path | None, output("--output DIR", "Also copy the files to this folder.")
    ] = None,
    bundle: Annotated[
        bool, output("--bundle", "Also write a folder that can be used without PyTorch.")
    ] = False,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Export networks to ONNX and verify each file against PyTorch.

    The outputs and the test accuracy of exactly this file are compared with PyTorch's and recorded
    with it. --max-accuracy-drop keeps layers in fp32 until int8 is within the limit. It goes by the
    test accuracy, which is slightly optimistic then. An .onnx file is quantised, and compared with
    itself in fp32 on the dataset. Exits with code 1 if a file was rejected.

    Examples:

      bench export-onnx

      bench export-onnx resnet20-fashion-mnist-mini-s0-0123456789ab --precision int8

      bench export-onnx resnet50 --opset 20 --output exported

      bench export-onnx model.onnx --precision int8 --dataset imagefolder:photos

    """
    options.require_positive(threads=threads)
    size = options.parse_size(input_size)
    preprocessing = options.parse_values(values, "--set")
    from bench.api import export_with_proofs
    from bench.store.tables.frames import exports_frame, rows_of

    records = export_with_proofs(
        targets or (),
        results=results,
        options=options.parse_values(option),
        input_size=size,
        preprocessing=preprocessing,
        output=output,
        bundle=bundle,
        force=force,
        threads=threads,
        say=remarks(quiet=quiet or as_json),
        precision=precision,
        io_precision=io_precision,
        target=target,
        static_batch=static_batch,
        opset=opset,
        with_preprocessing=with_preprocessing,
        dataset=dataset,
        calibration_method=calibration_method,
        calibration_images=calibration_images,
        calibration_seed=calibration_seed,
        calibration_draws=calibration_draws,
        max_accuracy_drop=max_accuracy_drop,
        sensitivity=sensitivity,
    )
    rows = rows_of(exports_frame(record.row for record in records))
    errors = [row for row in rows if row["status"] != "complete"]
    if as_json:
        print_json(rows, errors)
    else:
        names = network_names(rows, results)
        reference = _reference(records)
        cells = [_cells(r, name, reference) for r, name in zip(rows, names, strict=True)]
        print_table(cells, _FORMS, needed=_NEEDED)
        for row, name, record in zip(rows, names, records, strict=True):
            _remark(row, name, record, results, threads)
    raise typer.Exit(int(bool(errors)))


_FORMS = {
    "file %": ".2f",
    "torch %": ".2f",
    "fp32 file %": ".2f",
    "reference %": ".2f",
    "flipped": "",
    "largest difference": ".1e",
    "MB": ".1f",
}


def _reference(records: Sequence["ExportRecord"]) -> str:
    """Name what the files are compared with: PyTorch, or the files that were quantised."""
    of_files = {"file_sha256" in record.request for record in records if record.export}
    if of_files == {True}:
        return "fp32 file"
    return "reference" if of_files == {True, False} else "torch"


def _cells(row: dict[str, Any], name: str, reference: str) -> dict[str, Any]:
    return {
        "network": name,
        "precision": row["precision"],
        "file %": scaled(row["test_accuracy"], 100),
        f"{reference} %": scaled(row["torch_accuracy"], 100),
        "flipped": row["flipped_predictions"],
        "status": row["status"],
        "largest difference": row["max_rel_diff"],
        "MB": scaled(row["bytes"], 1e-6),
    }


def _remark(
    row: dict[str, Any], name: str, record: "ExportRecord", results: Path, threads: int | None
) -> None:
    if row["error"]:
        print_text(f"{name}: {row['error']}")
    if not record.export:
        return
    folder = results / "exports" / record.export
    print_line(folder / row["file"])
    details = record.proof.get(row["precision"], {})
    if row["precision"] == "fp16":
        kept = ", ".join(details["kept_fp32"])
        print_text(
            "fp16: this CPU computes in fp32, so only the conversion is verified; "
            f"{len(details['kept_fp32'])} layers kept in fp32{kept and f': {kept}'}"
        )
    if details.get("sensitivity"):
        print_table(_effects(details["sensitivity"]), {"effect": ".4f"})
        print_line(folder / "sensitivity.svg")
    if details.get("draws"):
        spread = f"{details['draws_mean'] * 100:.2f} ± {details['draws_std'] * 100:.2f} %"
        print_text(f"accuracy over {len(details['draws'])} calibration draws: {spread}")
    if details.get("images_prepared"):
        print_text(details["images_prepared"])
    if details.get("verdict"):
        print_text(details["verdict"] + _measured_elsewhere(record, threads), style="bold")


def _measured_elsewhere(record: "ExportRecord", threads: int | None) -> str:
    """Say where a stored export was measured, if that was not this CPU with as many threads."""
    from bench.system.devices import default_threads
    from bench.system.environment import processor

    cpu, count = (record.environment.get(name) for name in ("cpu", "threads"))
    if (cpu, count) == (processor()[0], threads or default_threads()):
        return ""
    plural = "s" * (count != 1)
    return (
        f" This is a stored result, measured on {cpu} with {count} thread{plural}: --force "
        "measures it again."
    )


def _effects(effects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the sensitivity table, with the effects drawn as bars."""
    largest = max(e["effect"] for e in effects) or 1.0
    return [
        {
            "layer": e["layer"],
            "effect": e["effect"],
            "of_the_largest": "█" * max(1, round(_BAR * e["effect"] / largest)),
            "kept_in_fp32": "yes" if e["kept"] else "",
        }
        for e in effects
    ]
