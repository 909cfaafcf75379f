"""The images that int8 ranges are calibrated with: a run's own, a dataset's, or random ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bench.data import Dataset, Preprocessing, load_dataset
from bench.data.images import AS_COLOURS
from bench.data.splits import stable_seed
from bench.errors import BenchError
from bench.export.settings import RANDOM
from bench.targets.network import random_images

if TYPE_CHECKING:
    from torch import Tensor

    from bench.data.preprocessing import Resize
    from bench.export.settings import Settings
    from bench.targets.network import LoadedNetwork

NO_IMAGES = (
    "has no training images to calibrate int8 with: give --dataset NAME, such as imagefolder:PATH, "
    "or --dataset random if only the speed matters"
)


def calibration_images(source: LoadedNetwork, settings: Settings) -> Tensor:
    """Return float32 images N×C×S×S, prepared for the network.

    Raises:
        BenchError: the network has no images of its own and no others were given, or they do
            not fit it.
    """
    count, seed = settings.images_wanted, settings.calibration_seed
    if settings.dataset == RANDOM:
        return random_images(f"calibration/{seed}", source.input_shape, count)
    dataset = calibration_dataset(source, settings)
    if dataset is None:
        images = source.calibration_images(count, seed)
        _check_count(len(images), settings, f"run {source.run} was trained on")
        return images
    made = source.preprocessing or _of_model(source.model, dataset, source.input_shape[-1])
    return made.apply(draw_images(dataset, settings))


def calibration_dataset(source: LoadedNetwork, settings: Settings) -> Dataset | None:
    """Return the dataset that `--dataset` names; None for random and a run's own images.

    Raises:
        BenchError: there is no such dataset, it does not fit, or the network needs one.
    """
    if settings.dataset is None and source.trained is None:
        raise BenchError(f"{source.name} {NO_IMAGES}")
    if settings.dataset in {None, RANDOM}:
        return None
    return fitting_dataset(str(settings.dataset), source.name, source.input_shape)


def fitting_dataset(
    name: str, network: str, shape: tuple[int, int, int], resize: Resize = "crop"
) -> Dataset:
    """Load a dataset for a network that takes C×H×W images.

    Those of an image folder are squares of the longer side (`bench.data.load_dataset`).

    Raises:
        BenchError: there is no such dataset, or it has other channels.
    """
    dataset = load_dataset(name, image_size=max(shape[1:]), resize=resize)
    found = dataset.channels, shape[0]
    if found[0] != found[1]:
        plural = "s" if dataset.channels > 1 else ""
        raise BenchError(
            f"--dataset {name}: its images have {dataset.channels} channel{plural}, and {network} "
            f"takes {shape[0]}; use another dataset{AS_COLOURS * (found == (1, 3))}"
        )
    return dataset


def draw_images(dataset: Dataset, settings: Settings) -> Tensor:
    """Draw training images, uint8, N×C×H×W.

    Raises:
        BenchError: there are fewer than asked for, or than one batch.
    """
    order = torch.randperm(len(dataset.train), generator=_generator(settings.calibration_seed))
    chosen = order[: settings.images_wanted].sort().values
    _check_count(len(chosen), settings, f"{dataset.name} has")
    return dataset.train.images[chosen]


def _check_count(drawn: int, settings: Settings, owner: str) -> None:
    """Refuse fewer images than were asked for, or than one batch."""
    asked, batch = settings.calibration_images, settings.calibration_batch
    if drawn < batch:
        raise BenchError(
            f"{owner} {drawn} training images, and calibrating int8 takes {batch} or more; "
            "give another --dataset"
        )
    if asked is not None and drawn < asked:
        raise BenchError(
            f"--calibration-images {asked}: {owner} {drawn} training images; use {drawn} or less"
        )


def calibrated_on(settings: Settings) -> str | None:
    """Return what the column `calibration` shows; None for a file without ranges."""
    return (settings.dataset or "training") if settings.precision == "int8" else None


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(stable_seed("export", f"calibration/{seed}"))


def _of_model(model: Any, dataset: Dataset, side: int) -> Preprocessing:
    """Prepare a dataset's images for a model, whose own mean and deviation come first (timm)."""
    known: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    mean, std = (tuple(known.get(name) or getattr(dataset, name)) for name in ("mean", "std"))
    if len(mean) != dataset.channels:
        mean, std = dataset.mean, dataset.std
    return Preprocessing(side, mean, std)
