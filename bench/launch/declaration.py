"""What a study declares before its results are seen: its seeds, and how they will be compared."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.studies import ADHOC
from bench.studies.run_request import request_hash

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.store import Store, StudyRecord
    from bench.studies import Plan


def declaration(
    plan: Plan,
    store: Store,
    before: StudyRecord | None,
    variants: Mapping[str, dict[str, Any]],
    other_inputs: str | None,
) -> dict[str, Any]:
    """Return the fields of a study's record that say what was declared, and when.

    Args:
        plan: the study as it is now.
        store: the results folder.
        before: the study's record so far.
        variants: the variants of the record to be written.
        other_inputs: digest of code and images, if they differ from those of recorded runs, which
            are trained again.
    """
    if plan.name == ADHOC:
        return {}
    rule = "-".join(filter(None, (rule_digest(plan), other_inputs)))
    declared = _rules(rule, store, before, variants)
    return {**_seeds(plan, before, len(declared["rules"]) - 1), **declared}


def _seeds(plan: Plan, before: StudyRecord | None, rule: int) -> dict[str, Any]:
    """Return the declared seeds, or the looks so far; the first record decides which."""
    if before is not None and before.declared_seeds:
        return {"declared_seeds": before.declared_seeds}
    looks = [] if before is None else before.looks
    if not looks and not plan.study.sequential:
        return {"declared_seeds": list(dict.fromkeys(plan.study.base.seeds))}
    seeds = sorted({seed for variant in plan.variants for seed in variant.requests})
    rules = [] if before is None else before.look_rules
    rules = rules + [0] * (len(looks) - len(rules))
    # Nothing can be tested with one seed.
    if len(seeds) > 1 and (seeds, rule) not in zip(looks, rules, strict=True):
        looks, rules = [*looks, seeds], [*rules, rule]
    return {"looks": looks, "look_rules": rules}


def _rules(
    rule: str, store: Store, before: StudyRecord | None, variants: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return the rules so far; one that no result was seen under is replaced, if it is the last."""
    seen = before is not None and _ended(store, before.variants) > 0
    rules = [] if before is None else before.rules if seen else before.rules[:-1]
    existing = before.existing_runs if before and (seen or rules) else _ended(store, variants)
    if not rules or rule not in {rules[-1], rules[-1].partition("-")[0]}:
        rules = [*rules, rule]
    return {"rules": rules, "existing_runs": existing}


def _ended(store: Store, variants: Mapping[str, dict[str, Any]]) -> int:
    runs = {run for entry in variants.values() for run in entry["runs"].values()}
    return sum(store.read_run(run) is not None for run in runs)


def rule_digest(plan: Plan) -> str:
    """Return twelve hexadecimal digits that identify what a study compares and how it is tested.

    Random seeds, names of variants and texts have no part in it, nor has the outcome of a search
    for learning rates.
    """
    study = plan.study
    rate = {"learning_rate": study.tune.learning_rate[0]} if study.tune else {}
    trained = {
        v.name: replace(next(iter(v.requests.values())), grown_from=None)
        .with_recipe(**rate)
        .seedless_hash
        for v in plan.variants
    }
    comparisons = {
        **{v.name: {v.name: 1.0, v.reference: -1.0} for v in plan.variants if v.reference},
        **{contrast.name: contrast.weights for contrast in study.contrast},
    }
    members = {
        name: sorted((trained.get(v, v), weight) for v, weight in weights.items())
        for name, weights in comparisons.items()
    }
    primary = study.primary
    return request_hash(
        {
            "comparisons": sorted(members.values()),
            "grown": sorted(
                (trained[v.name], trained[v.grow_from]) for v in study.variants if v.grow_from
            ),
            "primary": primary and [members.get(primary.name), primary.accuracy],
            "compare_training": study.compare_training,
            "test": study.test,
            "margin": study.margin,
            "tune": study.tune and study.tune.model_dump(),
        }
    )
