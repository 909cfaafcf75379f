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
        Path | None, typer.Option("--output", help="Folder to write to.", metavar="DIR")
    ] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Write to results/STUDY in the current folder.")
    ] = False,
    results: options.Results = options.DEFAULT_RESULTS,
) -> None:
    """Write a study's page (Markdown), its picture (SVG and PNG) and its data (CSV).

    Example:

      bench report quickstart --output report

    """
    from bench.errors import BenchError, nearest
    from bench.report.publish import publish as write
    from bench.store import Store

    store = Store(results)
    known = {record.name: record for record in store.studies()}
    if not known:
        raise BenchError(f"no study in {results}; 'bench run-ablation' runs one")
    name = study or max(known.values(), key=lambda record: record.updated_at).name
    if name not in known:
        raise BenchError(
            f"no study '{name}' in {results}{nearest(name, known)} (there: {', '.join(known)})"
        )
    folder = output or (Path("results") / name if publish else Path("report") / name)
    for path in write(store, known[name], folder):
        stdout().print(str(path), markup=False, soft_wrap=True)
