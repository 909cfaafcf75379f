"""`bench tune`."""

from pathlib import Path
from typing import Annotated, Any

from bench.cli import options
from bench.cli.options import argument, measurement
from bench.cli.output import print_json, print_line, print_text, remarks, stdout


def tune(
    target: Annotated[str, argument("TARGET", "Model, run or .onnx file.")] = "resnet18",
    input_size: options.ImageSize = None,
    option: options.KeyValues = None,
    dataset: options.Int8Data = None,
    batch_size: Annotated[
        list[int] | None,
        measurement(
            "--batch-size N", "Batch size to try; repeatable (default: 1, 8, 32; GPU: also 256)."
        ),
    ] = None,
    streams: Annotated[
        list[int] | None,
        measurement(
            "--streams N",
            "Batches in flight to try; repeatable (default: 1, and one per thread).",
        ),
    ] = None,
    max_latency_ms: Annotated[
        float | None,
        measurement(
            "--max-latency-ms MS",
            "Largest p99 latency of a batch, in milliseconds, at 95 % confidence.",
        ),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        measurement(
            "--min-accuracy PERCENT",
            "Smallest validation accuracy, in per cent (without a split: test accuracy).",
        ),
    ] = None,
    max_minutes: Annotated[
        float, measurement("--max-minutes MINUTES", "Start no new configuration after this time.")
    ] = 10.0,
    device: options.Device = "auto",
    threads: options.Threads = None,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find the fastest way to run a network on this machine.

    Tries backends, precisions, memory formats, threads, streams and batch sizes by successive
    halving, then measures the fastest three and PyTorch eager again, interleaved, in fresh
    processes. There p99 must stay below --max-latency-ms at 95 % confidence of each alone, and
    each answers the run's images itself for --min-accuracy. What is as fast, within the intervals,
    is named. Backends that compile are tried last, with the batch sizes and thread counts that are
    still in the search.

    Example:

      bench tune resnet18 --max-latency-ms 50

    """
    options.require_positive(threads=threads, batch_size=min(batch_size) if batch_size else None)
    size = options.parse_size(input_size)
    accuracy = options.parse_accuracy("--min-accuracy", min_accuracy)
    from bench.measurement.measured_network import find_target
    from bench.measurement.preparation import make_context
    from bench.measurement.tuning import Bounds
    from bench.measurement.tuning import tune as tune_target

    say = remarks(quiet=quiet or as_json)

    def tell(event: dict[str, Any]) -> None:
        if event["event"] == "rung":
            say(f"{event['left']} configurations left after {event['seconds']:g} s each")

    context = make_context(results, device, threads, tell)
    bounds = Bounds(max_latency_ms, accuracy)
    values = options.parse_values(option)
    found = find_target(target, results=results, options=values, input_size=size)
    tuned = tune_target(
        found,
        context,
        bounds,
        batch_sizes=batch_size,
        streams=streams,
        minutes=max_minutes,
        dataset=dataset,
    )
    _show(tuned, results, as_json=as_json)


def _show(tuned: Any, results: Path, *, as_json: bool) -> None:
    from bench.report.tables.throughput import footnotes, throughput_table, with_variants
    from bench.store import Store
    from bench.store.tables.frames import rows_of, throughput_frame

    rows = [r for r in rows_of(throughput_frame(tuned.record.rows)) if r["status"] == "complete"]
    if as_json:
        rows = [{**row, **tuned.outcome(row), "command": tuned.command} for row in rows]
        notes = [*tuned.left_out, f"{_verdict(tuned)} {tuned.best.name}"]
        print_json(rows, remarks=notes)
        return
    rows = with_variants(rows, Store(results).variants_of_runs())
    stdout().print(throughput_table(rows))
    for line in footnotes(rows, results):
        print_text(line)
    for line in tuned.left_out:
        print_text(line)
    print_text("")
    print_text(_verdict(tuned), style="bold")
    print_line(f"  {tuned.command}")


def _verdict(tuned: Any) -> str:
    skipped = f" ({tuned.skipped} more skipped: see --max-minutes)" if tuned.skipped else ""
    tried = f"{tuned.tried} configurations{skipped}"
    if tuned.no_verdict:
        return f"No verdict: {tuned.no_verdict}. First in speed of {tried}, so far:"
    if tuned.as_fast:
        names = ", ".join([tuned.best.name, *tuned.as_fast])
        return f"As fast, within their intervals: {names}; of {tried}. The first of them:"
    if tuned.again == 1:
        return f"The only one of {tried} that was measured again and keeps the bounds:"
    return f"The fastest of the {tuned.again} that were measured again, of {tried}:"
