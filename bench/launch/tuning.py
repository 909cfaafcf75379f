"""Choosing a value for every variant with the same budget, on validation accuracy."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.store import Store
    from bench.studies import Plan, PlannedVariant
    from bench.studies.request import RunRequest


def tuning_requests(plan: Plan) -> list[RunRequest]:
    """Every value of every variant, with the plan's tuning seed."""
    found = [r for v in plan.selected for r in _candidates(plan, v).values()]
    return list({request.run_id: request for request in found}.values())


def begun(plan: Plan) -> dict[str, Any]:
    """What a study records before its first candidate is trained: the runs, nothing chosen."""
    return {v.name: _record(_candidates(plan, v), {}, None) for v in plan.selected}


def choose(plan: Plan, store: Store) -> tuple[Plan, dict[str, Any]]:
    """Give each variant the value with the best validation accuracy.

    Returns:
        The plan with the chosen values, and for each variant what was tried (value →
        validation accuracy, None where the run did not finish), its runs, and the choice.

    Raises:
        BenchError: not one value of a variant gave a finished run.
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
    assert plan.tune is not None  # noqa: S101 - the caller asks only then
    first = dataclasses.replace(next(iter(variant.requests.values())), seed=plan.tuning_seed)
    return {rate: first.with_recipe(learning_rate=rate) for rate in plan.tune.learning_rate}


def _score(store: Store, request: RunRequest) -> float | None:
    record = store.read_run(request.run_id)
    return record.result.get("validation_accuracy") if record else None
