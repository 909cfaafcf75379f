"""`bench doctor`."""

from dataclasses import asdict
from pathlib import Path

import typer
from rich.markup import escape
from rich.table import Table

from bench.cli import options
from bench.cli.output import print_json, stdout

_MARKS = {"ok": "[green]ok[/]", "missing": "[yellow]--[/]", "broken": "[red]!![/]"}


def doctor(
    results: options.Results = options.DEFAULT_RESULTS, as_json: options.Json = False
) -> None:
    """Check this machine: versions, hardware, backends, datasets, disk.

    For everything that is missing, a way to fix it is shown. Exits with code 1 if something that
    bench needs is broken.

    Example:

      bench doctor

    """
    from bench.measurement.machine.capabilities import examine_machine

    findings = examine_machine(Path(results))
    if as_json:
        print_json(asdict(finding) for finding in findings)
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        for finding in findings:
            fix = f"\n→ {escape(finding.fix)}" if finding.fix else ""
            table.add_row(_MARKS[finding.state], finding.name, escape(finding.found) + fix)
        stdout().print(table)
    raise typer.Exit(int(any(finding.state == "broken" for finding in findings)))
