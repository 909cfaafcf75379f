"""`bench export-tensorrt`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.cli.output import print_json, remarks, simple_table, stdout
from bench.export.choices import Flavor, Precision


def export_tensorrt(
    targets: Annotated[
        list[str] | None,
        typer.Argument(help="Runs, studies, models or .onnx files.", metavar="[TARGET…]"),
    ] = None,
    flavor: Annotated[Flavor, typer.Option("--flavor", help="rtx needs no GPU to build.")] = "rtx",
    precision: Annotated[
        Precision, typer.Option("--precision", help="Of runs and models; a file has its own.")
    ] = "fp32",
    capability: Annotated[
        list[str] | None,
        typer.Option(
            "--compute-capability", help="GPU generation, such as 86; repeatable.", metavar="SM"
        ),
    ] = None,
    min_batch: Annotated[int, typer.Option("--min-batch", help="Smallest batch.")] = 1,
    opt_batch: Annotated[int, typer.Option("--opt-batch", help="The batch to tune for.")] = 32,
    max_batch: Annotated[int, typer.Option("--max-batch", help="Largest batch.")] = 64,
    output: Annotated[
        Path | None, typer.Option("--output", help="Copy engines here.", metavar="DIR")
    ] = None,
    input_size: Annotated[
        int | None, typer.Option("--input-size", help="Of a named model.", metavar="PIXELS")
    ] = None,
    option: options.KeyValues = None,
    force: Annotated[bool, typer.Option("--force", help="Export ONNX files again.")] = False,
    results: options.Results = options.DEFAULT_RESULTS,
    threads: options.Threads = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Build TensorRT engines, each with a sidecar that says what it fits.

    Examples:

      bench export-tensorrt resnet18 --compute-capability 86 --compute-capability 120

      bench export-tensorrt model.onnx --max-batch 128 --output engines

    """
    options.require_positive(threads=threads, input_size=input_size)
    from bench.export.build import export_tensorrt as export
    from bench.export.tensorrt import Profile
    from bench.store.tables.frames import rows_of

    frame = export(
        targets or (),
        flavor=flavor,
        precision=precision,
        compute_capabilities=capability or (),
        profile=Profile(min_batch, opt_batch, max_batch),
        results=results,
        options=options.parse_values(option),
        input_size=input_size,
        output=output,
        force=force,
        threads=threads,
        say=remarks(quiet=quiet or as_json),
    )
    rows = rows_of(frame)
    if as_json:
        print_json(rows, [row for row in rows if row["error"]])
        return
    shown = [
        {
            "network": row["run"] or row["model"],
            "precision": row["precision"],
            "target": row["target"],
            "MB": None if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}",
            "seconds": None if row["seconds"] is None else f"{row['seconds']:.2f}",
            "status": row["status"],
            "file": f"exports/{row['export'][:12]}…/{row['file']}" if row["file"] else None,
        }
        for row in rows
    ]
    console = stdout()
    console.print(simple_table(shown, right=("MB", "seconds")))
    for row in rows:
        if row["error"]:
            console.print(row["error"], markup=False, emoji=False, soft_wrap=True)
    console.print("Engines were built, not run: that takes a GPU of their generation.")
