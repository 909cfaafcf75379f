"""`bench report`."""

import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.cli.output import stdout

if TYPE_CHECKING:
    from bench.store import Store


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
        bool, typer.Option("--publish", help="Write to results/NAME in the current folder.")
    ] = False,
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures", help="Write the page's charts as SVG and PNG here, too.", metavar="DIR"
        ),
    ] = None,
    measurements: Annotated[
        bool,
        typer.Option(
            "--measurements", help="Every measured speed in the results folder, not a study."
        ),
    ] = False,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve", help="Show the page at an address of this machine, live, until Ctrl-C."
        ),
    ] = False,
    port: Annotated[
        int, typer.Option("--port", help="Where --serve listens; 0 takes a free one.", min=0)
    ] = 0,
    results: options.Results = options.DEFAULT_RESULTS,
) -> None:
    """Write a study's page, its picture (SVG and PNG), its data, a table for a paper.

    Examples:

      bench report quickstart --output report

      bench report quickstart --format csv,parquet,latex

      bench report quickstart --format markdown --output - >> "$GITHUB_STEP_SUMMARY"

      bench report quickstart --serve

      bench report --measurements --output speed

    """
    from bench.errors import BenchError
    from bench.report.markdown import markdown
    from bench.report.publish import check_formats, require_finished
    from bench.report.publish import publish as write
    from bench.store import Store

    wanted = [name.strip() for name in formats.split(",")]
    check_formats(wanted)
    to_stdout = str(output) == "-"
    if to_stdout and wanted != ["markdown"]:
        raise BenchError("--output - prints one text: give --format markdown with it")
    if serve and (output or publish or figures):
        raise BenchError("--serve writes no file: leave --output, --figures and --publish away")
    if measurements:
        if study or serve or figures or to_stdout:
            raise BenchError(
                "--measurements goes with --output DIR, --publish, --format markdown,csv only"
            )
        _report_measurements(results, output, wanted, publish=publish)
        return
    store = Store(results)
    record = store.find_study(study)
    if serve:
        _serve(store, record.name, port)
        return
    if to_stdout:
        runs = require_finished(store, record)
        typer.echo(markdown(store, record, runs), nl=False)
        return
    folder = output or (Path("results") / record.name if publish else Path("report") / record.name)
    for path in write(store, record, folder, wanted):
        stdout().print(str(path), markup=False, soft_wrap=True)
    if figures is not None:
        _save_figures(store, record.name, figures)


def _report_measurements(
    results: Path, output: Path | None, formats: list[str], *, publish: bool
) -> None:
    from bench.report.measured import FOLDER, publish_measurements
    from bench.store.measurements import Measurements

    folder = output or Path("results" if publish else "report") / FOLDER
    for path in publish_measurements(Measurements(results), folder, formats):
        stdout().print(str(path), markup=False, soft_wrap=True)


def _save_figures(store: "Store", study: str, folder: Path) -> None:
    from bench.report.page import save_figures

    for path in save_figures(store, study, folder):
        stdout().print(str(path), markup=False, soft_wrap=True)


def _serve(store: "Store", study: str, port: int) -> None:
    from bench.report.page import PageServer

    with PageServer(store, study, port) as server:
        stdout().print(server.url, markup=False, soft_wrap=True)
        sys.stdout.flush()  # also where a pipe is read
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & has it ignored
        with contextlib.suppress(KeyboardInterrupt):  # how a server is ended
            server.serve_forever()
