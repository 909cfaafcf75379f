"""Variants that start as an earlier variant's trained network, made larger."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bench.errors import BenchError, nearest
from bench.studies.plan import VariantError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.studies.plan import PlannedVariant
    from bench.studies.request import RunRequest
    from bench.studies.schema import Study, Variant


def grown(
    requests: dict[int, RunRequest],
    variant: Variant,
    planned: Sequence[PlannedVariant],
    place: int,
) -> dict[int, RunRequest]:
    """Let a variant's runs start from the runs of the variant that it grows from.

    Args:
        requests: the variant's, by random seed.
        variant: what the study file says of it.
        planned: the variants before it.
        place: its own place among them, for errors.

    Raises:
        VariantError: no earlier variant has the name, or the networks do not nest.
    """
    from bench.networks.nesting import check_nesting

    earlier = {v.name: v for v in planned}
    if variant.grow_from not in earlier:
        raise VariantError(
            f"variant '{variant.name}': grow_from = '{variant.grow_from}' is no variant before "
            f"it{nearest(str(variant.grow_from), earlier)} (before it: "
            f"{', '.join(earlier) or 'none'})",
            place,
            "grow_from",
        )
    parents = earlier[variant.grow_from].requests
    one, other = next(iter(parents.values())), next(iter(requests.values()))
    try:
        check_nesting((one.model, one.options), (other.model, other.options))
    except BenchError as error:
        raise VariantError(f"variant '{variant.name}': {error}", place, "grow_from") from None
    return {s: replace(r, grown_from=parents[s].run_id) for s, r in requests.items()}


def check_growth(name: str, study: Study, only: Sequence[str]) -> None:
    """Refuse what grown variants do not go together with.

    Raises:
        BenchError: a search of settings, or `--only` without the parents.
    """
    growing = {v.name: v.grow_from for v in study.variants if v.grow_from is not None}
    if growing and study.tune:
        raise BenchError(
            f"study '{name}': tune changes the runs that grow_from starts from; leave one out"
        )
    for child in only:
        parent = growing.get(child)
        if parent is not None and parent not in only:
            raise BenchError(f"--only {child}: it grows from '{parent}'; add --only {parent}")
