"""`bench doctor`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import typer

from bench.cli import options
from bench.cli.output import print_json, stdout

_MARKS = {"ok": "[green]ok[/]", "missing": "[yellow]--[/]", "broken": "[red]!![/]"}


def doctor(
    results: options.Results = options.DEFAULT_RESULTS, as_json: options.Json = False
) -> None:
    """Show on one screen what this machine can do, and what to do about what is missing.

    Example:

      bench doctor

    """
    from rich.markup import escape
    from rich.table import Table

    from bench.measurement.machine.doctor import examine_machine

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
