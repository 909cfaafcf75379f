"""Check that a request can be trained, before anything is started."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save
from torch import nn

from bench.data.images import AS_COLOURS
from bench.errors import BenchError
from bench.models import LazyError, ModelError, ResidualBlock
from bench.models.errors import first_line, reraise_ours
from bench.training.distributed import launched_by_torchrun
from bench.training.schedule import side_at
from bench.training.setup import build_blank, split_places
from bench.training.weights import stored
from bench.training.whitening import stem_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.data import Dataset
    from bench.studies.run_request import RunRequest

_FEW_IMAGES = 50  # of a split: one image is more than two points
_FEW_STEPS = 2
_SHOWN = 4  # classes that a remark names


def check_trainable(request: RunRequest, dataset: Dataset) -> None:
    """Build the request's network and pass tiny batches through it, as a run does.

    They are in training mode, unless it was trained elsewhere, and in evaluation mode.

    Raises:
        BenchError: the network cannot be built, has nothing to train, gives the wrong number of
            classes, its maps vanish at this input size, batch norm would see a single value, or
            its state cannot be stored.
    """
    name = f"model '{request.model}'"
    size = request.input_size or dataset.size
    shape = (dataset.channels, size, size)
    try:
        model = build_blank(request, len(dataset.classes), shape)
    except LazyError as error:
        raise BenchError(_explain(error.__cause__ or error, 2, shape, name)) from None
    except ModelError as error:
        raise BenchError(str(error)) from None
    built = model.state_dict().keys()
    _check_ingredients(model, request, dataset, name)
    kept, held_out = (len(places) for places in split_places(request, dataset))
    if not request.imported:
        _check_batches(model.train(), request, shape, dataset, [kept])
    _check_batches(model.eval(), request, shape, dataset, [kept, held_out, len(dataset.test)])
    if not (request.imported or any(p.requires_grad for p in model.parameters())):
        raise BenchError(
            f"{name} has no trainable parameters; leave requires_grad of some at True, or "
            "evaluate it as it is with 'bench import'"
        )
    _check_stored(model, built, name)


def check_shared(request: RunRequest, dataset: Dataset, device: str) -> None:
    """Check that the processes that `torchrun` started can share each batch of a request.

    Raises:
        BenchError: the last batch has too few images for them, or batch norm, which on CPUs sees
            one process's images only, would see a single value.
    """
    if not launched_by_torchrun() or request.imported:
        return
    processes, size = int(os.environ["WORLD_SIZE"]), request.recipe.batch_size
    kept = len(split_places(request, dataset)[0])
    last = kept % size or size
    if last < processes:
        raise BenchError(
            f"the last batch of {kept} training images in batches of {size} has {last} image(s), "
            f"which {processes} processes cannot share; use at most {last} processes, or another "
            "batch_size"
        )
    if last // processes == 1 and device == "cpu":
        side = request.input_size or dataset.size
        shape = (dataset.channels, side, side)
        model = build_blank(request, len(dataset.classes), shape).train()
        _forward(model, 1, shape, f"model '{request.model}'")


def remarks(request: RunRequest, dataset: Dataset) -> list[str]:
    """Say what makes a run's figures coarse or its training short; one line each, no error."""
    data, recipe = f"dataset '{dataset.name}'", request.recipe
    found = list(dataset.notes)
    kept, held_out = split_places(request, dataset)
    counts = dataset.train.labels.bincount(minlength=len(dataset.classes)).tolist()
    lone = [name for name, count in zip(dataset.classes, counts, strict=True) if count == 1]
    if lone:
        found.append(
            f"{data}: {_listed(lone)} one training image: it stays in training, so that "
            "no validation accuracy covers it"
        )
    tested = dataset.test.labels.bincount(minlength=len(dataset.classes)).tolist()
    untested = [name for name, count in zip(dataset.classes, tested, strict=True) if not count]
    if untested:
        found.append(f"{data}: {_listed(untested)} no test image")
    for split, size in (("validation", len(held_out)), ("test", len(dataset.test))):
        if 0 < size < _FEW_IMAGES:
            found.append(
                f"{data}: the {split} set has {size} images, of which one is "
                f"{100 / size:.1f} points of accuracy"
            )
    steps = math.ceil(len(kept) / recipe.batch_size)
    if steps <= _FEW_STEPS:
        found.append(
            f"{data}: {len(kept)} training images in batches of {recipe.batch_size} are "
            f"{steps} step{'s' * (steps > 1)} an epoch; a smaller batch_size makes more"
        )
    return found


def _listed(classes: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in classes[:_SHOWN])
    more = f" and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else ""
    return f"class {shown} has" if len(classes) == 1 else f"classes {shown}{more} have"


def _check_ingredients(model: nn.Module, request: RunRequest, dataset: Dataset, name: str) -> None:
    """Refuse recipe values that this network or dataset does not support."""
    recipe = request.recipe
    for key, values in (("mean", request.mean), ("std", request.std)):
        if values is not None and len(values) != dataset.channels:
            raise BenchError(
                f"{key} has {len(values)} value(s), the images of dataset '{dataset.name}' have "
                f"{dataset.channels} channel(s); give one per channel"
            )
    smaller = min(dataset.train.images.shape[-2:])  # images are cropped at their own size
    if recipe.crop_padding >= smaller:
        raise BenchError(
            f"crop_padding = {recipe.crop_padding}: the images of dataset '{dataset.name}' have "
            f"{smaller} pixels a side; use less than {smaller}"
        )
    if recipe.whitening != "none":
        stem_of(model, dataset.channels, name)
    blocks = any(isinstance(module, ResidualBlock) for module in model.modules())
    wanted = {
        "branch_weight_decay": recipe.branch_weight_decay is not None,
        "record_blocks": recipe.record_blocks,
    }
    for key in (k for k, used in wanted.items() if used):
        if not blocks:
            raise BenchError(
                f"{name} has no residual blocks, which {key} is for; leave it out, or take a "
                "network of the residual families (resnetN, preact_resnetN, plainN)"
            )
    if recipe.initial_size < 1:
        height = request.input_size or dataset.size
        side = side_at(recipe, 0, height)
        _forward(model, 2, (dataset.channels, side, side), name)


def _check_batches(
    model: nn.Module,
    request: RunRequest,
    shape: tuple[int, ...],
    dataset: Dataset,
    images: Sequence[int],
) -> None:
    """Check the logits of a batch of two, and of one if a split of so many *images* ends in it."""
    name, size, classes = f"model '{request.model}'", request.recipe.batch_size, dataset.classes
    lone = any(count % size == 1 or size == 1 for count in images)
    for batch in (2, 1) if lone else (2,):
        output = _forward(model, batch, shape, name)
        if output.shape != (batch, len(classes)):
            raise BenchError(
                f"{name} gives {tuple(output.shape[1:])} values per image, dataset "
                f"'{dataset.name}' has {len(classes)} classes; its last layer must take num_classes"
            )


def _check_stored(model: nn.Module, built: Iterable[str], name: str) -> None:
    """Refuse a state that cannot be stored, or has other names than when the model was *built*."""
    state = model.state_dict()
    new = state.keys() ^ set(built)
    if new:
        raise BenchError(
            f"{name} adds or removes '{min(new)}' of its state in forward, so that its weights "
            "could not be loaded; create it in __init__, or with persistent=False"
        )
    for key, value in state.items():
        try:
            save(stored({key: value}))
        except Exception:  # torch and safetensors raise various ones
            kind = str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch.")
            raise BenchError(
                f"{name} keeps '{key}' in its state, of {kind}, which safetensors cannot store; "
                "make it a dense tensor of another dtype, or keep it outside the state "
                "(persistent=False, no get_extra_state)"
            ) from None


def _forward(model: nn.Module, batch: int, shape: tuple[int, ...], name: str) -> torch.Tensor:
    try:
        with torch.no_grad():
            output = model(torch.zeros(batch, *shape))
    except (Exception, SystemExit) as error:  # a user's network may raise anything
        reraise_ours(error)
        raise BenchError(_explain(error, batch, shape, name)) from None
    if not isinstance(output, torch.Tensor) or output.ndim != 2:  # noqa: PLR2004 - N × classes
        mode = "training" if model.training else "evaluation"
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise BenchError(
            f"{name} must return one tensor of logits, N × classes; in {mode} mode it returns "
            f"{found} for a batch of {batch}"
        )
    return output


def _explain(error: BaseException, batch: int, shape: tuple[int, ...], name: str) -> str:
    reason = first_line(error)
    size = "×".join(map(str, shape))
    if "more than 1 value per channel" in reason:
        return (
            f"{name} leaves a single value per channel for batch norm to train on, with a last "
            f"batch of {batch} image(s) of {size}; choose another batch_size or a larger input_size"
        )
    if "too small" in reason or "Kernel size can't be greater" in reason:
        return f"{name}: its maps vanish at an input of {size}; choose a larger input_size"
    grey = shape[0] == 1 and "3 channels" in reason
    return f"{name} cannot take an input of {size}: {reason}{AS_COLOURS * grey}"
