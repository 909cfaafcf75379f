"""Choose a learning rate for every variant on validation accuracy, each with the same budget."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.store import Store
    from bench.studies import Plan, PlannedVariant
    from bench.studies.run_request import RunRequest


def tuning_requests(plan: Plan) -> list[RunRequest]:
    """Return the runs of the search: every value of every variant, with the plan's tuning seed."""
    found = [r for v in plan.selected for r in _candidates(plan, v).values()]
    return list({request.run_id: request for request in found}.values())


def unchosen(plan: Plan) -> dict[str, Any]:
    """Return what a study records before its search: the candidate runs, and no choice."""
    return {v.name: _record(_candidates(plan, v), {}, None) for v in plan.selected}


def choose(plan: Plan, store: Store) -> tuple[Plan, dict[str, Any]]:
    """Choose each variant's value with the best validation accuracy.

    Returns:
        The plan with the chosen values, and for each variant what was tried (value →
        validation accuracy, None where the run did not finish), its runs, and the choice.

    Raises:
        BenchError: a variant finished no run with any of its values.
    """
    chosen = {variant.name: variant for variant in plan.variants}
    tuning = {}
    for variant in plan.selected:
        candidates = _candidates(plan, variant)
        scores = {value: _score(store, request) for value, request in candidates.items()}
        finished = {value: score for value, score in scores.items() if score is not None}
        if not finished:
            raise BenchError(
                f"study '{plan.name}': no learning rate of {list(scores)} trained "
                f"'{variant.name}' to the end; try smaller ones"
            )
        best = max(finished, key=lambda value: finished[value])
        tuning[variant.name] = _record(candidates, scores, best)
        requests = {s: r.with_recipe(learning_rate=best) for s, r in variant.requests.items()}
        chosen[variant.name] = dataclasses.replace(variant, requests=requests)
    return dataclasses.replace(plan, variants=tuple(chosen.values())), tuning


def _record(
    candidates: dict[float, RunRequest], scores: dict[float, float | None], chosen: float | None
) -> dict[str, Any]:
    return {
        "setting": "learning_rate",
        "values": {str(value): scores.get(value) for value in candidates},
        "chosen": chosen,
        "runs": {str(value): request.run_id for value, request in candidates.items()},
    }


def _candidates(plan: Plan, variant: PlannedVariant) -> dict[float, RunRequest]:
    """Map each value to its run, with the study file's first seed whichever are requested."""
    tune, seed = plan.study.tune, plan.study.base.seeds[0]
    assert tune is not None  # noqa: S101 - called for plans that tune
    first = dataclasses.replace(next(iter(variant.requests.values())), seed=seed)
    return {rate: first.with_recipe(learning_rate=rate) for rate in tune.learning_rate}


def _score(store: Store, request: RunRequest) -> float | None:
    record = store.read_run(request.run_id)
    return record.result.get("validation_accuracy") if record else None
