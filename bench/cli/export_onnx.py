"""`bench export-onnx`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import options
from bench.cli.output import print_json, remarks, simple_table, stdout
from bench.export.settings import CalibrationMethod, Int8Target, IoPrecision, Precision

if TYPE_CHECKING:
    from bench.store.exports import ExportRecord

_BAR = 40  # characters of the longest bar


def export_onnx(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Runs, studies, models, .onnx files (default: the latest study, or resnet18).",
            metavar="TARGET",
        ),
    ] = None,
    input_size: options.ImageSize = None,
    option: options.KeyValues = None,
    precision: Annotated[
        Precision, options.export("--precision", help="Precision of weights and arithmetic.")
    ] = "fp32",
    io_precision: Annotated[
        IoPrecision,
        options.export("--io-precision", help="Precision of inputs and outputs of an fp16 file."),
    ] = "fp32",
    opset: Annotated[
        int, options.export("--opset", help="Version of the ONNX operator set.", metavar="N")
    ] = 20,
    static_batch: Annotated[
        int | None,
        options.export(
            "--static-batch", help="Fix the batch size (default: dynamic).", metavar="N"
        ),
    ] = None,
    with_preprocessing: Annotated[
        bool,
        options.export(
            "--with-preprocessing", help="Include preprocessing: uint8 images N×H×W×C of any size."
        ),
    ] = False,
    force: Annotated[
        bool,
        options.export("--force", help="Export again what exists already."),
    ] = False,
    dataset: options.Int8Data = None,
    values: options.FilePreprocessing = None,
    target: Annotated[
        Int8Target,
        options.int8("--target", help="Where the int8 file will run: cpu or tensorrt."),
    ] = "cpu",
    calibration_method: Annotated[
        CalibrationMethod, options.int8("--calibration-method", help="Calibration method.")
    ] = "minmax",
    calibration_images: Annotated[
        int,
        options.int8("--calibration-images", help="Number of calibration images.", metavar="N"),
    ] = 128,
    calibration_seed: Annotated[
        int,
        options.int8(
            "--calibration-seed", help="Random seed for choosing calibration images.", metavar="N"
        ),
    ] = 0,
    calibration_draws: Annotated[
        int,
        options.int8(
            "--calibration-draws",
            help="Number of sets of calibration images to measure the accuracy with.",
            metavar="N",
        ),
    ] = 1,
    max_accuracy_drop: Annotated[
        float | None,
        options.int8(
            "--max-accuracy-drop",
            help="Largest accuracy drop allowed for int8, in percentage points.",
            metavar="POINTS",
        ),
    ] = None,
    sensitivity: Annotated[
        bool,
        options.int8("--sensitivity", help="Measure and show the effect of each layer in int8."),
    ] = False,
    threads: options.Threads = None,
    output: Annotated[
        Path | None,
        options.output("--output", help="Also copy the files to this folder.", metavar="DIR"),
    ] = None,
    bundle: Annotated[
        bool,
        options.output("--bundle", help="Also write a folder that can be used without PyTorch."),
    ] = False,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Export networks to ONNX and verify each file against PyTorch.

    The outputs and the test accuracy of exactly this file are compared with PyTorch's and recorded
    with it. --max-accuracy-drop keeps layers in fp32 until int8 is within the limit. An .onnx
    file is quantised, and compared with itself in fp32 on the dataset. Exits with
    code 1 if a file was rejected.

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
        _show(rows, records, results)
    raise typer.Exit(int(bool(errors)))


def _show(rows: list[dict[str, Any]], records: "list[ExportRecord]", results: Path) -> None:
    console = stdout()
    shown = [
        {
            "network": row["run"] or row["model"],
            "precision": row["precision"],
            "MB": None if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}",
            "largest difference": _number(row["max_rel_diff"], ".1e"),
            "torch %": _number(row["torch_accuracy"], ".2%", "%"),
            "file %": _number(row["test_accuracy"], ".2%", "%"),
            "flipped": row["flipped_predictions"],
            "status": row["status"],
        }
        for row in rows
    ]
    right = ("MB", "largest difference", "torch %", "file %", "flipped")
    console.print(simple_table(shown, right=right))
    for row, record in zip(rows, records, strict=True):
        _remark(row, record, results)


def _remark(row: dict[str, Any], record: "ExportRecord", results: Path) -> None:
    show = partial(stdout().print, markup=False, emoji=False, soft_wrap=True)
    if row["error"]:
        show(f"{row['run'] or row['model']}: {row['error']}")
    if not record.export:
        return
    folder = results / "exports" / record.export
    show(folder / row["file"])
    details = record.proof.get(row["precision"], {})
    if row["precision"] == "fp16":
        kept = ", ".join(details["kept_fp32"])
        show(
            "fp16: this CPU computes in fp32, so only the conversion is verified; "
            f"{len(details['kept_fp32'])} layers kept in fp32{kept and f': {kept}'}"
        )
    if details.get("sensitivity"):
        stdout().print(simple_table(_effects(details["sensitivity"]), right=("effect",)))
        show(folder / "sensitivity.svg")
    if details.get("draws"):
        spread = f"{details['draws_mean'] * 100:.2f} ± {details['draws_std'] * 100:.2f} %"
        show(f"accuracy over {len(details['draws'])} calibration draws: {spread}")
    if details.get("images_prepared"):
        show(details["images_prepared"])
    if details.get("verdict"):
        show(details["verdict"], style="bold")


def _effects(effects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the sensitivity table, with the effects drawn as bars."""
    largest = max(e["effect"] for e in effects) or 1.0
    return [
        {
            "layer": e["layer"],
            "effect": f"{e['effect']:.4f}",
            "of_the_largest": "█" * max(1, round(_BAR * e["effect"] / largest)),
            "kept_in_fp32": "yes" if e["kept"] else "",
        }
        for e in effects
    ]


def _number(value: float | None, form: str, unit: str = "") -> str | None:
    return None if value is None else format(value, form).removesuffix(unit)
