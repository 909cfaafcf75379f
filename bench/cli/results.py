"""`bench results`: what is there, one run in full, removal, and carrying runs elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import options
from bench.cli.output import print_json, simple_table, stdout

if TYPE_CHECKING:
    from bench.store import Store

app = typer.Typer(no_args_is_help=True, help="Look at, remove, pack and unpack recorded runs.")

Runs = Annotated[list[str], typer.Argument(help="Ids or folders of runs.", metavar="RUN…")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command("ls")
def list_runs(
    results: options.Results = options.DEFAULT_RESULTS, as_json: options.Json = False
) -> None:
    """List every run, how large it is, and which studies refer to it.

    Example:

      bench results ls

    """
    store = _existing(results)
    users = _users(store)
    rows = [
        {
            "run": record.run,
            "status": record.status,
            "bytes": store.size(record.run),
            "studies": ", ".join(users.get(record.run, ())) or None,
            "started_at": record.started_at,
        }
        for record in [*store.runs(), *store.unfinished()]
    ]
    if as_json:
        print_json(rows)
        return
    total = sum(store.size(str(row["run"])) for row in rows)
    shown = [{**row, "bytes": f"{row['bytes']:,}"} for row in rows]
    stdout().print(simple_table(shown, right=("bytes",)))
    stdout().print(f"{len(rows)} runs, {total / 1e6:.1f} MB in {store.root}", markup=False)


@app.command("show")
def show_run(
    run: Annotated[str, typer.Argument(help="Id or folder of a run.")],
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
) -> None:
    """Show one run in full: request, result, environment, history.

    Example:

      bench results show resnet20-fashion-mnist-mini-s0-0123456789ab

    """
    import dataclasses

    from bench.errors import BenchError

    store = _existing(results)
    name = store.find_run(run)
    record = store.read_run(name)
    if record is None:
        raise BenchError(f"the record of run {name} cannot be read")
    if as_json:
        print_json([dataclasses.asdict(record)])
        return
    console = stdout()
    sections = {
        "run": {k: getattr(record, k) for k in ("run", "status", "error", "started_at", "seconds")},
        "request": _flat(record.request),
        "result": _flat(record.result),
        "environment": record.environment,
        "files": record.files,
    }
    for title, values in sections.items():
        console.print(title, style="bold")
        for key, value in values.items():
            console.print(f"  {key}: {_short(value)}", markup=False, soft_wrap=True)
    history = store.checked_file(name, "history.csv").read_text().strip()
    if history:
        console.print("history", style="bold")
        console.print(history, markup=False, soft_wrap=True)


@app.command("rm")
def remove_runs(
    runs: Runs, yes: Yes = False, results: options.Results = options.DEFAULT_RESULTS
) -> None:
    """Remove runs and their analyses, after asking; studies that use them are named first.

    Example:

      bench results rm resnet20-fashion-mnist-mini-s0-0123456789ab

    """
    store = _existing(results)
    names = [store.find_run(run) for run in runs]
    users = _users(store)
    used = {name: users[name] for name in names if name in users}
    warning = "".join(
        f"\n  {name} is used by: {', '.join(studies)}" for name, studies in used.items()
    )
    again = "\nThose studies will train it again when they are next run." if used else ""
    if not yes:
        typer.confirm(f"Remove {len(names)} run(s)?{warning}{again}\nRemove", abort=True)
    _remove(store, names)
    stdout().print(f"Removed {len(names)} run(s).{warning}", markup=False)


@app.command("gc")
def collect_garbage(yes: Yes = False, results: options.Results = options.DEFAULT_RESULTS) -> None:
    """Remove the runs that no study refers to, and their analyses, after asking.

    Example:

      bench results gc

    """
    store = _existing(results)
    users = _users(store)
    unused = [r.run for r in [*store.runs(), *store.unfinished()] if r.run not in users]
    if not unused:
        stdout().print("Every run is used by a study; nothing to remove.")
        return
    if not yes:
        typer.confirm(f"Remove {len(unused)} run(s) that no study refers to?", abort=True)
    _remove(store, unused)
    stdout().print(f"Removed {len(unused)} run(s).")


@app.command("pack")
def pack_runs(
    archive: Annotated[Path, typer.Argument(help="The archive to write.", metavar="FILE.tar.gz")],
    runs: Annotated[
        list[str] | None, typer.Argument(help="Runs; all without.", metavar="[RUN…]")
    ] = None,
    results: options.Results = options.DEFAULT_RESULTS,
) -> None:
    """Write runs, their analyses and studies into one archive, to carry to another machine.

    Example:

      bench results pack runs.tar.gz

    """
    from bench.store.archive import pack

    store = _existing(results)
    names = [store.find_run(r) for r in runs] if runs else [r.run for r in store.runs()]
    count = pack(store, names, archive)
    size = archive.stat().st_size / 1e6
    stdout().print(f"Packed {count} run(s) into {archive} ({size:.1f} MB).", markup=False)


@app.command("unpack")
def unpack_runs(
    archive: Annotated[Path, typer.Argument(help="An archive of 'bench results pack'.")],
    results: options.Results = options.DEFAULT_RESULTS,
) -> None:
    """Merge an archive's runs into the results folder; what is there already stays.

    Example:

      bench results unpack runs.tar.gz

    """
    from bench.store import Store
    from bench.store.archive import unpack

    added, kept = unpack(Store(results), archive)
    stdout().print(f"Added {len(added)} run(s) to {results}.", markup=False)
    for name in kept:
        stdout().print(f"Study '{name}' differs here; the one here was kept.", markup=False)


def _existing(path: Path) -> "Store":
    from bench.errors import BenchError
    from bench.store import Store

    store = Store(path)
    if not path.exists():
        raise BenchError(f"no results folder at {path}; 'bench run-ablation' makes one")
    return store


def _remove(store: "Store", runs: list[str]) -> None:
    from bench.store.analyses import Analyses

    Analyses(store.root).remove(runs)
    for name in runs:
        store.remove_run(name)


def _users(store: "Store") -> dict[str, list[str]]:
    """Run → names of the studies that refer to it."""
    users: dict[str, list[str]] = {}
    for study in store.studies():
        for run in study.runs:
            users.setdefault(run, []).append(study.name)
    return users


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Nested tables with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = _flat(value) if isinstance(value, dict) else {}
        flat |= {f"{key}.{k}": v for k, v in inner.items()} or {key: value}
    return flat


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
