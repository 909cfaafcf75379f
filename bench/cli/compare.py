"""`bench compare`."""

from dataclasses import asdict
from math import isfinite
from typing import Annotated, Any, Literal

import typer

from bench.cli import options
from bench.cli.options import argument, option, output
from bench.cli.output import print_json, print_table, print_text, remarks
from bench.errors import BenchError

_UNDECIDED, _INTERRUPTED = 3, 130  # exit codes
_NARROWER = "measure with --processes 24, or a larger --max-seconds, for narrower intervals"
_NARROWER_PAIRS = "a larger --max-seconds, after --, makes them narrower"


def compare(
    compared: Annotated[
        list[str],
        argument(
            "BASELINE [CANDIDATE]", "Folders of measurements, runs or results, or JSON files."
        ),
    ],
    python: Annotated[
        list[str] | None,
        option("--python PATH", "Interpreter of an environment; twice: the old and the new one."),
    ] = None,
    threshold: Annotated[float, option("--threshold SHARE", "Relative change that counts.")] = 0.05,
    absolute: Annotated[
        bool, option("--absolute", "Judge images/s of two measurements, also of one process.")
    ] = False,
    form: Annotated[
        Literal["table", "markdown"], output("--format", "Format of the table.")
    ] = "table",
    as_json: options.Json = False,
) -> None:
    """Compare two measurements; exit with code 1 if one became slower.

    A configuration is slower (faster) if the whole 95 % interval of the change lies beyond the
    threshold, and the same if it lies within; else it is undecided. Each is compared by its ratio
    to the reference that was measured beside it. Images/s are judged only where both are of six
    processes or more (bench throughput --processes) and, at a threshold below 0.05, of three
    measurements or more; intervals over so many are judged however wide they are. A reference that
    is measured fewer than three times is only reported. If nothing became slower, but something
    is undecided or could not be judged, the exit code is 3. For a results folder, its latest
    measurement and the training speed of its runs are compared.

    One measurement alone is judged against the reference that was measured beside each of its
    configurations. With --python, one process of each environment measures the targets in turn;
    after --, give targets and options of bench throughput. A process that crashes or hangs costs
    its pair; Ctrl-C judges the pairs that are complete, and the exit code is 130.

    Examples:

      bench compare main-results/ branch-results/ --threshold 0.03 --format markdown

      bench compare --python old/bin/python --python new/bin/python -- model.onnx --batch-size 1

    """
    from bench.measurement.compared_speeds import load_speeds
    from bench.measurement.speed_changes import compare as compare_speeds
    from bench.measurement.speed_changes import judge, undecided_remark

    interrupted = False
    if absolute and (python or len(compared) == 1):
        raise BenchError("--absolute goes with two measurements; leave it out")
    if python:
        from bench.measurement.environments import compare_environments

        say = remarks(quiet=as_json)
        changes, notes, interrupted = compare_environments(
            python, compared, threshold, on_event=lambda event: say(_progress(event))
        )
    elif len(compared) == 1:
        changes, notes = judge(load_speeds(compared[0]), threshold)
    elif len(compared) == 2:  # noqa: PLR2004 - baseline and candidate
        before, now = map(load_speeds, compared)
        changes, notes = compare_speeds(before, now, threshold, absolute=absolute)
    else:
        raise BenchError(f"bench compare takes one or two measurements, not {len(compared)}")
    if (undecided := undecided_remark(changes, threshold)) is not None:
        notes = [*notes, f"{undecided}; {_NARROWER_PAIRS if python else _NARROWER}."]
    rows = [asdict(change) for change in changes]
    slower = [row for row in rows if row["verdict"] == "slower"]
    if as_json:
        errors = [{"error": row["configuration"] + " became slower"} for row in slower]
        print_json(rows, errors, remarks=notes)
    elif form == "markdown":
        print("\n".join(_markdown(rows, notes)))  # noqa: T201 - to be pasted, unwrapped
    else:
        print_table([_shown(row) for row in rows], {"speed": ""}, prose=("verdict",), needed=3)
        for note in notes:
            print_text(note)
    open_rows = [row for row in rows if row["verdict"] in {"undecided", "not judged"}]
    if interrupted:
        raise typer.Exit(_INTERRUPTED)
    raise typer.Exit(1 if slower else _UNDECIDED if open_rows else 0)


def _progress(event: dict[str, Any]) -> str:
    if event["event"] == "lost":
        return f"pair {event['number']} is lost: {event['error']}"
    return f"pair {event['number']} of {event['of']}"


def _shown(row: dict[str, Any]) -> dict[str, str]:
    return {
        "configuration": row["configuration"],
        "verdict": row["verdict"] + (f": {row['reason']}" if row["reason"] else ""),
        "speed": f"{row['ratio']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        if isfinite(row["ratio"])
        else "",
        "by": row["basis"],
    }


def _markdown(rows: list[dict[str, Any]], remarks: list[str]) -> list[str]:
    from bench.report.tables.text_table import markdown_text

    lines = ["| configuration | candidate / baseline | by | verdict |", "|---|---:|---|---|"]
    for row in map(_shown, rows):
        verdict = markdown_text(row["verdict"])
        if verdict == "slower":
            verdict = f"**{verdict}**"
        name = markdown_text(row["configuration"])
        lines.append(f"| {name} | {row['speed']} | {row['by']} | {verdict} |")
    return [*lines, *(f"\n{markdown_text(remark)}" for remark in remarks)]
