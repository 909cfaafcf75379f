"""`bench report`."""

import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from bench.cli import options
from bench.cli.options import argument, option, output
from bench.cli.output import print_line, prove_folder
from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.store import Store


def report(
    study: Annotated[
        str | None, argument("STUDY", "Name of a study (default: the most recent).")
    ] = None,
    measurements: Annotated[
        bool,
        option("--measurements", "Report all measured speeds in the results folder, not a study."),
    ] = False,
    formats: Annotated[
        str,
        output("--format LIST", "One or more of csv, parquet, markdown, latex, html and json."),
    ] = "markdown,csv",
    output: Annotated[
        Path | None,
        output(
            "--output DIR",
            "Folder to write (default: report/NAME); - writes text formats to stdout.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        output(
            "--columns LIST",
            "Columns of the LaTeX table, such as test,difference (default: all).",
        ),
    ] = None,
    publish: Annotated[
        bool, output("--publish", "Write to results/NAME instead of report/NAME.")
    ] = False,
    figures: Annotated[
        Path | None,
        output("--figures DIR", "Also write the charts as SVG, PNG and PDF to this folder."),
    ] = None,
    width: Annotated[
        float | None,
        output("--width INCHES", "Width of the charts in --figures (default: 4.5).", min=1, max=40),
    ] = None,
    serve: Annotated[
        bool, output("--serve", "Serve the live HTML page on this machine until Ctrl-C.")
    ] = False,
    port: Annotated[int, output("--port N", "Port for --serve (0: any free port).", min=0)] = 0,
    results: options.Results = options.DEFAULT_RESULTS,
) -> None:
    """Write a study's report: page, charts, data and LaTeX table.

    Charts are written as SVG and PNG with the Markdown page, and are part of the HTML page.

    Examples:

      bench report quickstart --output report

      bench report quickstart --format csv,parquet,latex

      bench report quickstart --format json --output - | jq -r .answer

      bench report quickstart --format markdown --output - >> "$GITHUB_STEP_SUMMARY"

      bench report quickstart --format latex --columns test,difference,p --output - > table.tex

      bench report quickstart --figures paper --width 3.25

      bench report quickstart --serve

      bench report --measurements --output speed

    """
    from bench.report.pages.markdown import markdown
    from bench.report.pages.publish import check_formats, json_text, latex, require_finished
    from bench.report.pages.publish import publish as write
    from bench.report.pages.sections import save_figures
    from bench.report.pages.study_report import read_study_report
    from bench.store import Store

    wanted = [name.strip() for name in formats.split(",")]
    check_formats(wanted)
    to_stdout = str(output) == "-"
    chosen = columns.split(",") if columns else []
    texts = {
        "markdown": markdown,
        "latex": lambda content: latex(content, chosen),
        "json": json_text,
    }
    if to_stdout and (len(wanted) > 1 or wanted[0] not in texts):
        raise BenchError(
            f"--output - writes one text to stdout: give --format {' or '.join(texts)} too"
        )
    if columns is not None and "latex" not in wanted:
        raise BenchError("--columns are those of the LaTeX table: give --format latex too")
    if width is not None and figures is None:
        raise BenchError("--width is that of the charts in --figures DIR: give that too")
    _check_places(output, figures, publish=publish, serve=serve)
    if measurements:
        if study or serve or figures or to_stdout:
            raise BenchError(
                "--measurements takes no STUDY, --serve, --figures or --output -; remove them"
            )
        _report_measurements(results, output, wanted, publish=publish)
        return
    content = read_study_report(Store(results), study)
    name = content.study.name
    if serve:
        _serve(Store(results), name, port)
        return
    require_finished(content)
    if to_stdout:
        sys.stdout.write(texts[wanted[0]](content))
        return
    prove_folder(figures, "--figures")
    folder = output or Path("results" if publish else "report") / name
    _print_paths(write(content, folder, wanted, chosen))
    if figures is not None:
        _print_paths(save_figures(content.data, figures, width))


def _check_places(output: Path | None, figures: Path | None, *, publish: bool, serve: bool) -> None:
    """Refuse options that name places to write to, one of which would be ignored."""
    if serve and (output or publish or figures):
        raise BenchError("--serve writes no files: remove --output, --figures and --publish")
    if publish and output:
        raise BenchError(f"--publish writes to results/NAME: remove it, or --output {output}")
    if str(output) == "-" and figures:
        raise BenchError("--output - writes one text to stdout, and no charts: remove --figures")


def _report_measurements(
    results: Path, output: Path | None, formats: list[str], *, publish: bool
) -> None:
    from bench.report.pages.measurements import FOLDER, publish_measurements
    from bench.store.measurements import Measurements

    folder = output or Path("results" if publish else "report") / FOLDER
    _print_paths(publish_measurements(Measurements(results), folder, formats))


def _print_paths(paths: "Iterable[Path]") -> None:
    for path in paths:
        print_line(str(path))


def _serve(store: "Store", study: str, port: int) -> None:
    from bench.report.pages.server import PageServer

    with PageServer(store, study, port) as server:
        print_line(server.url)
        sys.stdout.flush()  # stdout may be a pipe
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored after a shell's &
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C ends the server
            server.serve_forever()
