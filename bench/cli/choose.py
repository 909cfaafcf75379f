"""`bench choose`."""

from typing import Annotated, Any

import typer

from bench.cli import options
from bench.cli.options import option
from bench.cli.output import print_json, print_table, print_text, scaled

_FORMS = {
    "accuracy_%": ".2f",
    "validation_%": ".2f",
    "drop (points)": ".2f",
    "p99_ms": ".3g",
    "images/s": "",
    "MB": ".2f",
}


def choose(
    max_latency_ms: Annotated[
        float,
        option("--max-latency-ms MS", "Largest p99 latency of one batch, in milliseconds.", min=0),
    ],
    max_accuracy_drop: Annotated[
        float,
        option(
            "--max-accuracy-drop POINTS",
            "Largest drop from the best accuracy (of validation), in percentage points.",
            min=0,
        ),
    ] = 0.5,
    study: Annotated[str | None, option("--study NAME", "Only consider this study's runs.")] = None,
    boundary: Annotated[
        str | None,
        option("--boundary NAME", "Only rows with this boundary: compute, copies or end-to-end."),
    ] = None,
    scenario: Annotated[
        str | None,
        option("--scenario NAME", "Only rows of this scenario: offline, single-stream or server."),
    ] = None,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
) -> None:
    """Choose the network to ship, given limits on latency and accuracy.

    Prints the measured configurations, the Pareto front, and the fastest one within the limits.
    Accuracies are compared on the validation split if every row has one, else on the test split.
    Speeds are compared within the newest measurement that has a row within the limits, and with
    one boundary and scenario; what is as fast, within the intervals, is named. p99 is bounded at
    95 % confidence of each row alone. Rows whose speed cannot be judged (fewer than six processes,
    a busy machine), or without a p99 or an accuracy, are shown with that note and not chosen. Uses
    the records of 'bench export-onnx' and 'bench throughput'. Exits with code 1 if no
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
        boundary=boundary,
        scenario=scenario,
    )
    rows = rows_of(choice.rows)
    notes = [f"Cannot be chosen: {reason}" for reason in choice.reasons]
    notes += [f"Left out: {count} {reason}" for reason, count in choice.passed_over.items()]
    if as_json:
        errors = [] if choice.chosen else [{"error": choice.sentence}]
        notes.append(choice.sentence)
        print_json(rows, errors, remarks=notes)
    else:
        extra = [name for name in _EXTRA if any(row[name] is not None for row in rows)]
        cells = [_cells(row, describe(row), extra) for row in rows]
        print_table(cells, _FORMS, needed=6 + len(extra))
        for note in notes:
            print_text(note)
        print_text(choice.sentence, style="bold")
    raise typer.Exit(int(choice.chosen is None))


# Columns that are shown where a row has them: name in the rows → heading.
_EXTRA = {"accuracy_low": "95_%_interval", "validation_accuracy": "validation_%"}


def _cells(row: dict[str, Any], name: str, extra: list[str]) -> dict[str, Any]:
    from bench.report.findings.fastest import rounded

    low, high = (scaled(row[f"accuracy_{end}"], 100) for end in ("low", "high"))
    shown = {
        "accuracy_low": None if low is None or high is None else f"{low:.2f}-{high:.2f}",
        "validation_accuracy": scaled(row["validation_accuracy"], 100),
    }
    return {
        "network": name,
        "accuracy_%": scaled(row["test_accuracy"], 100),
        **{_EXTRA[key]: shown[key] for key in extra},
        "drop (points)": row["drop_points"],
        "p99_ms": row["latency_ms"],
        "images/s": rounded(row["images_per_second"]),
        "fits": "yes" if row["fits"] else "",
        "front": "*" if row["front"] else "",
        "note": row["note"],
        "MB": scaled(row["bytes"], 1e-6),
    }
