"""`bench choose`."""

from typing import Annotated, Any

import typer

from bench.cli import options
from bench.cli.output import print_json, simple_table, stdout

_COLUMNS = (
    "network",
    "images_per_second",
    "p99_ms",
    "accuracy_%",
    "drop",
    "MB",
    "front",
    "fits",
    "note",
)
_RIGHT = _COLUMNS[1:6]


def choose(
    max_latency_ms: Annotated[
        float,
        typer.Option(
            "--max-latency-ms",
            help="Largest p99 latency of one batch, in milliseconds.",
            metavar="MS",
            min=0,
        ),
    ],
    max_accuracy_drop: Annotated[
        float,
        typer.Option(
            "--max-accuracy-drop",
            help="Largest drop from the best test accuracy, in percentage points.",
            metavar="POINTS",
            min=0,
        ),
    ] = 0.5,
    study: Annotated[
        str | None,
        typer.Option("--study", help="Only consider this study's runs.", metavar="NAME"),
    ] = None,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
) -> None:
    """Choose the network to ship, given limits on latency and accuracy.

    Prints the measured configurations, the Pareto front, and the fastest one within the limits.
    Rows that are noisy, or without a p99 or an accuracy, are shown with that note and not chosen.
    Uses the records of 'bench export-onnx' and 'bench throughput'. Exits with code 1 if no
    configuration is within the limits.

    Example:

      bench choose --max-latency-ms 5 --max-accuracy-drop 0.5

    """
    from bench.report.findings.choice import choose as choose_among
    from bench.report.findings.choice import describe, measured_rows
    from bench.store import Store
    from bench.store.tables.frames import rows_of

    choice = choose_among(
        measured_rows(Store(results), study),
        max_latency_ms=max_latency_ms,
        max_accuracy_drop=max_accuracy_drop,
    )
    rows = rows_of(choice.rows)
    if as_json:
        print_json(rows, [] if choice.chosen else [{"error": choice.sentence}])
    else:
        console = stdout()
        shown = [dict(zip(_COLUMNS, _cells(row, describe(row)), strict=True)) for row in rows]
        console.print(simple_table(shown, right=_RIGHT))
        for reason in choice.reasons:
            console.print(f"Cannot be chosen: {reason}", markup=False, soft_wrap=True)
        for reason, count in choice.passed_over.items():
            console.print(f"Left out: {count} {reason}", markup=False)
        console.print(choice.sentence, style="bold", markup=False, soft_wrap=True)
    raise typer.Exit(int(choice.chosen is None))


def _cells(row: dict[str, Any], name: str) -> tuple[str | None, ...]:
    size, accuracy = row["bytes"], row["test_accuracy"]
    return (
        name,
        f"{row['images_per_second']:,.4g}",
        _figure(row["latency_ms"], ".3g"),
        _figure(None if accuracy is None else accuracy * 100, ".2f"),
        _figure(row["drop_points"], ".2f"),
        _figure(None if size is None else size / 1e6, ".2f"),
        "*" if row["front"] else "",
        "yes" if row["fits"] else "",
        row["note"],
    )


def _figure(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form)
