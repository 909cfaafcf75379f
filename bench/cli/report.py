"""`bench report`."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.cli.output import stdout

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    from bench.report.pages.markdown import markdown
    from bench.report.pages.publish import check_formats, require_finished
    from bench.report.pages.publish import publish as write
    from bench.report.pages.sections import save_figures
    from bench.report.pages.study_report import read_study_report
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
    content = read_study_report(Store(results), study)
    name = content.study.name
    if serve:
        _serve(Store(results), name, port)
        return
    if to_stdout:
        require_finished(content)
        typer.echo(markdown(content), nl=False)
        return
    folder = output or Path("results" if publish else "report") / name
    _print_paths(write(content, folder, wanted))
    if figures is not None:
        _print_paths(save_figures(content.data, figures))


def _report_measurements(
    results: Path, output: Path | None, formats: list[str], *, publish: bool
) -> None:
    from bench.report.pages.measurements import FOLDER, publish_measurements
    from bench.store.measurements import Measurements

    folder = output or Path("results" if publish else "report") / FOLDER
    _print_paths(publish_measurements(Measurements(results), folder, formats))


def _print_paths(paths: Iterable[Path]) -> None:
    for path in paths:
        stdout().print(str(path), markup=False, soft_wrap=True)


def _serve(store: Store, study: str, port: int) -> None:
    from bench.report.pages.server import PageServer

    with PageServer(store, study, port) as server:
        stdout().print(server.url, markup=False, soft_wrap=True)
        sys.stdout.flush()  # also where a pipe is read
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & has it ignored
        with contextlib.suppress(KeyboardInterrupt):  # how a server is ended
            server.serve_forever()
