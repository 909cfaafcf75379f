"""`bench export-tensorrt`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli import options
from bench.cli.options import argument, export, output
from bench.cli.output import network_names, print_json, print_line, print_table, remarks, scaled
from bench.export.settings import Flavor, Precision


def export_tensorrt(
    targets: Annotated[
        list[str] | None,
        argument("TARGET", "Runs, studies, models or .onnx files (default: as in export-onnx)."),
    ] = None,
    input_size: options.ImageSize = None,
    option: options.KeyValues = None,
    flavor: Annotated[
        Flavor, export("--flavor", "TensorRT for RTX (builds without a GPU) or standard.")
    ] = "rtx",
    precision: Annotated[
        Precision, export("--precision", "Precision; .onnx files keep theirs, unless it is int8.")
    ] = "fp32",
    capability: Annotated[
        list[str] | None,
        export(
            "--compute-capability SM",
            "Compute capability, such as 86; repeatable (default: this GPU's, or all).",
        ),
    ] = None,
    min_batch: Annotated[int, export("--min-batch N", "Smallest batch size.")] = 1,
    opt_batch: Annotated[int, export("--opt-batch N", "Batch size to optimise for.")] = 32,
    max_batch: Annotated[int, export("--max-batch N", "Largest batch size.")] = 64,
    force: Annotated[
        bool, export("--force", "Export ONNX files that already exist again.")
    ] = False,
    dataset: options.Int8Data = None,
    values: options.FilePreprocessing = None,
    threads: options.Threads = None,
    output: Annotated[
        Path | None, output("--output DIR", "Also copy the engines to this folder.")
    ] = None,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Build TensorRT engines; the target GPU need not be present.

    Engines are built, not run. Beside each engine, a JSON file records what it was built from and
    the TensorRT version, GPU and batch sizes that it is for. Exits with code 1 if TensorRT
    fails to build an engine.

    Examples:

      bench export-tensorrt resnet18 --compute-capability 86 --compute-capability 120

      bench export-tensorrt model.onnx --max-batch 128 --output engines

    """
    options.require_positive(threads=threads)
    size = options.parse_size(input_size)
    preprocessing = options.parse_values(values, "--set")
    from bench.api import export_tensorrt as build
    from bench.export.tensorrt import Profile
    from bench.store.tables.frames import rows_of

    frame = build(
        targets or (),
        flavor=flavor,
        precision=precision,
        dataset=dataset,
        compute_capabilities=capability or (),
        profile=Profile(min_batch, opt_batch, max_batch),
        results=results,
        options=options.parse_values(option),
        input_size=size,
        preprocessing=preprocessing,
        output=output,
        force=force,
        threads=threads,
        say=remarks(quiet=quiet or as_json),
    )
    rows = rows_of(frame)
    failed = typer.Exit(int(any(row["status"] == "failed" for row in rows)))
    if as_json:
        print_json(rows, [row for row in rows if row["error"]])
        raise failed
    names = network_names(rows, results)
    cells = [_cells(row, name) for row, name in zip(rows, names, strict=True)]
    print_table(cells, {"MB": ".1f", "seconds": ".2f"}, needed=4)
    for row in rows:
        if row["error"]:
            print_line(row["error"])
    print_line("Engines were built, not run: running one takes a GPU of its compute capability.")
    raise failed


def _cells(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {
        "network": name,
        "precision": row["precision"],
        "target": row["target"],
        "status": row["status"],
        "MB": scaled(row["bytes"], 1e-6),
        "seconds": row["seconds"],
        "file": f"exports/{row['export'][:12]}…/{row['file']}" if row["file"] else None,
    }
