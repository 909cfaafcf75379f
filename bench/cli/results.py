"""`bench results`: list, show, remove, pack and unpack recorded runs; locate their images."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import options
from bench.cli.options import argument, option
from bench.cli.output import print_json, print_line, print_table
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.store import Store, StudyRecord

app = typer.Typer(
    no_args_is_help=True,
    help="""List, show, remove, pack and unpack recorded runs.

    Example:

      bench results ls

    """,
)

Runs = Annotated[list[str], argument("RUN", "IDs, hashes or folders of runs.")]
Yes = Annotated[bool, option("--yes", "Do not ask for confirmation.")]


@app.command("ls")
def list_runs(
    results: options.Results = options.DEFAULT_RESULTS, as_json: options.Json = False
) -> None:
    """List all runs with their variant, size and the studies that use them.

    Every command takes the hash in the column 'run' for the run.

    Example:

      bench results ls

    """
    store = _existing(results)
    users, variants = _users(store.studies()), store.variants_of_runs()
    rows: list[dict[str, Any]] = []
    for run in store.run_ids():
        record = store.read(run)
        rows.append(
            {
                "run": run,
                "variant": variants.get(run),
                "seed": record and record.request.get("seed"),
                "status": record.status if record else _unrecorded(store, run),
                "bytes": store.size(run),
                "studies": ", ".join(users.get(run, ())) or None,
                "started_at": record and record.started_at,
            }
        )
    if as_json:
        print_json(rows)
        return
    total = sum(row["bytes"] for row in rows)
    print_table([_listed(row) for row in rows], {"seed": "", "MB": ".1f"}, needed=4)
    print_line(f"{len(rows)} runs, {total / 1e6:.1f} MB in {store.root}")


@app.command("show")
def show_run(
    run: Annotated[str, argument("RUN", "ID, hash or folder of a run.")],
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
) -> None:
    """Show one run: request, result, environment and history.

    Example:

      bench results show resnet20-fashion-mnist-mini-s0-0123456789ab

    """
    store = _existing(results)
    name = store.find_run(run)
    record = store.read(name)
    if record is None:
        raise BenchError(
            f"run {name} cannot be shown ({store.why_absent(name)}); rerun the command that "
            "trains it"
        )
    if as_json:
        print_json([dataclasses.asdict(record)])
        return
    sections = {
        "run": {k: getattr(record, k) for k in ("run", "status", "error", "started_at", "seconds")},
        "request": _flat(record.settings),
        "result": _flat(record.result),
        "environment": record.environment,
        "files": record.files,
    }
    for title, values in sections.items():
        print_line(title, style="bold")
        for key, value in values.items():
            print_line(f"  {key}: {_short(value)}")
    if "history.csv" not in record.files:  # a run that is not finished
        return
    history = store.checked_file(name, "history.csv").read_text(encoding="utf-8").strip()
    if history:
        print_line("history", style="bold")
        print_line(history)


@app.command("rm")
def remove_runs(
    runs: Runs, yes: Yes = False, results: options.Results = options.DEFAULT_RESULTS
) -> None:
    """Remove runs and their analyses, after confirmation.

    Studies that use the runs are named first. They train them again when they are next run. A run
    that is being trained is refused.

    Example:

      bench results rm resnet20-fashion-mnist-mini-s0-0123456789ab

    """
    store = _existing(results)
    names = [store.find_run(run) for run in runs]
    for name in names:
        store.refuse_busy(name)
    studies = store.studies()
    once = [study for study in studies if _made_once(store, study)]
    users = _users(study for study in studies if study not in once)
    used = {name: users[name] for name in names if name in users}
    warning = "".join(
        f"\n  {name} is used by: {', '.join(studies)}" for name, studies in used.items()
    )
    again = "\nThese studies will train them again when they are next run." if used else ""
    if not yes:
        typer.confirm(f"Remove {len(names)} run(s)?{warning}{again}\nRemove", abort=True)
    for study in once:
        if study.runs & set(names):
            store.forget_runs(study.name, names)
    _remove(store, names)
    print_line(f"Removed {len(names)} run(s).{warning}")


@app.command("gc")
def collect_garbage(yes: Yes = False, results: options.Results = options.DEFAULT_RESULTS) -> None:
    """Remove the runs that no study uses, after confirmation.

    Unfinished and unreadable runs are among them, but none that is being trained. Their analyses
    are removed too.

    Example:

      bench results gc

    """
    store = _existing(results)
    store.refuse_unreadable_studies()  # their runs would seem unused
    users = _users(store.studies())
    unused = [run for run in store.run_ids() if run not in users and _is_idle(store, run)]
    for run in unused:
        store.refuse_newer(run)
    if not unused:
        print_line("Every run is used by a study; nothing to remove.")
        return
    if not yes:
        for run in unused:
            print_line(f"  {run}")
        typer.confirm(f"Remove {len(unused)} run(s) that no study uses?", abort=True)
        users = _users(store.studies())  # a study may have taken one up meanwhile
        unused = [run for run in unused if run not in users]
    _remove(store, unused)
    print_line(f"Removed {len(unused)} run(s).")


@app.command("pack")
def pack_runs(
    archive: Annotated[Path, argument("FILE.tar.gz", "Archive to write.")],
    runs: Annotated[
        list[str] | None, argument("RUN", "Runs (IDs, hashes or folders) to pack (default: all).")
    ] = None,
    results: options.Results = options.DEFAULT_RESULTS,
) -> None:
    """Write results to one archive: runs and what was made of them.

    That is their studies, analyses, exports and measurements. Use it to copy results to another
    machine. Without a run's name, exports and measurements of other networks are packed, too.
    Damaged ones are left out, with a warning.

    Example:

      bench results pack runs.tar.gz

    """
    from bench.store.archive import pack

    store = _existing(results)
    count = pack(store, [store.find_run(r) for r in runs] if runs else None, archive)
    size = archive.stat().st_size / 1e6
    print_line(
        f"Packed {count.runs} run(s), {count.exports} export(s) and {count.measurements} "
        f"measurement(s) into {archive} ({size:.1f} MB)."
    )


@app.command("unpack")
def unpack_runs(
    archive: Annotated[Path, argument("FILE.tar.gz", "Archive written by 'bench results pack'.")],
    results: options.Results = options.DEFAULT_RESULTS,
) -> None:
    """Add an archive's content to the results folder.

    What already exists there is kept.

    Example:

      bench results unpack runs.tar.gz

    """
    from bench.store import Store
    from bench.store.archive import unpack

    added = unpack(Store(results), archive)
    exports = sum(name.startswith("exports/") for name in added.others)
    print_line(
        f"Added {len(added.runs)} run(s), {exports} export(s) and {len(added.others) - exports} "
        f"measurement(s) to {results}."
    )
    for name in added.kept:
        print_line(f"Study '{name}' already exists here and differs; it was kept.")


@app.command("locate")
def locate_images(
    run: Annotated[str, argument("RUN", "ID, hash or folder of a run.")],
    folder: Annotated[Path, argument("PATH", "Where its image folder is on this machine.")],
    results: options.Results = options.DEFAULT_RESULTS,
) -> None:
    """Say where the image folder of a run is on this machine.

    Use it after unpacking runs that were trained elsewhere, or after moving the images. The
    folder must hold the same images. All runs of that image folder then use it, also where other
    images lie at the recorded path.

    Example:

      bench results locate resnet20-flowers-s0-0123456789ab ~/data/flowers

    """
    from bench.data.catalog import FOLDER_PREFIX
    from bench.training.setup import locate_data

    store = _existing(results)
    folder = Path(str(folder).removeprefix(FOLDER_PREFIX))
    name = locate_data(store, store.find_run(run), folder.expanduser().resolve())
    print_line(f"{name} is read from {folder}.")


def _existing(path: Path) -> "Store":
    from bench.store import Store
    from bench.store.files import require_results

    require_results(path)
    return Store(path)


def _listed(row: dict[str, Any]) -> dict[str, Any]:
    from bench.store.runs import short_hash

    return {
        "variant": row["variant"] or row["run"].rpartition("-s")[0],
        "seed": row["seed"],
        "run": short_hash(row["run"]),
        "status": row["status"],
        "MB": row["bytes"] / 1e6,
        "studies": row["studies"],
        "started": (row["started_at"] or "")[:16].replace("T", " "),
    }


def _unrecorded(store: "Store", run: str) -> str:
    """Return the status of a run without a readable record."""
    return "unreadable" if store.folder(run).is_dir() else "begun"


def _remove(store: "Store", runs: list[str]) -> None:
    from bench.store.analyses import Analyses

    Analyses(store.root).remove(runs)
    for name in runs:
        store.remove_run(name)


def _is_idle(store: "Store", run: str) -> bool:
    """Return whether no process is training a run."""
    with store.lock(run, wait=False) as ours:
        return ours


def _users(studies: Iterable["StudyRecord"]) -> dict[str, list[str]]:
    """Map each run to the names of those studies that use it."""
    users: dict[str, list[str]] = {}
    for study in studies:
        for run in study.runs:
            users.setdefault(run, []).append(study.name)
    return users


def _made_once(store: "Store", study: "StudyRecord") -> bool:
    """Return whether no command runs a study again: it holds single runs, or one import."""
    from bench.studies import ADHOC

    if study.name == ADHOC or len(study.runs) != 1:
        return study.name == ADHOC
    record = store.read(*study.runs)
    return record is not None and record.imported


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Flatten nested tables to dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = _flat(value) if isinstance(value, dict) else {}
        flat |= {f"{key}.{k}": v for k, v in inner.items()} or {key: value}
    return flat


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
