"""`bench tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli import options
from bench.cli.output import print_json, stderr, stdout


def tune(
    target: Annotated[str, typer.Argument(help="A model, a run or an .onnx file.")] = "resnet18",
    batch_size: Annotated[
        list[int] | None, typer.Option("--batch-size", help="Images; repeatable. 1, 8, 32 without.")
    ] = None,
    latency_bound: Annotated[
        float | None,
        typer.Option("--latency-bound", help="Median time of a batch at most.", metavar="MS"),
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option("--min-accuracy", help="Top-1 of that artefact, 0…1.")
    ] = None,
    max_minutes: Annotated[
        float, typer.Option("--max-minutes", help="Begin no further configuration after so long.")
    ] = 10.0,
    input_size: Annotated[
        int | None, typer.Option("--input-size", help="Side in pixels of a named model's images.")
    ] = None,
    option: options.KeyValues = None,
    results: options.Results = options.DEFAULT_RESULTS,
    device: options.Device = "auto",
    threads: options.Threads = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find the fastest way to run a network here, within a latency and an accuracy.

    Tries every backend, precision, memory format, thread count and batch size by successive
    halving, then measures the winner beside PyTorch eager in one interleaved run. What has to be
    compiled is tried last, with the batch sizes and thread counts that are left by then.

    Example:

      bench tune resnet18 --latency-bound 50

    """
    options.require_positive(input_size=input_size, threads=threads, **_smallest(batch_size))
    from bench.measurement.measured_network import find_target
    from bench.measurement.preparation import Place
    from bench.measurement.tuning import Bounds
    from bench.measurement.tuning import tune as tune_target
    from bench.system.devices import check_count, physical_cores, resolve_device

    console = stderr()

    def tell(event: dict[str, Any]) -> None:
        if event["event"] == "rung" and not (quiet or as_json):
            console.print(f"{event['left']} left after {event['seconds']:g} s each")

    cores = physical_cores()
    check_count("--threads", threads, cores, "core")
    place = Place(Path(results), str(resolve_device(device)), threads or cores, tell)
    bounds = Bounds(latency_bound, min_accuracy)
    found = find_target(
        target, results=results, options=options.parse_values(option), input_size=input_size
    )
    tuned = tune_target(
        found,
        place,
        bounds,
        batch_sizes=batch_size or (1, 8, 32),
        minutes=max_minutes,
    )
    _show(tuned, results, as_json=as_json)


def _smallest(sizes: list[int] | None) -> dict[str, int | None]:
    return {"batch_size": min(sizes) if sizes else None}


def _show(tuned: Any, results: Path, *, as_json: bool) -> None:
    from bench.report.tables.throughput import footnotes, throughput_table
    from bench.store.tables.frames import rows_of, throughput_frame

    rows = [r for r in rows_of(throughput_frame(tuned.record.rows)) if r["status"] == "complete"]
    if as_json:
        print_json([{**row, "command": tuned.command} for row in rows])
        return
    console = stdout()
    console.print(throughput_table(rows))
    for line in footnotes(rows, results):
        console.print(line, markup=False, soft_wrap=True)
    skipped = f" ({tuned.skipped} more: no time, see --max-minutes)" if tuned.skipped else ""
    console.print(f"\nThe fastest of {tuned.tried} configurations{skipped}:", style="bold")
    console.print(f"  {tuned.command}", markup=False, soft_wrap=True)
