"""What `--dry-run` prints: the runs of a plan, and the time and disk space that they need."""

import math
from typing import TYPE_CHECKING

from bench.cli.output import print_json, simple_table, stdout

if TYPE_CHECKING:
    from bench.launch.workers import Execution
    from bench.studies import Plan

DAY_SECONDS = 86_400


def show_dry_run(plan: "Plan", how: "Execution", gpu: str | None = None, *, as_json: bool) -> None:
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
    shown = [{**row, "seconds": f"{row['seconds']:.0f}"} for row in rows]
    console.print(simple_table(shown, right=("seconds",)))
    left = sum(row["seconds"] for row in rows) / rows[0]["workers"] if rows else 0.0
    console.print(
        f"{len(rows)} runs, {sum(row['status'] == 'to do' for row in rows)} to do: about "
        f"{duration(left)} left here, estimated from a few timed steps of each network"
    )
    if left == 0:
        return
    if gpu is not None or left > DAY_SECONDS:
        (row,) = plan_rows(plan, Store(how.results), [machine])
        there = duration(row["hours"] * 3600)
        console.print(f"one {machine.name}: {there} ({row['basis']})", markup=False)
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


def duration(seconds: float) -> str:
    """Return a readable duration, in the unit that suits it."""
    unit, size, digits, _ = next(known for known in _UNITS if seconds < known[-1])
    return f"{seconds / size:,.{digits}f} {unit}"
