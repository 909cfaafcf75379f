"""`bench run-ablation`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.cli.dry_run import show_dry_run
from bench.cli.options import argument, hardware, what
from bench.cli.output import print_document, print_line, stdout
from bench.cli.progress import progress_view
from bench.errors import BenchError
from bench.system.memory import enable_huge_pages

if TYPE_CHECKING:
    from bench.launch.workers import Execution
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
    dry_run: options.DryRun = False,
    epochs: options.Epochs = None,
    force: options.Force = False,
    deterministic: options.Deterministic = False,
    allow_mixed: options.AllowMixed = False,
    compiled: options.Compile = False,
    cuda_graph: options.CudaGraph = False,
    timeout: options.Timeout = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    workers: Annotated[
        int | None,
        hardware(
            "--workers N", "Runs at a time (default: one per core; per GPU one, or four if small)."
        ),
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

      bench run-ablation depth --launcher slurm --device cuda --dry-run

    """
    started = time.perf_counter()
    options.require_positive(epochs=epochs)
    if gpu is not None and not dry_run:
        raise BenchError(f"--gpu {gpu} only estimates the time: add --dry-run, or use 'bench plan'")
    if gpu is not None and launcher == "slurm":
        raise BenchError(f"--gpu {gpu}: the dry run of Slurm shows its script; leave --gpu out")
    trackers = options.parse_trackers(track)
    if launcher == "ray" and ray_address is not None and not dry_run:
        from bench.launch.address import require_answer

        require_answer(ray_address)

    enable_huge_pages()
    from bench.api import run_plan, selected_runs
    from bench.launch.carry_out import make_plan
    from bench.launch.launchers import make_launcher
    from bench.launch.workers import Execution
    from bench.studies import Overrides
    from bench.training.distributed import follows

    with progress_view(quiet=quiet or as_json) as view:
        how = Execution(
            results=results,
            device=device,
            threads=threads,
            workers=workers,
            force=force,
            allow_mixed=allow_mixed,
            compiled=compiled,
            cuda_graph=cuda_graph,
            launcher=make_launcher(
                launcher,
                ray_address=ray_address,
                shared=not return_bytes,
                slurm_minutes=slurm_minutes,
                slurm=options.parse_values(slurm_option, "--slurm-option"),
                timeout=timeout,
                announce=not (quiet or as_json),
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
    if follows():
        raise typer.Exit
    if record is not None:
        raise typer.Exit(_show_study(results, record, selected_runs(plan, record), as_json=as_json))
    if launcher == "slurm" and not as_json:
        _show_batch_script(plan, how)
    else:
        show_dry_run(plan, how, gpu, started=started, as_json=as_json)


def _show_study(results: Path, study: "StudyRecord", selected: set[str], *, as_json: bool) -> int:
    """Print a study's question, tables and answer; return 1 if a selected run failed, else 0."""
    from bench.report.pages.json_document import json_document
    from bench.report.pages.study_report import StudyReport
    from bench.report.pages.terminal import print_report
    from bench.report.study_data import StudyData
    from bench.store import Store
    from bench.store.runs import short_hash

    report = StudyReport(StudyData(Store(results), study))
    records = report.data.records.values()
    failed = int(
        any(r.run in selected and r.status not in {"complete", "diverged"} for r in records)
    )
    if as_json:
        print_document(json_document(report))
        return failed
    print_report(report, stdout())
    print_line(f"\nResults: {results} (study '{study.name}', {len(records)} runs)")
    complete = next((r.run for r in records if r.status == "complete"), None)
    if complete is not None:
        run = short_hash(complete)
        for words in (
            ("report", study.name),
            ("export-onnx", run),
            ("throughput", run),
            ("predict", run, "IMAGE.png"),
        ):
            print_line(f"  {report.data.store.command(*words)}")
    return failed


def _show_batch_script(plan: "Plan", how: "Execution") -> None:
    """Print the script that Slurm would be given; a learning rate is searched before."""
    from bench.launch.learning_rates import as_recorded
    from bench.launch.slurm import SlurmLauncher
    from bench.launch.workers import allot
    from bench.store import Store

    store = Store(how.results)
    plan, _ = as_recorded(plan, store)
    workers, resources = allot(plan, how)
    left = [r for r in plan.requests if how.force or store.read_run(r.run_id) is None]
    assert isinstance(how.launcher, SlurmLauncher)  # noqa: S101 - what --launcher slurm makes
    script = how.launcher.script(len(left), resources, workers)
    print_line(script)
