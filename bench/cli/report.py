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
        str | None,
        typer.Argument(help="Name of a study (default: the most recent).", metavar="STUDY"),
    ] = None,
    measurements: Annotated[
        bool,
        typer.Option(
            "--measurements", help="Report all measured speeds in the results folder, not a study."
        ),
    ] = False,
    formats: Annotated[
        str,
        options.output(
            "--format",
            help="Formats, separated by commas: csv, parquet, markdown, latex, html.",
            metavar="LIST",
        ),
    ] = "markdown,csv",
    output: Annotated[
        Path | None,
        options.output(
            "--output",
            help="Folder to write, or - for stdout (default: report/NAME).",
            metavar="DIR",
        ),
    ] = None,
    publish: Annotated[
        bool, options.output("--publish", help="Write to results/NAME instead of report/NAME.")
    ] = False,
    figures: Annotated[
        Path | None,
        options.output(
            "--figures", help="Also write the charts as SVG and PNG to this folder.", metavar="DIR"
        ),
    ] = None,
    serve: Annotated[
        bool,
        options.output("--serve", help="Serve the live HTML page on this machine until Ctrl-C."),
    ] = False,
    port: Annotated[
        int,
        options.output("--port", help="Port for --serve (0: any free port).", metavar="N", min=0),
    ] = 0,
    results: options.Results = options.DEFAULT_RESULTS,
) -> None:
    """Write a study's report: page, charts, data and LaTeX table.

    Charts are written as SVG and PNG with the Markdown page, and are part of the HTML page.

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
        raise BenchError("--output - writes one text to stdout: give --format markdown too")
    if serve and (output or publish or figures):
        raise BenchError("--serve writes no files: remove --output, --figures and --publish")
    if measurements:
        if study or serve or figures or to_stdout:
            raise BenchError(
                "--measurements takes no STUDY, --serve, --figures or --output -; remove them"
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
        sys.stdout.flush()  # stdout may be a pipe
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored after a shell's &
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C ends the server
            server.serve_forever()
