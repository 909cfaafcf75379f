"""Estimate how long a study takes on this machine, from a few timed steps of each network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.launch.execution import allot
from bench.launch.tuning import tuning_requests
from bench.store import Store
from bench.studies.recipe import recipe_name
from bench.training.check import probe
from bench.training.step_time import steps_of, time_steps

if TYPE_CHECKING:
    from bench.launch.execution import Execution
    from bench.studies import Plan


def estimate_plan(plan: Plan, how: Execution) -> list[dict[str, Any]]:
    """Describe every run of a plan, and estimate the seconds that it still needs.

    Returns:
        For each run: run, variant, seed, model, options, dataset, epochs, status (`to do`
        or what is recorded), workers and seconds of one worker (0 where nothing is left).

    Raises:
        BenchError: a run that is still to be done could not be trained.
    """
    store = Store(how.results)
    workers, resources = allot(plan, how)
    step_seconds: dict[str, float] = {}
    named = {r.run_id: (v.name, s) for v in plan.variants for s, r in v.requests.items()}
    tuned = tuning_requests(plan) if plan.tune else []
    requests = {r.run_id: r for r in [*tuned, *plan.requests]}
    rows = []
    for run, request in requests.items():
        record = None if how.force else store.read_run(run)
        seconds = 0.0
        if record is None:
            network = probe(request).hash
            if network not in step_seconds:
                step_seconds[network] = time_steps(request, resources)
            seconds = steps_of(request) * step_seconds[network]
        variant, seed = named.get(run, ("tuning", request.seed))
        rows.append(
            {
                "run": run,
                "variant": variant,
                "seed": seed,
                "model": request.model,
                "options": " ".join(f"{k}={v}" for k, v in request.options.items()) or None,
                "dataset": request.dataset,
                "recipe": recipe_name(request.recipe.model_dump(mode="json")),
                "epochs": request.recipe.epochs,
                "status": record.status if record else "to do",
                "workers": workers,
                "seconds": seconds,
            }
        )
    return rows
