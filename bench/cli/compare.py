"""`bench compare`."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

from bench.cli import options
from bench.cli.options import argument, option, output
from bench.cli.output import print_json, print_line, print_table


def compare(
    baseline: Annotated[
        str, argument("BASELINE", "Folder of a measurement, a run or results, or a JSON file.")
    ],
    candidate: Annotated[str, argument("CANDIDATE", "What to compare with the baseline.")],
    threshold: Annotated[float, option("--threshold SHARE", "Relative change that counts.")] = 0.05,
    form: Annotated[
        Literal["table", "markdown"], output("--format", "Format of the table.")
    ] = "table",
    as_json: options.Json = False,
) -> None:
    """Compare two measurements; exit with code 1 if one became slower.

    A configuration is slower if the whole 95 % interval of its speed ratio lies beyond the
    threshold. Measure both on the same machine, one right after the other. For a results folder,
    its latest measurement and the training speed of its runs are compared.

    Example:

      bench compare main-results/ branch-results/ --threshold 0.03 --format markdown

    """
    from bench.measurement.compare import compare as compare_speeds
    from bench.measurement.compared_speeds import load_speeds

    changes, remarks = compare_speeds(load_speeds(baseline), load_speeds(candidate), threshold)
    rows = [asdict(change) for change in changes]
    slower = [row for row in rows if row["verdict"] == "slower"]
    if as_json:
        print_json(rows, [{"error": row["configuration"] + " became slower"} for row in slower])
    elif form == "markdown":
        print("\n".join(_markdown(rows, remarks)))  # noqa: T201 - to be pasted, unwrapped
    else:
        print_table([_shown(row) for row in rows], {"speed": ""})
        for remark in remarks:
            print_line(remark)
    raise typer.Exit(int(bool(slower)))


def _shown(row: dict[str, Any]) -> dict[str, str]:
    return {
        "configuration": row["configuration"],
        "speed": f"{row['ratio']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
        "verdict": row["verdict"],
    }


def _markdown(rows: list[dict[str, Any]], remarks: list[str]) -> list[str]:
    lines = ["| configuration | speed, candidate / baseline | verdict |", "|---|---:|---|"]
    for row in map(_shown, rows):
        verdict = f"**{row['verdict']}**" if row["verdict"] == "slower" else row["verdict"]
        lines.append(f"| {row['configuration']} | {row['speed']} | {verdict} |")
    return [*lines, *(f"\n{remark}" for remark in remarks)]
