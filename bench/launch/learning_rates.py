"""Choose a learning rate for every variant on validation accuracy, each with the same budget."""

from __future__ import annotations

import dataclasses
import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.launch.reuse import settle_folders
from bench.system.guessing import learned

if TYPE_CHECKING:
    from bench.store import RunRecord, Store
    from bench.studies import Plan, PlannedVariant
    from bench.studies.run_request import RunRequest


def tuning_requests(plan: Plan) -> list[RunRequest]:
    """Return the runs of the search: every value of every variant, with each tuning seed.

    A study without `[tune]` has none.
    """
    if plan.study.tune is None:
        return []
    candidates = [runs for v in plan.selected for runs in _candidates(plan, v).values()]
    found = [request for runs in candidates for request in runs.values()]
    return list({request.run_id: request for request in found}.values())


def choose(plan: Plan, store: Store, *, searched: bool) -> tuple[Plan, dict[str, Any]]:
    """Choose each variant's value by how many tuning seeds learn, then by validation accuracy.

    Of the values at which most seeds learn, the best has the highest mean validation accuracy of
    those seeds. That of a value close to it may be higher by chance, and the smaller learning rate
    is the safer one, so the smallest within one standard error of the best is taken (Breiman et
    al. 1984). A run that diverged did not learn, nor did one no better than guessing.

    Args:
        plan: the study's.
        store: the results folder.
        searched: whether the search of the selected variants has ended. Before that, and for the
            others, a variant with runs still to do has no choice.

    Returns:
        The plan with the chosen values, and for each variant what was tried (value → mean
        validation accuracy, None where a run failed for another reason or all diverged), how many
        seeds learned with each, its runs, and the choice.

    Raises:
        BenchError: a variant finished its runs with none of its values.
    """
    if plan.study.tune is None:
        return plan, {}
    chosen = {variant.name: variant for variant in plan.variants}
    tuning = {}
    for variant in plan.variants:
        candidates = _candidates(plan, variant)
        scores = {value: _score(store, runs) for value, runs in candidates.items()}
        finished = {v: s for v, s in scores.items() if s is not None and not math.isnan(s.mean)}
        if not (searched and variant in plan.selected):
            requests = [request for runs in candidates.values() for request in runs.values()]
            if not finished or any(store.read_run(r.run_id) is None for r in requests):
                tuning[variant.name] = _record(candidates, {}, None)
                continue
        if not finished:
            raise BenchError(
                f"study '{plan.name}': no learning rate of {list(scores)} trained "
                f"'{variant.name}' to the end; try smaller ones"
            )
        most = max(score.learned for score in finished.values())
        reliable = {value: s for value, s in finished.items() if s.learned == most}
        best = max(reliable.values(), key=lambda score: score.mean)
        taken = min(v for v, s in reliable.items() if s.mean >= best.mean - best.standard_error)
        tuning[variant.name] = _record(candidates, scores, taken)
        tuned = {s: r.with_recipe(learning_rate=taken) for s, r in variant.requests.items()}
        chosen[variant.name] = dataclasses.replace(variant, requests=tuned)
    return dataclasses.replace(plan, variants=tuple(chosen.values())), tuning


def as_recorded(plan: Plan, store: Store) -> tuple[Plan, dict[str, Any]]:
    """Return a plan as its recorded runs name it: folders, and the learning rates chosen so far.

    The second value is that of `choose`.
    """
    return choose(settle_folders(plan, store), store, searched=False)


def all_runs(plan: Plan, store: Store) -> dict[str, RunRequest]:
    """Map the id of every run of a plan to it, with its search and the rates chosen so far."""
    plan, _ = as_recorded(plan, store)
    return {request.run_id: request for request in [*tuning_requests(plan), *plan.requests]}


@dataclass(frozen=True)
class _Score:
    """Validation accuracy of one value.

    Attributes:
        mean: over the seeds that learned; if none did, over those that did not diverge; NaN if
            all did.
        standard_error: of the mean; of one seed, that of its images only.
        learned: the number of seeds that learned.
    """

    mean: float
    standard_error: float
    learned: int


def _record(
    candidates: dict[float, dict[int, RunRequest]],
    scores: dict[float, _Score | None],
    chosen: float | None,
) -> dict[str, Any]:
    def each(figure: str) -> dict[str, Any]:
        found = {str(v): getattr(scores.get(v), figure, None) for v in candidates}
        return {value: None if x is None or math.isnan(x) else x for value, x in found.items()}

    return {
        "setting": "learning_rate",
        "values": each("mean"),
        "standard_errors": each("standard_error"),
        "learned": each("learned"),
        "seeds": list(next(iter(candidates.values()))),
        "chosen": chosen,
        "runs": {
            f"{value} seed {seed}": request.run_id
            for value, runs in candidates.items()
            for seed, request in runs.items()
        },
    }


def _candidates(plan: Plan, variant: PlannedVariant) -> dict[float, dict[int, RunRequest]]:
    """Map each value to its runs by seed; they do not depend on which seeds are requested.

    These runs do not evaluate the test images.
    """
    tune = plan.study.tune
    assert tune is not None  # noqa: S101 - called for plans that tune
    any_seed = next(iter(variant.requests.values()))
    return {
        rate: {
            seed: dataclasses.replace(any_seed, seed=seed, evaluate_test=False).with_recipe(
                learning_rate=rate
            )
            for seed in tune.seeds
        }
        for rate in tune.learning_rate
    }


def _score(store: Store, runs: dict[int, RunRequest]) -> _Score | None:
    """Return the mean with its standard error: of the seeds, and at least of the images."""
    ended = []
    for request in runs.values():
        record = store.read_run(request.run_id)
        if record is None:
            return None
        accuracy, images = (record.result.get(f"validation_{f}") for f in ("accuracy", "images"))
        if accuracy is not None:  # it did not diverge
            ended.append((request, accuracy, images, _has_learned(record, accuracy, images)))
    good = [one for one in ended if one[-1]]
    counted = good or ended
    if not counted:
        return _Score(math.nan, math.nan, 0)
    values = [accuracy for _, accuracy, _, _ in counted]
    mean = statistics.fmean(values)
    # Runs with one split have the same images.
    sizes = {(request.split_seed, request.data): images or 0 for request, _, images, _ in counted}
    images = sum(sizes.values())
    of_images = math.sqrt(mean * (1 - mean) / images) if images else 0.0
    of_seeds = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return _Score(mean, max(of_seeds, of_images), len(good))


def _has_learned(record: RunRecord, accuracy: float, images: int | None) -> bool:
    classes = len(record.result.get("classes", ()))
    guess = record.result.get("validation_largest_class", 1 / classes if classes else None)
    return guess is None or not images or learned(accuracy, guess, images)
