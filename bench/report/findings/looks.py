"""Which look at a study's results this is, and the significance level that is left for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bench.report.findings.power import SIGNIFICANCE

if TYPE_CHECKING:
    from bench.store import StudyRecord


def look(study: StudyRecord) -> int:
    """Return which look at the comparisons this is, from 1.

    Earlier looks, and each change of what is compared or how it is tested after results could be
    seen, count as one. In a study that may grow, each set of seeds counts once for each rule
    that it was tested under.
    """
    if not study.looks:
        return study.earlier_looks + changes(study) + 1
    seeds = sorted({int(s) for entry in study.variants.values() for s in entry["runs"]})
    rules = study.look_rules + [0] * (len(study.looks) - len(study.look_rules))
    made, now = list(zip(study.looks, rules, strict=True)), (seeds, changes(study))
    number = made.index(now) if now in made else len(made)
    not_recorded = len(set(range(changes(study))) - set(rules))  # before `look_rules` was kept
    return study.earlier_looks + not_recorded + number + 1


def changes(study: StudyRecord) -> int:
    """Return how often what is compared or how was changed after results could be seen."""
    return len(study.rules[1:])


def level(study: StudyRecord) -> float:
    """Return the significance level of all comparisons of a study together, at this look."""
    first_and_only = look(study) == 1 and not study.looks
    return SIGNIFICANCE if first_and_only else level_of_look(look(study))


def later_level(study: StudyRecord) -> float | None:
    """Return the level of the next look, at more seeds; None if seeds cannot be added."""
    return level_of_look(look(study) + 1) if study.looks else None


def level_of_look(number: int) -> float:
    """Return the significance level of a study's n-th look, from 1; all looks add up to 0.05."""
    return SIGNIFICANCE * 6 / (math.pi * number) ** 2
