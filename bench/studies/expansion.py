"""Expand a study into its runs: variants × random seeds, each a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, check_known
from bench.models import ModelError, canonical
from bench.studies.growth import check_growth, grown_requests
from bench.studies.plan import Plan, PlannedVariant, VariantError
from bench.studies.recipe import MOST, Recipe, get_recipe
from bench.studies.run_request import Precision, RunRequest

if TYPE_CHECKING:
    from bench.studies.schema import Study, Variant


@dataclass(frozen=True)
class Overrides:
    """Values that replace those of the study file; None keeps the file's."""

    seeds: list[int] | None = None
    epochs: int | None = None
    dataset: str | None = None
    only: tuple[str, ...] = ()
    deterministic: bool = False
    default_precision: Precision = "fp32"


def expand(name: str, study: Study, overrides: Overrides | None = None) -> Plan:
    """Expand a study into its runs, with the command line's *overrides* applied.

    Raises:
        VariantError: a model, option or dataset is unknown or does not fit, or two variants are
            the same.
        BenchError: `only` names no variant, or a random seed is impossible.
    """
    overrides = overrides or Overrides()
    variants = study.variants
    default_reference = study.reference or variants[0].name
    seeds = overrides.seeds if overrides.seeds is not None else study.base.seeds
    for given in (study.base.seeds, seeds, *([study.tune.seeds] if study.tune else [])):
        _check_seeds(given)
    if study.tune and (both := {*study.tune.seeds} & {*study.base.seeds, *seeds}):
        raise BenchError(
            f"study '{name}': seed {min(both)} is in tune.seeds and is evaluated as well; give the "
            "search seeds of its own"
        )
    if overrides.epochs is not None and not 1 <= overrides.epochs <= MOST:
        raise BenchError(f"epochs = {overrides.epochs}: it must be 1 to {MOST:,}")
    _check_only(variants, overrides.only)
    planned: list[PlannedVariant] = []
    for place, variant in enumerate(variants):
        template = _request(study, place, variant, overrides)
        requests = {s: RunRequest(**{**template, "seed": s}) for s in dict.fromkeys(seeds)}
        if variant.grow_from is not None:
            requests = grown_requests(requests, variant, planned, place)
        reference = variant.reference or default_reference
        compared_with = None if reference == variant.name else reference
        planned.append(PlannedVariant(variant.name, compared_with, requests))
    _check_different(study, planned)
    check_growth(name, study, overrides.only)
    _check_validates(name, study, planned)
    _check_seeds_vary(planned)
    changed = {
        key: value
        for key in ("epochs", "dataset", "deterministic")
        if (value := getattr(overrides, key))
    }
    return Plan(name, study, tuple(planned), tuple(overrides.only), changed)


def _check_different(study: Study, planned: list[PlannedVariant]) -> None:
    """Refuse variants that would share their runs: they cannot differ, and a page shows one."""
    rate = {"learning_rate": study.tune.learning_rate[0]} if study.tune else {}  # tune replaces it
    known: dict[str, str] = {}
    for place, variant in enumerate(planned):
        request = next(iter(variant.requests.values())).with_recipe(**rate)
        first = known.setdefault(request.hash, variant.name)
        if first != variant.name:
            raise VariantError(
                f"variants '{first}' and '{variant.name}' train the same network in the same way; "
                "change one or leave it out (values that --epochs, --dataset or tune replace do "
                "not count)",
                place,
            )


def _check_validates(name: str, study: Study, planned: list[PlannedVariant]) -> None:
    """Refuse a study that needs validation accuracy if its recipe holds no images out."""
    if all(request.recipe.validation_fraction for v in planned for request in v.requests.values()):
        return
    for key, what in (
        ("tune", "tune chooses on validation accuracy"),
        ("target_accuracy", "target_accuracy is one of validation images"),
    ):
        if getattr(study, key) is not None:
            raise BenchError(
                f"study '{name}': {what}, but the recipe has no "
                f"validation split; set validation_fraction, or leave {key} out"
            )


def _check_seeds_vary(planned: list[PlannedVariant]) -> None:
    """Refuse variants whose seeds would all train the same."""
    for place, variant in enumerate(planned):
        for request in variant.requests.values():
            varied = request.recipe.seed_varies
            if varied == "subset" and not request.train_images:
                why = "all images are trained on; set train_images"
            elif varied == "split" and not request.recipe.validation_fraction:
                why = "no images are held out; set validation_fraction"
            else:
                continue
            raise VariantError(
                f"variant '{variant.name}': seed_varies = \"{varied}\" varies nothing, since "
                f"{why}, or vary something else",
                place,
            )


def _check_seeds(seeds: list[int]) -> None:
    if not seeds:
        raise BenchError("no random seeds; give at least one, such as 0,1,2")
    for seed in seeds:
        if abs(seed) >= 2**63:
            raise BenchError(f"random seed {seed} has more than 64 bits; give a smaller one")


def _check_only(variants: list[Variant], only: tuple[str, ...]) -> None:
    names = [v.name for v in variants]
    for name in only:
        check_known("--only", name, names)


def _request(study: Study, place: int, variant: Variant, overrides: Overrides) -> dict[str, Any]:
    """Return every value of a variant's requests except the seed."""
    base, own = study.base.model_dump(exclude_unset=True), variant.model_dump(exclude_unset=True)
    settings = {**base, **own, "options": {**base.get("options", {}), **own.get("options", {})}}
    model, options = _network(settings, place, variant.name)
    recipe = get_recipe(settings.get("recipe") or "fast")
    values = {k: settings[k] for k in Recipe.model_fields if settings.get(k) is not None}
    if ":" in model:  # from elsewhere, perhaps with trained weights
        values.setdefault("initialization", "model")
    if overrides.epochs is not None:
        values["epochs"] = overrides.epochs
    dataset, native = _dataset(settings, place, overrides.dataset)
    colours = {k: settings[k] for k in ("mean", "std") if settings.get(k) is not None}
    if len(colours) == 1:
        raise VariantError(f"variant '{variant.name}': give both mean and std, or neither", place)
    chosen = Recipe.model_validate({**recipe.model_dump(), **values})
    if colours and not chosen.normalize:
        if colours.keys() & own.keys() or not own.keys() & {"normalize", "recipe"}:
            raise VariantError(
                f"variant '{variant.name}': its recipe has normalize = false, so that mean and std "
                "do nothing; leave them out",
                place,
            )
        colours = {}  # of [base], for the variants that normalise
    return {
        "model": model,
        "options": options,
        "dataset": dataset,
        "recipe": chosen,
        "train_images": settings.get("train_images"),
        "input_size": settings.get("input_size") or native,
        "precision": settings.get("precision") or overrides.default_precision,
        "deterministic": overrides.deterministic,
        **{key: _per_channel(values, dataset) for key, values in colours.items()},
    }


def _per_channel(values: float | list[float], dataset: str) -> tuple[float, ...]:
    """Return one value per channel; a number is the value of all channels of *dataset*."""
    from bench.data import count_channels

    return tuple(values) if isinstance(values, list) else (values,) * count_channels(dataset)


def _network(settings: dict[str, Any], place: int, variant: str) -> tuple[str, dict[str, Any]]:
    """Return the canonical name and options of a variant's network."""
    model = settings.get("model")
    if model is None:
        message = f"variant '{variant}' has no model; set it there or in [base]"
        raise VariantError(message, place)
    try:
        return canonical(model, settings["options"])
    except ModelError as error:
        wrong = "model" if str(error) == _why_not(model) else "options"
        raise VariantError(f"variant '{variant}': {error}", place, wrong) from None


def _why_not(model: str) -> str | None:
    """Return why there is no such network without options; some depths need one."""
    try:
        canonical(model)
    except ModelError as error:
        return str(error)
    return None


def _dataset(settings: dict[str, Any], place: int, override: str | None) -> tuple[str, int | None]:
    """Return a variant's dataset, and the height of its images in pixels if that is known."""
    from bench.data import list_datasets
    from bench.data.catalog import suggestion

    given = settings.get("dataset") if override is None else override
    name = "fashion-mnist-mini" if given is None else given
    known = {info.name: info for info in list_datasets()}
    if name in known:
        return name, known[name].size
    if ":" in name:
        return name, None
    message = (
        f"unknown dataset '{name}'{suggestion(name)} "
        f"(known: {', '.join(known)}, imagefolder:PATH, package.module:function)"
    )
    raise BenchError(message) if override else VariantError(message, place, "dataset")
