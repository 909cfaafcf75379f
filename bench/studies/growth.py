"""Runs that start as another run's trained network, made larger."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from bench.errors import BenchError, nearest
from bench.models import canonical
from bench.studies.lines import explain_first
from bench.studies.plan import PlannedVariant, VariantError
from bench.studies.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.studies.run_request import RunRequest
    from bench.studies.schema import Study, Variant


def grown_requests(
    requests: dict[int, RunRequest],
    variant: Variant,
    planned: Sequence[PlannedVariant],
    place: int,
) -> dict[int, RunRequest]:
    """Make a variant's runs start from those of the earlier variant that it names.

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
    """Refuse a study that grows variants and also tunes, or leaves out a parent by `--only`."""
    growing = {v.name: v.grow_from for v in study.variants if v.grow_from is not None}
    if growing and study.tune:
        raise BenchError(
            f"study '{name}': tune changes the runs that grow_from starts from; leave one out"
        )
    for child in only:
        parent = growing.get(child)
        if parent is not None and parent not in only:
            raise BenchError(f"--only {child}: it grows from '{parent}'; add --only {parent}")


def grown_request(
    parent: RunRequest,
    run: str,
    to: str,
    *,
    width: int | None,
    epochs: int | None,
    settings: dict[str, Any],
) -> RunRequest:
    """Return the request of a run that starts as *run*, made larger.

    Args:
        parent: the request of *run*.
        run: id of the parent.
        to: name of the larger network; options of the parent's carry over.
        width: channels of the larger network's first stage (default: the parent's).
        epochs: epochs of further training (default: the parent's).
        settings: recipe values that replace the parent's.

    Raises:
        BenchError: the networks do not nest, or a value is impossible.
    """
    from bench.networks.nesting import check_nesting, configuration

    if epochs is not None and epochs < 0:
        raise BenchError(f"--epochs {epochs}: it must be at least 0 (0: grow and prove only)")
    options = {k: v for k, v in parent.options.items() if k not in {"width", "zero_init_residual"}}
    old = configuration((parent.model, parent.options))
    network = canonical(to, {**options, "width": width or old.width})
    check_nesting((parent.model, parent.options), network)
    own = {k: v for k, v in parent.options.items() if k != "zero_init_residual"}
    if network == (parent.model, own):
        raise BenchError(f"--to {to}: that is the run's own network; name a larger one")
    whitening = {parent.recipe.whitening, settings.get("whitening", parent.recipe.whitening)}
    if whitening == {"none", "initial"}:
        raise BenchError(
            f"--set whitening={settings['whitening']}: the larger network starts with the run's "
            "own first convolution; leave it out"
        )
    changed = {**settings, **({} if epochs is None else {"epochs": epochs})}
    try:
        recipe = Recipe.model_validate({**parent.recipe.model_dump(), **changed})
    except ValidationError as error:
        raise BenchError(explain_first(error, schema=Recipe)) from None
    model, options = network
    return replace(
        parent, model=model, options=options, recipe=recipe, initial_weights=None, grown_from=run
    )
