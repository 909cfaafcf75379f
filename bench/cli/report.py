"""`bench report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.cli.output import stdout


def report(
    study: Annotated[
        str | None, typer.Argument(help="A study's name; the one last run without.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Folder to write to; - is stdout.", metavar="DIR"),
    ] = None,
    formats: Annotated[
        str,
        typer.Option("--format", help="csv, parquet, markdown, latex, html.", metavar="LIST"),
    ] = "markdown,csv",
    publish: Annotated[
        bool, typer.Option("--publish", help="Write to results/STUDY in the current folder.")
    ] = False,
    results: options.Results = options.DEFAULT_RESULTS,
) -> None:
    """Write a study's page, its picture (SVG and PNG), its data, a table for a paper.

    Examples:

      bench report quickstart --output report

      bench report quickstart --format csv,parquet,latex

      bench report quickstart --format markdown --output - >> "$GITHUB_STEP_SUMMARY"

    """
    from bench.errors import BenchError, nearest
    from bench.report.publish import check_formats, markdown, require_finished
    from bench.report.publish import publish as write
    from bench.store import Store

    wanted = [name.strip() for name in formats.split(",")]
    check_formats(wanted)
    to_stdout = str(output) == "-"
    if to_stdout and wanted != ["markdown"]:
        raise BenchError("--output - prints one text: give --format markdown with it")
    if not results.exists():
        raise BenchError(f"no results folder at {results}; 'bench run-ablation' makes one")
    store = Store(results)
    known = {record.name: record for record in store.studies()}
    if not known:
        raise BenchError(f"no study in {results}; 'bench run-ablation' runs one")
    name = study or max(known.values(), key=lambda record: record.updated_at).name
    if name not in known:
        raise BenchError(
            f"no study '{name}' in {results}{nearest(name, known)} (there: {', '.join(known)})"
        )
    if to_stdout:
        runs = require_finished(store, known[name])
        typer.echo(markdown(store, known[name], runs, picture=False), nl=False)
        return
    folder = output or (Path("results") / name if publish else Path("report") / name)
    for path in write(store, known[name], folder, wanted):
        stdout().print(str(path), markup=False, soft_wrap=True)
