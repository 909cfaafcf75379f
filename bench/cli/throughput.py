"""`bench throughput`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from bench.cli import options
from bench.cli.measuring_progress import measuring_view
from bench.cli.options import argument, hardware, measurement, output, what
from bench.cli.output import (
    print_json,
    print_line,
    print_table,
    print_text,
    prove_folder,
    remarks,
    stdout,
)
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.store.measurements import MeasurementRecord

Repeated = list[str] | None
_LAYERS_SHOWN = 12
_LAYER_FORMS = {"ms": ".3g", "share_%": ".1f"}


def throughput(
    targets: Annotated[
        Repeated,
        argument("TARGET", "Models, runs, studies or .onnx/.engine files (default: resnet18)."),
    ] = None,
    backend: Annotated[
        Repeated,
        what(
            "--backend NAME",
            "Backend, see 'bench list backends'; repeatable (default: eager, onnxruntime).",
        ),
    ] = None,
    precision: Annotated[
        Repeated,
        what(
            "--precision NAME",
            "fp32, tf32, bf16, fp16 or int8; repeatable (default: fp32, or the file's).",
        ),
    ] = None,
    batch_size: Annotated[
        Repeated,
        what(
            "--batch-size N",
            "Images per batch, or auto to search for it; repeatable (default: 1, 32).",
        ),
    ] = None,
    memory_format: Annotated[
        Repeated,
        what(
            "--memory-format NAME", "contiguous or channels_last; repeatable (default: contiguous)."
        ),
    ] = None,
    streams: Annotated[
        list[int] | None,
        what("--streams N", "Batches in flight at once, on a CPU; repeatable (default: 1)."),
    ] = None,
    scenario: Annotated[
        str, what("--scenario NAME", "offline, single-stream or server.")
    ] = "offline",
    boundary: Annotated[
        Repeated,
        what(
            "--boundary NAME",
            "What to time: compute, copies, end-to-end or all (default: compute).",
        ),
    ] = None,
    reference: Annotated[
        str,
        what(
            "--reference NAME", "Backend, or one of the TARGETs, that the others are compared with."
        ),
    ] = "eager",
    input_size: options.ImageSize = None,
    option: options.KeyValues = None,
    dataset: options.Int8Data = None,
    target_width: Annotated[
        float,
        measurement(
            "--target-width SHARE", "Stop at this relative half-width of the 95 % interval."
        ),
    ] = 0.02,
    processes: Annotated[
        str,
        measurement(
            "--processes N", "Number of fresh processes, or auto: 6 to 24 (1: a quick look)."
        ),
    ] = "auto",
    max_seconds: Annotated[
        float,
        measurement(
            "--max-seconds SECONDS",
            "Longest time per configuration, over all processes (server: in each).",
        ),
    ] = 12.0,
    max_latency_ms: Annotated[
        float | None,
        measurement(
            "--max-latency-ms MS", "Largest p99 latency of the server scenario, in milliseconds."
        ),
    ] = None,
    isolate: Annotated[
        bool, measurement("--isolate", "Run each configuration in its own process.")
    ] = False,
    timeout: Annotated[
        float,
        measurement(
            "--timeout SECONDS", "Longest wait for one answer of an isolated configuration."
        ),
    ] = 600.0,
    clear_l2: Annotated[
        bool, measurement("--clear-l2", "Clear the GPU's L2 cache before each batch.")
    ] = False,
    layers: Annotated[
        bool, measurement("--layers", "Also profile the time of each layer.")
    ] = False,
    cold_start: Annotated[
        bool,
        measurement(
            "--cold-start", "Also measure import, load and first inference in fresh processes."
        ),
    ] = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
    pin: Annotated[
        bool, hardware("--pin", "Bind the process to as many cores as it has threads.")
    ] = False,
    figures: Annotated[
        Path | None,
        output(
            "--figures DIR",
            "Write charts (SVG, PNG) to this folder: roofline, time by layer (--layers).",
        ),
    ] = None,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure throughput and latency, with confidence intervals.

    All configurations are measured interleaved, in several fresh processes (--processes), so that
    their ratios are comparable, with intervals meant to hold for other runs, too. One process is a
    quick look, whose intervals hold within this run only: nothing is claimed.
    While another bench command trains or measures on this machine, this one waits for its end.
    Every row shows what really ran. Raw samples are kept in the results folder. For a study, one
    run of each variant is measured.

    Examples:

      bench throughput

      bench throughput resnet50 --backend eager --backend compile --batch-size 8

      bench throughput model.onnx --scenario single-stream

      bench throughput model.onnx --backend openvino --streams 1 --streams 2

      bench throughput resnet50 --layers --figures pictures

    """
    options.require_positive(threads=threads)
    sizes = [_number_or_auto("--batch-size", text) for text in batch_size or []]
    from bench.measurement.configurations import Request
    from bench.measurement.measure import measure_names
    from bench.measurement.preparation import make_context

    prove_folder(figures, "--figures")
    request = Request(
        backends=tuple(backend or ()),
        precisions=tuple(precision or ()),
        batch_sizes=tuple(sizes),
        memory_formats=tuple(memory_format or ("contiguous",)),
        boundaries=_boundaries(boundary),
        streams=tuple(streams or (1,)),
        scenario=cast("Any", scenario),  # checked there
        reference=reference,
        target_width=target_width,
        processes=_number_or_auto("--processes", processes),
        max_seconds=max_seconds,
        isolate=isolate,
        timeout=timeout,
        latency_bound_ms=max_latency_ms,
        pin=pin,
        clear_l2=clear_l2,
        layers=layers,
        cold_start=cold_start,
        options=options.parse_values(option),
        input_size=options.parse_size(input_size),
        dataset=dataset,
    )
    with measuring_view(quiet=quiet or as_json) as on_event:
        context = make_context(results, device, threads, on_event)
        record = measure_names(targets or [], request, context)
    if figures is not None:
        _save_figures(record, figures, say=remarks(quiet=quiet or as_json))
    raise typer.Exit(_show(record, results, as_json=as_json))


def _show(record: "MeasurementRecord", results: Path, *, as_json: bool) -> int:
    """Print the rows and return the exit code."""
    from bench.store.tables.frames import cold_start_frame, rows_of, throughput_frame

    rows = rows_of(throughput_frame(record.rows))
    cold_starts = rows_of(cold_start_frame(record.cold_starts))
    errors = _errors(record, [*rows, *cold_starts])
    if as_json:
        print_json([*rows, *cold_starts], errors)
    else:
        from bench.report.findings.fastest import closing_lines
        from bench.report.tables.cold_start import cold_start_lines, cold_start_text
        from bench.report.tables.throughput import footnotes, throughput_table, with_variants
        from bench.store import Store

        variants = Store(results).variants_of_runs()
        rows, cold_starts = with_variants(rows, variants), with_variants(cold_starts, variants)
        stdout().print(throughput_table(rows))
        for line in footnotes(rows, results):
            print_text(line)
        _show_layers(record)
        if cold_starts:
            for line in cold_start_lines(cold_starts):
                print_text(line)
            stdout().print(cold_start_text(cold_starts).to_terminal(left=("backend",)))
        for line in closing_lines(rows):
            print_text(line, style="bold")
    if not any(row["status"] == "complete" for row in rows):
        if errors and not as_json:
            raise BenchError(f"nothing could run: {errors[0]['error']}")
        return 2
    if record.noise.get("interrupted"):
        return 130
    return int(bool(errors))


def _errors(record: "MeasurementRecord", rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what failed: configurations, cold starts, and profiles by layer."""
    shown = ("model", "backend", "precision", "batch_size", "status", "error")
    fine = {"complete", "unsupported"}
    failed = [{key: row[key] for key in shown} for row in rows if row["status"] not in fine]
    profiles = [
        {"configuration": name, **share}  # the error takes the place of the layers
        for name, details in record.lanes.items()
        for share in details.get("layers", [])
        if share.get("status", "complete") not in fine
    ]
    return failed + profiles


def _save_figures(record: "MeasurementRecord", folder: Path, say: Callable[[str], None]) -> None:
    """Save the charts of a measurement; report their files, and why a chart is missing."""
    from bench.report.charts.draw_matplotlib import save_charts
    from bench.report.charts.throughput import throughput_charts
    from bench.store.tables.frames import throughput_frame

    for chart in throughput_charts(throughput_frame(record.rows), record):
        if chart.missing is not None:
            say(f"no chart '{chart.title}': {chart.missing}")
        for path in save_charts([chart], folder):
            say(f"wrote {path}")


def _show_layers(record: "MeasurementRecord") -> None:
    """Print each configuration's slowest layers and operators."""
    from bench.report.charts.layers import coverage_line, shortcut_line

    for name, details in record.lanes.items():
        shares = details.get("layers", [])
        if shares and "error" in shares[0]:
            print_line(f"{name}: {shares[0]['error']}")
            continue
        for by in ("layer", "operator"):
            part = [share for share in shares if share["by"] == by]
            slowest = sorted(part, key=lambda share: -share["share"])[:_LAYERS_SHOWN]
            if slowest:
                print_line(f"\n{name}, by {by}", style="bold")
                print_table([_layer_cells(share) for share in slowest], _LAYER_FORMS)
        if shares:
            print_line(f"\n{shortcut_line(shares)}")
            measured = details.get("measured_milliseconds")
            if measured is not None and (line := coverage_line(shares, measured)):
                print_line(line)


def _layer_cells(share: dict[str, Any]) -> dict[str, Any]:
    kind = {} if share["kind"] == share["name"] else {"kind": share["kind"]}
    return {
        "name": share["name"],
        **kind,
        "ms": share["milliseconds"],
        "share_%": share["share"] * 100,
    }


def _number_or_auto(option: str, text: str) -> int | str:
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise BenchError(f"{option} {text}: it must be a number, or auto") from None


def _boundaries(given: Repeated) -> tuple[Any, ...]:
    from bench.measurement.backends import BOUNDARIES

    return BOUNDARIES if "all" in (given or ()) else tuple(given or ("compute",))
