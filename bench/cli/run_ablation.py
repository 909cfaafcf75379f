"""`bench run-ablation`."""

import math
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.cli.options import argument, hardware, what
from bench.cli.output import print_json, print_line, print_table, stdout
from bench.cli.progress import progress_view
from bench.errors import BenchError
from bench.system.memory import enable_huge_pages

DAY_SECONDS = 86_400

if TYPE_CHECKING:
    from bench.launch.execution import Execution
    from bench.store import StudyRecord
    from bench.studies import Plan


def run_ablation(
    study: Annotated[
        str, argument("STUDY", "Name of a shipped study, or a .toml file.")
    ] = "quickstart",
    seeds: options.Seeds = None,
    dataset: options.Dataset = None,
    only: Annotated[
        list[str] | None, what("--only VARIANT", "Variant to train; repeatable (default: all).")
    ] = None,
    dry_run: Annotated[
        bool, what("--dry-run", "Print the runs and the estimated time, but train nothing.")
    ] = False,
    epochs: options.Epochs = None,
    force: options.Force = False,
    deterministic: options.Deterministic = False,
    allow_mixed: options.AllowMixed = False,
    compiled: options.Compile = False,
    timeout: options.Timeout = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    workers: Annotated[
        int | None,
        hardware("--workers N", "Runs at a time (default: one per core, or one per GPU)."),
    ] = None,
    gpu: options.Gpu = None,
    launcher: options.LauncherName = "local",
    ray_address: options.RayAddress = None,
    return_bytes: options.ReturnBytes = False,
    slurm_minutes: options.SlurmMinutes = None,
    slurm_option: options.SlurmOptions = None,
    track: options.Track = None,
    results: options.Results = options.DEFAULT_RESULTS,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train the variants of a study and compare their accuracies.

    Every variant is trained with each random seed. The table shows the differences, paired by
    seed, with their confidence intervals. Finished runs are never trained again; to resume a
    stopped study, rerun the same command.

    Examples:

      bench run-ablation

      bench run-ablation depth --seeds 0,1,2 --dry-run

      bench run-ablation full-imagenet-depth --dry-run --gpu H100

      bench run-ablation my-study.toml --only plain --epochs 10

      bench run-ablation my-study.toml --track tensorboard,mlflow

      bench run-ablation depth --launcher ray --ray-address 10.0.0.1:6379

      bench run-ablation depth --launcher slurm --slurm-option partition=gpu --dry-run

    """
    options.require_positive(epochs=epochs)
    if gpu is not None and not dry_run:
        raise BenchError(f"--gpu {gpu} only estimates the time: add --dry-run, or use 'bench plan'")
    trackers = options.parse_trackers(track)
    if launcher == "ray" and ray_address is not None and not dry_run:
        from bench.launch.address import require_answer

        require_answer(ray_address)

    enable_huge_pages()
    from bench.api import run_plan
    from bench.launch.execution import Execution
    from bench.launch.launchers import make_launcher
    from bench.launch.study import make_plan
    from bench.studies import Overrides

    with progress_view(quiet=quiet or as_json) as view:
        how = Execution(
            results=results,
            device=device,
            threads=threads,
            workers=workers,
            force=force,
            allow_mixed=allow_mixed,
            compiled=compiled,
            quiet=quiet or as_json,
            launcher=make_launcher(
                launcher,
                ray_address=ray_address,
                shared=not return_bytes,
                slurm_minutes=slurm_minutes,
                slurm=options.parse_values(slurm_option, "--slurm-option"),
                timeout=timeout,
            ),
            on_event=view,
        )
        overrides = Overrides(
            seeds=options.parse_seeds(seeds),
            epochs=epochs,
            dataset=dataset,
            only=tuple(only or ()),
            deterministic=deterministic,
        )
        plan = make_plan(study, how.torch_device, overrides)
        record = None if dry_run else run_plan(plan, how, track=trackers)
    if record is not None:
        raise typer.Exit(_show_study(results, record, as_json=as_json))
    if launcher == "slurm" and not as_json:
        _show_batch_script(plan, how)
    else:
        _show_dry_run(plan, how, gpu, as_json=as_json)


def _show_study(results: Path, study: "StudyRecord", *, as_json: bool) -> int:
    """Print a study's question, tables and answer; return 1 if a run of it failed, else 0."""
    from bench.report.pages.study_report import StudyReport
    from bench.report.pages.terminal import print_report
    from bench.report.study_data import StudyData
    from bench.store import Store
    from bench.store.tables.frames import rows_of

    report = StudyReport(StudyData(Store(results), study))
    records = report.data.records.values()
    failed = int(any(r.status not in {"complete", "diverged"} for r in records))
    if as_json:
        errors = [
            {"run": r.run, "status": r.status, "error": r.error}
            for r in records
            if r.status != "complete"
        ]
        print_json(rows_of(report.data.runs), errors)
        return failed
    print_report(report, stdout())
    print_line(f"\nResults: {results} (study '{study.name}', {len(records)} runs)")
    complete = next((r.run for r in records if r.status == "complete"), None)
    for command in _next_commands(results, study.name, complete):
        print_line(f"  {command}")
    return failed


def _show_batch_script(plan: "Plan", how: "Execution") -> None:
    """Print the script that Slurm would be given."""
    from bench.launch.execution import allot
    from bench.launch.slurm import SlurmLauncher

    workers, resources = allot(plan, how)
    assert isinstance(how.launcher, SlurmLauncher)  # noqa: S101 - what --launcher slurm makes
    script = how.launcher.script(len(plan.requests), resources, workers)
    print_line(script)


def _show_dry_run(plan: "Plan", how: "Execution", gpu: str | None, *, as_json: bool) -> None:
    """Print every run of a plan with its status, and the time and disk space still needed.

    If this machine would take more than a day, or *gpu* is given, the time on a GPU is printed too.
    """
    from bench.launch.estimate import estimate_plan, footprint
    from bench.launch.planning import DEFAULT_GPU, known_gpu, plan_rows
    from bench.store import Store

    machine = known_gpu(gpu or DEFAULT_GPU)
    rows = estimate_plan(plan, how)
    if as_json:
        print_json(rows)
        return
    console = stdout()
    console.print(plan.study.question, style="bold", markup=False)
    print_table(rows, {"seconds": ".0f"})
    left = sum(row["seconds"] for row in rows) / rows[0]["workers"] if rows else 0.0
    console.print(
        f"{len(rows)} runs, {sum(row['status'] == 'to do' for row in rows)} to do: about "
        f"{_duration(left)} left here, estimated from a few timed steps of each network"
    )
    if left == 0:
        return
    if gpu is not None or left > DAY_SECONDS:
        (row,) = plan_rows(plan, Store(how.results), [machine])
        there = _duration(row["hours"] * 3600)
        print_line(f"one {machine.name}: {there} ({row['basis']})")
    pending = {row["run"] for row in rows if row["status"] == "to do"}
    left_to_do = [request for request in plan.requests if request.run_id in pending]
    console.print(str(footprint(left_to_do, rows[0]["workers"])), markup=False)


# Unit, its seconds, decimal places, and the seconds from which the next unit is used.
_UNITS = (
    ("s", 1, 0, 90),
    ("min", 60, 0, 5400),
    ("h", 3600, 1, 3.6e6),
    ("days", 86400, 0, math.inf),
)


def _duration(seconds: float) -> str:
    unit, size, digits, _ = next(known for known in _UNITS if seconds < known[-1])
    return f"{seconds / size:,.{digits}f} {unit}"


def _next_commands(root: Path, study: str, run: str | None) -> list[str]:
    if run is None:
        return []
    where = "" if root == options.DEFAULT_RESULTS else f" --results {quote(str(root))}"
    return [
        f"bench report {quote(study)}{where}",
        f"bench export-onnx {run}{where}",
        f"bench throughput {run}{where}",
        f"bench predict {run} IMAGE.png{where}",
    ]
