"""`bench export-tensorrt`."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.cli.output import print_json, remarks, simple_table, stdout
from bench.export.settings import Flavor, Precision


def export_tensorrt(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Runs, studies, models or .onnx files (default: as in export-onnx).",
            metavar="TARGET",
        ),
    ] = None,
    input_size: options.ImageSize = None,
    option: options.KeyValues = None,
    flavor: Annotated[
        Flavor,
        options.export("--flavor", help="TensorRT for RTX (builds without a GPU) or standard."),
    ] = "rtx",
    precision: Annotated[
        Precision,
        options.export(
            "--precision",
            help="Precision; .onnx files keep theirs, unless it is int8.",
        ),
    ] = "fp32",
    capability: Annotated[
        list[str] | None,
        options.export(
            "--compute-capability",
            help="Compute capability, such as 86; repeatable (default: this GPU's, or all).",
            metavar="SM",
        ),
    ] = None,
    min_batch: Annotated[
        int, options.export("--min-batch", help="Smallest batch size.", metavar="N")
    ] = 1,
    opt_batch: Annotated[
        int, options.export("--opt-batch", help="Batch size to optimise for.", metavar="N")
    ] = 32,
    max_batch: Annotated[
        int, options.export("--max-batch", help="Largest batch size.", metavar="N")
    ] = 64,
    force: Annotated[
        bool, options.export("--force", help="Export ONNX files that already exist again.")
    ] = False,
    dataset: options.Int8Data = None,
    values: options.FilePreprocessing = None,
    threads: options.Threads = None,
    output: Annotated[
        Path | None,
        options.output("--output", help="Also copy the engines to this folder.", metavar="DIR"),
    ] = None,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Build TensorRT engines; the target GPU need not be present.

    Engines are built, not run. Beside each engine, a JSON file records what it was built from and
    the TensorRT version, GPU and batch sizes that it is for.

    Examples:

      bench export-tensorrt resnet18 --compute-capability 86 --compute-capability 120

      bench export-tensorrt model.onnx --max-batch 128 --output engines

    """
    options.require_positive(threads=threads)
    size = options.parse_size(input_size)
    preprocessing = options.parse_values(values, "--set")
    from bench.api import export_tensorrt as export
    from bench.export.tensorrt import Profile
    from bench.store.tables.frames import rows_of

    frame = export(
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
    console.print("Engines were built, not run: running one takes a GPU of its compute capability.")
