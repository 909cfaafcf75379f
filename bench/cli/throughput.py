"""`bench throughput`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from bench.cli import options
from bench.cli.output import print_json, remarks, simple_table, stderr, stdout

Repeated = list[str] | None
_LAYERS_SHOWN = 12


def throughput(
    targets: Annotated[
        Repeated,
        typer.Argument(
            help="Models, runs, studies, .onnx files; resnet18 without.", metavar="[TARGET…]"
        ),
    ] = None,
    backend: Annotated[
        Repeated, typer.Option("--backend", help="See 'bench list backends'; repeatable.")
    ] = None,
    precision: Annotated[
        Repeated, typer.Option("--precision", help="fp32, tf32, bf16, fp16 or int8; repeatable.")
    ] = None,
    batch_size: Annotated[
        Repeated,
        typer.Option("--batch-size", help="Images, or auto: doubled to the knee; repeatable."),
    ] = None,
    memory_format: Annotated[
        Repeated, typer.Option("--memory-format", help="contiguous or channels_last; repeatable.")
    ] = None,
    scenario: Annotated[
        str, typer.Option("--scenario", help="offline, single-stream or server.")
    ] = "offline",
    boundary: Annotated[
        Repeated,
        typer.Option("--boundary", help="compute, copies, end-to-end or all: what is timed."),
    ] = None,
    reference: Annotated[
        str, typer.Option("--reference", help="The backend others are compared with.")
    ] = "eager",
    input_size: Annotated[
        int | None, typer.Option("--input-size", help="Side in pixels of a named model's images.")
    ] = None,
    option: options.KeyValues = None,
    target_width: Annotated[
        float, typer.Option("--target-width", help="Stop at this half-width of the interval.")
    ] = 0.02,
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", help="For each configuration, after warm-up.")
    ] = 12.0,
    latency_bound: Annotated[
        float | None,
        typer.Option("--latency-bound", help="p99 of the server scenario.", metavar="MS"),
    ] = None,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="Each configuration in a process of its own.")
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds an isolated one may take for an answer.")
    ] = 600.0,
    pin: Annotated[bool, typer.Option("--pin", help="Bind to as many cores as threads.")] = False,
    clear_l2: Annotated[
        bool, typer.Option("--clear-l2", help="Clear the GPU's L2 cache before each sample.")
    ] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="Show where the time goes, layer by layer.")
    ] = False,
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures",
            help="Write the roofline, and with --layers the layers' times, as SVG and PNG here.",
            metavar="DIR",
        ),
    ] = None,
    results: options.Results = options.DEFAULT_RESULTS,
    device: options.Device = "auto",
    threads: options.Threads = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure how fast networks run: with an interval, for what really ran.

    Everything asked for is interleaved in one run, so that ratios hold; every raw sample is
    kept in the results folder. Of a study, one run of each variant is measured.

    Examples:

      bench throughput

      bench throughput resnet50 --backend eager --backend compile --batch-size 8

      bench throughput model.onnx --scenario single-stream

      bench throughput resnet50 --layers --figures pictures

    """
    options.require_positive(input_size=input_size, threads=threads)
    sizes = [_batch_size(text) for text in batch_size or []]
    from bench.measurement import measure as measurement

    if figures is not None:
        from bench.export.output import check_output

        check_output(figures, "--figures")
    boundaries = _boundaries(boundary)
    values = options.parse_values(option)
    with _progress(quiet=quiet or as_json) as on_event:
        frame = measurement.measure(
            targets or [],
            results=results,
            device=device,
            threads=threads,
            options=values,
            input_size=input_size,
            on_event=on_event,
            backends=tuple(backend or ()),
            precisions=tuple(precision or ()),
            batch_sizes=tuple(sizes),
            memory_formats=tuple(memory_format or ("contiguous",)),
            boundaries=boundaries,
            scenario=scenario,
            reference=reference,
            target_width=target_width,
            max_seconds=max_seconds,
            latency_bound_ms=latency_bound,
            isolate=isolate,
            timeout=timeout,
            pin=pin,
            clear_l2=clear_l2,
            layers=layers,
        )
    if figures is not None:
        _save_figures(frame, results, figures, say=remarks(quiet=quiet or as_json))
    raise typer.Exit(_show(frame, results, as_json=as_json, layers=layers))


def _show(frame: Any, results: Path, *, as_json: bool, layers: bool) -> int:
    """Print the rows; returns the exit code."""
    from bench.store.tables.frames import rows_of

    rows = rows_of(frame)
    errors = [r for r in rows if r["status"] not in {"complete", "unsupported"}]
    shown = ("model", "backend", "precision", "batch_size", "status", "error")
    if as_json:
        print_json(rows, [{key: row[key] for key in shown} for row in errors])
    else:
        from bench.report.tables.throughput import footnotes, throughput_table

        console = stdout()
        console.print(throughput_table(rows))
        for line in footnotes(rows, results):
            console.print(line, markup=False, soft_wrap=True)
        if layers:
            _show_layers(results, str(rows[0]["measurement"]))
    if not any(row["status"] == "complete" for row in rows):
        from bench.errors import BenchError

        if errors and not as_json:
            raise BenchError(f"nothing could run: {errors[0]['error']}")
        return 2
    return int(bool(errors))


def _save_figures(frame: Any, results: Path, folder: Path, say: Callable[[str], None]) -> None:
    """Save what can be drawn of a measurement; say where, and why something is not."""
    from bench.report.charts.draw_matplotlib import save_charts
    from bench.report.charts.throughput import throughput_charts
    from bench.store.measurements import Measurements

    record = Measurements(results).find(str(frame["measurement"].iloc[0]))
    for chart in throughput_charts(frame, record):
        if chart.missing is not None:
            say(f"no picture '{chart.title}': {chart.missing}")
        for path in save_charts([chart], folder):
            say(f"wrote {path}")


def _show_layers(results: Path, measurement: str) -> None:
    """Print each configuration's slowest layers, and its time by kind of operator."""
    from bench.report.charts.layers import shortcut_line
    from bench.store.measurements import Measurements

    console = stdout()
    for name, lane in Measurements(results).find(measurement).lanes.items():
        shares = lane.get("layers", [])
        if shares and "error" in shares[0]:
            console.print(f"{name}: {shares[0]['error']}", markup=False)
            continue
        for by in ("layer", "operator"):
            part = [share for share in shares if share["by"] == by]
            slowest = sorted(part, key=lambda share: -share["share"])[:_LAYERS_SHOWN]
            if slowest:
                console.print(f"\n{name}, by {by}", style="bold", markup=False)
                cells = [_layer_cells(share) for share in slowest]
                console.print(simple_table(cells, right=("ms", "share")))
        if shares:
            console.print(f"\n{shortcut_line(shares)}", markup=False, soft_wrap=True)


def _layer_cells(share: dict[str, Any]) -> dict[str, str]:
    kind = {} if share["kind"] == share["name"] else {"kind": share["kind"]}
    figures = {"ms": f"{share['milliseconds']:.3g}", "share": f"{share['share']:.1%}"}
    return {"name": share["name"], **kind, **figures}


def _batch_size(text: str) -> int | str:
    from bench.errors import BenchError

    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise BenchError(f"--batch-size {text}: write a number of images, or auto") from None


def _boundaries(given: Repeated) -> tuple[Any, ...]:
    from bench.measurement.timing.runner import BOUNDARIES

    return BOUNDARIES if "all" in (given or ()) else tuple(given or ("compute",))


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Any]:
    """Show what is being done on stderr: one live line on a terminal, few lines elsewhere."""
    if quiet:
        yield lambda _event: None
        return
    console = stderr()
    if not console.is_terminal:
        yield lambda event: _tell(console, event)
        return
    with console.status("starting") as status:
        yield lambda event: status.update(escape(_text(event)))


def _tell(console: Any, event: dict[str, Any]) -> None:
    if event["event"] != "round":
        console.print(_text(event), markup=False, soft_wrap=True)


_TEXTS = {
    "export": "exporting {what} to ONNX",
    "prepare": "preparing {what}",
    "ceiling": "measuring the machine's ceiling",
    "warm_up": "warming up {track}",
    "failed": "{track}: {error}",
    "batch": "trying batch sizes of {what}",
    "server": "trying {what}",
}


def _text(event: dict[str, Any]) -> str:
    if event["event"] == "round":
        shares = event["shares"].values()
        done = sum(shares) / max(1, len(shares))
        return f"sampling: round {event['round']}, {done:.0%} of the longest it may take"
    return _TEXTS[event["event"]].format(**event)
