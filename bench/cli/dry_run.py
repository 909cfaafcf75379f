"""What `--dry-run` prints: the runs of a plan, and the time and disk space that they need."""

import time
from typing import TYPE_CHECKING, Any

from bench.cli.output import print_json, print_line, print_table, stdout
from bench.report.tables.durations import duration

if TYPE_CHECKING:
    from bench.launch.workers import Execution
    from bench.studies import Plan

DAY_SECONDS = 86_400


def show_dry_run(
    plan: "Plan", how: "Execution", gpu: str | None = None, *, started: float, as_json: bool
) -> None:
    """Print every run of a plan with its status, and the time and disk space still needed.

    If this machine would take more than a day, or *gpu* is given, the time on a GPU is printed too.

    Args:
        plan: the runs.
        how: how they would be carried out.
        gpu: the GPU to estimate the time for.
        started: `time.perf_counter()` when the command began. What it needed to start is part of
            the time here, and every worker needs as much again.
        as_json: print JSON.
    """
    start_up = time.perf_counter() - started
    from bench.launch.estimate import estimate_plan, footprint
    from bench.launch.learning_rates import all_runs
    from bench.launch.planning import DEFAULT_GPU, known_gpu, plan_rows
    from bench.store import Store
    from bench.training.step_time import side_by_side, timed_steps

    machine = known_gpu(gpu or DEFAULT_GPU)
    rows = estimate_plan(plan, how)
    if as_json:
        print_json(rows)
        return
    console = stdout()
    console.print(plan.study.question, style="bold", markup=False)
    print_table(
        [_shown(row) for row in rows], {"seed": "", "seconds": ".0f", "epochs": ""}, needed=4
    )
    to_do = sum(row["status"] == "to do" for row in rows)
    queued = how.elsewhere and how.workers is None  # the cluster decides how many run at a time
    workers = rows[0]["workers"] if rows and not queued else 1
    left = side_by_side((row["seconds"] for row in rows), workers)
    if to_do:
        left += start_up * (2 if min(to_do, workers) > 1 else 1)
    basis = timed_steps(compiled=how.compiled, cuda_graph=how.cuda_graph)
    console.print(
        f"{len(rows)} runs, {to_do} to do: about {duration(left)} left here with start-up"
        f"{', one after the other' if queued else ''}, estimated for each network from {basis}"
    )
    if not to_do:
        return
    if gpu is not None or left > DAY_SECONDS:
        (row,) = plan_rows(plan, Store(how.results), [machine])
        there = duration(row["hours"] * 3600)
        print_line(f"one {machine.name}: {there} ({row['basis']})")
    runs = all_runs(plan, Store(how.results))
    left_to_do = [runs[row["run"]] for row in rows if row["status"] == "to do"]
    console.print(str(footprint(left_to_do, rows[0]["workers"])), markup=False)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    first = (
        "variant",
        "seed",
        "status",
        "seconds",
        "epochs",
        "options",
        "model",
        "dataset",
        "recipe",
    )
    return {key: row[key] for key in first}
