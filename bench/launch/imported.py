"""The plan of a run whose network was trained elsewhere: nothing is trained, it is evaluated."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, nearest, warn
from bench.launch.carry_out import make_plan
from bench.launch.reuse import loaded_tensors, settle_folders
from bench.models import LibraryFamily, default_shape, model_family
from bench.models.errors import one_line
from bench.studies import ADHOC, Overrides, Plan, adhoc_study, check_study_name
from bench.studies.run_request import IMPORT_SETTINGS
from bench.system.mcnemar import mcnemar_p_value
from bench.training.check import check_trainable
from bench.training.evaluation import evaluate
from bench.training.layout import lay_out
from bench.training.setup import Split, build_network, load_data

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from bench.data import Dataset
    from bench.store import Store
    from bench.studies.run_request import RunRequest

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_TRIED_IMAGES = 128
_HIGH = 0.98  # an accuracy that needs no explanation
_SURE = 0.001  # p-value of a difference that needs one


def import_plan(
    model: str,
    dataset: str,
    *,
    options: dict[str, Any],
    settings: dict[str, Any],
    weights: Path | None,
    name: str | None,
    device: torch.device,
    store: Store,
    force: bool = False,
) -> Plan:
    """Plan the import of a trained network, and check that it is one and fits the dataset.

    Networks of timm and torchvision take images as their published weights do (size, mean, standard
    deviation), unless *settings* say otherwise; others have the images' own size and the mean and
    standard deviation of the training images. A warning names a usual normalisation that makes the
    network much more accurate on training images.

    Args:
        model: as `bench.models.build_model` takes it.
        dataset: name of the dataset.
        options: options of the network.
        settings: values of `IMPORT_SETTINGS`.
        weights: file of the trained weights (None: those that the network comes with).
        name: the study that the run is recorded in (None: `adhoc`).
        device: where it is evaluated.
        store: the results folder.
        force: let *name* stand for another run from now on.

    Raises:
        BenchError: a name, a setting or the file cannot be used, the weights are not the network's,
            or without a file some of the network's weights are random.
    """
    if model.lower().endswith(".onnx"):
        raise BenchError(
            f"{model}: an ONNX file is not imported; other commands take it as it is, such as "
            f"'bench throughput {model}'"
        )
    _check_settings(settings)
    if name is not None:
        check_study_name(name, f"--name {name}")
    values = {"name": name or model, "model": model, "options": options, "dataset": dataset}
    question = f"What does {name or model} reach?"
    study = adhoc_study(question, {**values, "precision": "fp32", **settings}, seed=0)
    plan = make_plan(study, device, Overrides(), name=name or ADHOC, weights=weights)
    plan = settle_folders(plan.map(lambda r: _with_own_size(r, settings)), store)
    data = load_data(plan.requests[0])
    if data.timing_only:
        raise BenchError(f"--dataset {dataset}: its images are noise; give those of the network")
    plan = plan.map(lambda r: _with_own_colours(r, settings, data))
    plan = plan.map(lambda r: r.with_recipe(epochs=0, initialization="model"))
    if name is not None and not force:
        _refuse_taken(plan, store)
    (request,) = plan.requests
    check_trainable(request, data)
    if weights is None:
        _refuse_random(request, data)
    network = build_network(request, data, weights)
    try:
        _warn_of_normalisation(network, Split.of(data, request, device))
    except Exception as error:  # a user's network may raise anything
        raise BenchError(f"model '{model}' fails on training images: {one_line(error)}") from None
    return plan


def _check_settings(settings: dict[str, Any]) -> None:
    for key in settings:
        if key not in IMPORT_SETTINGS:
            raise BenchError(
                f"--set {key}: an imported network is not trained{nearest(key, IMPORT_SETTINGS)} "
                f"(what can be set: {', '.join(IMPORT_SETTINGS)})"
            )


def _refuse_taken(plan: Plan, store: Store) -> None:
    """Refuse a name under which other runs are recorded."""
    study = store.read_study(plan.name)
    others = study.runs - {request.run_id for request in plan.requests} if study else None
    if others:
        raise BenchError(
            f"--name {plan.name}: there is a study of this name, with run {min(others)}; choose "
            "another name, or --force gives it to the new run"
        )


def _with_own_size(request: RunRequest, settings: dict[str, Any]) -> RunRequest:
    family = model_family(request.model, request.options)
    if not isinstance(family, LibraryFamily) or settings.get("input_size"):
        return request
    return replace(request, input_size=default_shape(request.model, request.options)[1])


def _with_own_colours(request: RunRequest, settings: dict[str, Any], data: Dataset) -> RunRequest:
    family = model_family(request.model, request.options)
    if not isinstance(family, LibraryFamily) or not settings.get("normalize", True):
        return request
    own = family.colours_of(request.model, request.options)
    if request.mean or own is None or len(own[0]) != data.channels:
        return request
    return replace(request, mean=own[0], std=own[1])


def _refuse_random(request: RunRequest, data: Dataset) -> None:
    """Refuse a network of which some weights were neither trained nor given."""
    side = request.input_size or data.size
    loaded, drawn = loaded_tensors(request, len(data.classes), (data.channels, side, side))
    if drawn:
        raise BenchError(
            f"model '{request.model}' for {len(data.classes)} classes has random weights in "
            f"{len(drawn)} of {len(loaded) + len(drawn)} tensors ('{drawn[-1]}'), and nothing is "
            "trained here: give the trained ones by --weights FILE, or an option that loads them "
            "(timm: pretrained=true, torchvision: weights=DEFAULT)"
        )


def _warn_of_normalisation(network: nn.Module, split: Split) -> None:
    """Warn if the network is much more accurate on training images normalised in a usual way."""
    request, channels = split.request, split.dataset.channels
    memory_format = lay_out(network, split.device, split.input_shape)
    images = split.train.spread(_TRIED_IMAGES)

    def right(*, normalize: bool = True, **changes: Any) -> Tensor:
        """Return which images are classified correctly with another normalisation."""
        other = replace(request, **changes).with_recipe(normalize=normalize)
        batches = replace(split, request=other).evaluation(images, memory_format)
        found = evaluate(network, batches)
        return found.predictions == found.labels

    used = right(normalize=request.recipe.normalize)
    if used.float().mean() > _HIGH:
        return
    half = (0.5,) * channels
    ways: dict[str, dict[str, Any]] = {
        "--set normalize=false": {"normalize": False},
        _written(half, half): {"mean": half, "std": half},
        _written(split.dataset.mean, split.dataset.std): {"mean": None, "std": None},
    }
    if channels == len(IMAGENET[0]):
        ways[_written(*IMAGENET)] = {"mean": IMAGENET[0], "std": IMAGENET[1]}
    tried = {way: right(**changes) for way, changes in ways.items()}
    way, best = max(tried.items(), key=lambda item: int(item[1].sum()))
    gained, lost = int((best & ~used).sum()), int((used & ~best).sum())
    if gained > lost and mcnemar_p_value(gained, lost) < _SURE:
        warn(
            f"{used.float().mean() * 100:.0f} % of {len(images)} training images are classified "
            f"correctly, but {best.float().mean() * 100:.0f} % with {way}; set what the network "
            "was trained with"
        )


def _written(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    """Write a normalisation as the command line takes it."""
    numbers = (",".join(f"{value:.3g}" for value in values) for values in (mean, std))
    return "--set 'mean=[{}]' --set 'std=[{}]'".format(*numbers)
