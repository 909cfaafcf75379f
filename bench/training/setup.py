"""Set a run up: its data on the device, its network, its initial or trained weights."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bench.data import (
    Augmentation,
    Batches,
    Dataset,
    Images,
    Preprocessing,
    data_directory,
    evaluation_batches,
    load_dataset,
    validation_split,
)
from bench.data.catalog import FOLDER_PREFIX
from bench.data.moved import record_move
from bench.errors import BenchError
from bench.models import ModelError, build_model, materialise
from bench.studies.run_request import RunRequest
from bench.system.user_code import current_code
from bench.training.initialise import initialise
from bench.training.inputs import recorded_inputs, refuse_other_inputs
from bench.training.layout import preferred_memory_format
from bench.training.schedule import side_at
from bench.training.weights import load_weights, weights_digest
from bench.training.whitening import IMAGES, stem_of, whiten

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from bench.data.preprocessing import Resize
    from bench.store import RunRecord, Store

    Channels = tuple[float, ...]  # one value for each


@dataclass(frozen=True)
class Split:
    """A dataset as one run uses it: training, validation and test images on the device."""

    train: Images
    validation: Images
    test: Images
    dataset: Dataset
    request: RunRequest
    device: torch.device

    @classmethod
    def of(cls, dataset: Dataset, request: RunRequest, device: torch.device) -> Split:
        """Hold validation images out, and copy all to *device* if they fit there.

        Memory-mapped images, and those that would take more than a quarter of a GPU's free memory,
        which several runs may share, stay where they are; their batches are copied.
        """
        kept, held_out = split_places(request, dataset)
        take = dataset.train.view if dataset.memory_mapped else dataset.train.subset
        parts = {
            "train": take(kept) if len(held_out) else dataset.train,
            "validation": take(held_out),
            "test": dataset.test,
        }
        if not dataset.memory_mapped and _fits(parts.values(), device):
            parts = {name: images.to(device) for name, images in parts.items()}
        return cls(**parts, dataset=dataset, request=request, device=device)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width that the network sees."""
        channels, height, width = self.train.images.shape[1:]
        size = self.request.input_size
        return (channels, size or height, size or width)

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become the network's input."""
        data = self.dataset
        return preprocessing_of(
            self.request, self.request.input_size, data.mean, data.std, data.size
        )

    def training_batches(self, memory_format: torch.memory_format) -> Batches:
        """Return shuffled, augmented batches of the training images."""
        recipe = self.request.recipe
        return Batches(
            self.train,
            batch_size=recipe.batch_size,
            seed=self.request.order_seed,
            augmentation=Augmentation(
                crop_padding=recipe.crop_padding,
                padding_mode=recipe.padding_mode,
                flip=recipe.flip,
                cutout=recipe.cutout,
            ),
            preprocessing=self.preprocessing,
            memory_format=memory_format,
            device=self.device,
            sides=self._sides(),
        )

    def _sides(self) -> list[int]:
        """Return the image size of every epoch, if it is not the same for all."""
        recipe, full = self.request.recipe, self.input_shape[-1]
        if recipe.initial_size == 1:
            return []
        return [side_at(recipe, epoch, full) for epoch in range(recipe.epochs)]

    def evaluation(
        self, images: Images, memory_format: torch.memory_format | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Return batches of one split in order, without augmentation.

        *memory_format* is the layout that the network has (default: the device's preferred one).
        """
        return evaluation_batches(
            images,
            batch_size=self.request.recipe.batch_size,
            preprocessing=self.preprocessing,
            memory_format=memory_format or preferred_memory_format(self.device),
            device=self.device,
        )


def _fits(parts: Iterable[Images], device: torch.device) -> bool:
    if device.type != "cuda" or not torch.cuda.is_available():
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return sum(part.images.nbytes for part in parts) <= free / 4


def split_places(request: RunRequest, dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Return where a run's training and validation images are in its dataset's training set.

    Nobody knows what an imported network was trained on, so it holds none out.
    """
    fraction = 0.0 if request.imported else request.recipe.validation_fraction
    return validation_split(dataset.train.labels, fraction, request.split_seed)


def preprocessing_of(
    request: RunRequest, input_size: int | None, mean: Channels, std: Channels, image_size: int
) -> Preprocessing:
    """Return how a run's images become the network's input.

    Args:
        request: the run's.
        input_size: H and W of the network's input; None for the images' own.
        mean: of each channel of the training images; the request's own goes before it.
        std: standard deviation of each channel, likewise.
        image_size: H and W of the dataset's images.
    """
    return Preprocessing(
        input_size=input_size,
        mean=request.mean or mean,
        std=request.std or std,
        antialias=request.recipe.antialias,
        normalize=request.recipe.normalize,
        image_size=image_size,
        resize=request.recipe.resize,
    )


def build_blank(request: RunRequest, classes: int, input_shape: Sequence[int]) -> nn.Module:
    """Build the request's network as its code makes it, lazy layers included."""
    for key in ("num_classes", "in_channels"):
        if key in request.options:
            raise ModelError(f"{request.model}: the dataset determines {key}; leave the option out")
    model = build_model(
        request.model, num_classes=classes, in_channels=input_shape[0], **request.options
    )
    return materialise(model, tuple(input_shape))


def build_network(request: RunRequest, dataset: Dataset, weights: Path | None = None) -> nn.Module:
    """Build the request's network for *dataset* with its initial weights, on the CPU.

    Raises:
        BenchError: the file of *weights* is not the one that the request was made with.
    """
    seed = request.initial_seed
    torch.manual_seed(seed)  # for what `initialise` leaves to the network's own code
    side = request.input_size or dataset.size
    model = build_blank(request, len(dataset.classes), (dataset.channels, side, side))
    initialise(model, seed, request.recipe.initialization)
    if request.recipe.whitening != "none":
        _whiten(model, request, dataset)
    if weights is not None:
        # A grown run names no weights of its own: its parent's replace them.
        if request.initial_weights not in {None, weights_digest(weights)}:
            raise BenchError(
                f"--weights {weights}: the file has changed since the command began; restore it, "
                "or give the command again"
            )
        load_weights(model, weights)
    return model


def _whiten(model: nn.Module, request: RunRequest, dataset: Dataset) -> None:
    split = Split.of(dataset, request, torch.device("cpu"))
    stem = stem_of(model, dataset.channels, f"model '{request.model}'")
    images = split.evaluation(split.train.spread(IMAGES))
    whiten(stem, images, freeze=request.recipe.whitening == "frozen")


def read_trained(store: Store, run: str) -> tuple[RunRecord, nn.Module]:
    """Read a finished run's record and its trained network, in evaluation mode on the CPU.

    Raises:
        BenchError: there is no such run, it did not finish, or its files are damaged.
    """
    record = store.read_run(run)
    if record is None or record.status != "complete":
        raise BenchError(why_untrained(run, record or store.read_unfinished(run), store))
    request = RunRequest.from_dict(record.request)
    if record.environment.get("user_code"):
        now = {"user_code": current_code(request.model)}
        refuse_other_inputs(run, request, recorded_inputs(record), now)
    model = build_blank(request, len(record.result["classes"]), record.result["input_shape"])
    tensors = store.read_tensors(run, "model.safetensors")
    try:
        model.load_state_dict(tensors)
    except RuntimeError:
        raise BenchError(
            f"run {run}: its weights do not fit the network that '{request.model}' builds now; "
            "has its code changed since?"
        ) from None
    return record, model.eval()


def why_untrained(run: str, record: RunRecord | None, store: Store) -> str:
    """Return why a run that is not complete has no trained network, and what to do."""
    if record is None:
        return f"run {run} has no trained network: {store.why_absent(run)}; train it again"
    if record.status == "diverged":
        return (
            f"run {run} is diverged ({record.error}) and kept no weights: train it again with a "
            "lower learning rate"
        )
    return (
        f"run {run} is {record.status} ({record.error}), and only a complete run has a trained "
        "network: repeat the command that began it"
    )


def load_data(request: RunRequest) -> Dataset:
    """Load a request's dataset, once for all runs of this process."""
    return _dataset(*request.data)


def forget_data() -> None:
    """Load datasets again when they are next needed."""
    _dataset.cache_clear()


def locate_data(store: Store, run: str, folder: Path) -> str:
    """Record where the image folder of a finished run is on this machine, for every command.

    Args:
        store: the results folder.
        run: id of the run.
        folder: where its images are now.

    Returns:
        The dataset's name in the run's request.

    Raises:
        BenchError: the run has no image folder, or *folder* holds other images.
    """
    record = store.read_run(run)
    if record is None:
        raise BenchError(f"run {run} cannot be used ({store.why_absent(run)})")
    request = RunRequest.from_dict(record.request)
    if not request.dataset.startswith(FOLDER_PREFIX):
        raise BenchError(f"run {run} was trained on '{request.dataset}', not on an image folder")
    found = load_dataset(
        f"{FOLDER_PREFIX}{folder}",
        train_images=request.train_images,
        subset_seed=request.data[-1],
        image_size=request.input_size,
        resize=request.recipe.resize,
    )
    if found.fingerprint != record.result.get("dataset_fingerprint"):
        raise BenchError(
            f"{folder} does not hold the images that run {run} was trained on (their fingerprint "
            "differs)"
        )
    record_move(request.dataset, folder, data_directory())
    return request.dataset


@functools.lru_cache(maxsize=2)
def _dataset(
    name: str,
    train_images: int | None,
    image_size: int | None,
    resize: Resize,
    subset_seed: int | None,
) -> Dataset:
    return load_dataset(
        name,
        train_images=train_images,
        subset_seed=subset_seed,
        image_size=image_size,
        resize=resize,
        quiet=True,
    )
