"""`bench export-onnx`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli import options
from bench.cli.output import print_json, remarks, simple_table, stdout
from bench.export.choices import CalibrationMethod, IoPrecision, Precision, Target

_BAR = 40  # characters of the longest bar


def export_onnx(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Runs, studies or models; the study last run without.", metavar="[TARGET…]"
        ),
    ] = None,
    precision: Annotated[Precision, typer.Option("--precision", help="Arithmetic.")] = "fp32",
    io_precision: Annotated[
        IoPrecision, typer.Option("--io-precision", help="Input and output of an fp16 file.")
    ] = "fp32",
    target: Annotated[Target, typer.Option("--target", help="What int8 is for.")] = "cpu",
    static_batch: Annotated[
        int | None,
        typer.Option("--static-batch", help="The one batch size; any without.", metavar="N"),
    ] = None,
    opset: Annotated[int, typer.Option("--opset", help="ONNX operator set.")] = 20,
    preprocessing: Annotated[
        bool,
        typer.Option("--with-preprocessing", help="Take uint8 images N×H×W×C of any size."),
    ] = False,
    calibration_method: Annotated[
        CalibrationMethod, typer.Option("--calibration-method", help="How ranges are taken.")
    ] = "minmax",
    calibration_images: Annotated[
        int, typer.Option("--calibration-images", help="Training images for it.", metavar="N")
    ] = 128,
    calibration_seed: Annotated[
        int, typer.Option("--calibration-seed", help="Seed of their draw.")
    ] = 0,
    calibration_draws: Annotated[
        int, typer.Option("--calibration-draws", help="Repeat over N draws.", metavar="N")
    ] = 1,
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option("--max-accuracy-drop", help="Points that int8 may cost.", metavar="POINTS"),
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Print each layer's effect in int8.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", help="Copy files here.", metavar="DIR")
    ] = None,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Write a folder to hand over, usable without torch.")
    ] = False,
    input_size: Annotated[
        int | None, typer.Option("--input-size", help="Of a named model.", metavar="PIXELS")
    ] = None,
    option: options.KeyValues = None,
    force: Annotated[
        bool, typer.Option("--force", help="Export again; take a diverged run if it can be.")
    ] = False,
    results: options.Results = options.DEFAULT_RESULTS,
    threads: options.Threads = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Export networks to ONNX, each file with the proof that it computes what was trained.

    Examples:

      bench export-onnx

      bench export-onnx resnet20-fashion-mnist-mini-s0-0123456789ab --precision int8

      bench export-onnx resnet50 --opset 20 --output exported

    """
    options.require_positive(threads=threads, input_size=input_size)
    from bench.export.pipeline import export_onnx as export
    from bench.store.tables.frames import rows_of

    frame = export(
        targets or (),
        results=results,
        options=options.parse_values(option),
        input_size=input_size,
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
        with_preprocessing=preprocessing,
        calibration_method=calibration_method,
        calibration_images=calibration_images,
        calibration_seed=calibration_seed,
        calibration_draws=calibration_draws,
        max_accuracy_drop=max_accuracy_drop,
        sensitivity=sensitivity,
    )
    rows = rows_of(frame)
    errors = [row for row in rows if row["status"] != "complete"]
    if as_json:
        print_json(rows, errors)
    else:
        _show(rows, results)
    raise typer.Exit(int(bool(errors)))


def _show(rows: list[dict[str, Any]], results: Path) -> None:
    console = stdout()
    shown = [
        {
            "network": row["run"] or row["model"],
            "precision": row["precision"],
            "MB": None if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}",
            "largest difference": _relative(row["max_rel_diff"]),
            "torch %": _percent(row["torch_accuracy"]),
            "file %": _percent(row["test_accuracy"]),
            "flipped": row["flipped_predictions"],
            "status": row["status"],
        }
        for row in rows
    ]
    right = ("MB", "largest difference", "torch %", "file %", "flipped")
    console.print(simple_table(shown, right=right))
    for row in rows:
        _remark(row, results)


def _remark(row: dict[str, Any], results: Path) -> None:
    from bench.store.exports import Exports

    console = stdout()
    if row["error"]:
        console.print(
            f"{row['run'] or row['model']}: {row['error']}",
            markup=False,
            emoji=False,
            soft_wrap=True,
        )
    if not row["export"]:
        return
    exports = Exports(results)
    record = exports.named(row["export"])
    console.print(
        f"{exports.folder(row['export']) / row['file']}", markup=False, emoji=False, soft_wrap=True
    )
    details = record.proof.get(row["precision"], {}) if record else {}
    if row["precision"] == "fp16":
        console.print(
            "fp16: this CPU computed it in fp32, so only the conversion is checked; "
            f"{len(details.get('kept_fp32', {}))} layers kept in fp32"
            f"{': ' if details.get('kept_fp32') else ''}{', '.join(details.get('kept_fp32', {}))}",
            markup=False,
            soft_wrap=True,
        )
    if details.get("sensitivity"):
        console.print(simple_table(_effects(details["sensitivity"]), right=("effect",)))
        picture = exports.folder(row["export"]) / "sensitivity.svg"
        console.print(f"{picture}", markup=False, emoji=False, soft_wrap=True)
    if details.get("draws"):
        spread = f"{details['draws_mean'] * 100:.2f} ± {details['draws_std'] * 100:.2f} %"
        console.print(f"accuracy over {len(details['draws'])} calibration draws: {spread}")
    if details.get("verdict"):
        console.print(details["verdict"], style="bold", markup=False, emoji=False, soft_wrap=True)


def _effects(effects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the sensitivity table, with the effects drawn as bars."""
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


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value * 100:.2f}"


def _relative(value: float | None) -> str | None:
    return None if value is None else f"{value:.1e}"
