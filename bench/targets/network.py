"""The two states of a network that a person named: found, and loaded with its images."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from bench.data.splits import stable_seed
from bench.errors import BenchError
from bench.models import build_model, materialise
from bench.store import Store
from bench.system.user_code import imported_code
from bench.targets.trained_run import TrainedRun, load_run
from bench.training.setup import split_places

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.data import Dataset, Images, Preprocessing

Kind = Literal["model", "run", "onnx", "engine"]
PROOF_IMAGES = 256  # compared where the dataset has that many
_TOML_WORDS = {"true", "false", "inf", "nan"}


def spell_values(values: Mapping[str, Any]) -> list[str]:
    """Write values as `--option` and `--set` take them: `key=value`, a word without quotes."""

    def spell(value: Any) -> str:
        plain = isinstance(value, str) and value.isidentifier() and value not in _TOML_WORDS
        return str(value) if plain else json.dumps(value)

    return [f"{key}={spell(value)}" for key, value in values.items()]


@dataclass(frozen=True)
class NamedNetwork:
    """A network that a person named; small enough to be sent to another process and loaded there.

    Attributes:
        label: as it was named.
        kind: where its weights come from: a fixed seed, a run, or a file.
        input_shape: channels, height, width; None for a file that has not been read, and for a run
            that is not complete.
        model: canonical name of the network; None for a file.
        options: its canonical options.
        run: id of the run.
        results: the results folder.
        file: the file.
        error: why it cannot be loaded (a run of a study that is not complete); None if it can.
    """

    label: str
    kind: Kind
    input_shape: tuple[int, int, int] | None = None
    model: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    run: str | None = None
    results: str = "bench-runs"
    file: Path | None = None
    error: str | None = None

    @property
    def name(self) -> str:
        """The label without options."""
        return self.label.partition(" ")[0] if self.kind == "model" else self.label

    @property
    def file_name(self) -> str:
        """What files made of it are called, where the label's characters are safe in names."""
        if self.file is not None:
            return self.file.stem
        if self.kind == "run":
            return self.label
        return "-".join([self.name, *(f"{k}-{v}" for k, v in sorted(self.options.items()))])

    def load_run(self) -> TrainedRun:
        """Load the finished run that was named.

        Raises:
            BenchError: it is not finished, or its files are damaged.
        """
        if self.error is not None or self.run is None:
            raise BenchError(self.error or f"{self.label} is no run")
        return load_run(self.run, Store(self.results))

    def load(self) -> LoadedNetwork:
        """Load the run's network, or build the model with weights of a fixed seed.

        Raises:
            BenchError: it cannot be loaded, or is a file.
        """
        if self.kind == "run":
            trained = self.load_run()
            return LoadedNetwork(
                name=self.file_name,
                model=trained.model,
                model_name=trained.request.model,
                options=dict(trained.request.options),
                input_shape=trained.input_shape,
                trained=trained,
            )
        if self.kind != "model" or self.model is None or self.input_shape is None:
            raise BenchError(f"{self.label} is a file and has no torch network")
        imported_code(self.model)  # remembers it, so that a later change is noticed
        torch.manual_seed(0)  # the same weights, and so the same file, every time
        model = materialise(build_model(self.model, **self.options), self.input_shape).eval()
        return LoadedNetwork(self.file_name, model, self.model, self.options, self.input_shape)


@dataclass(frozen=True)
class LoadedNetwork:
    """A network with its weights, and the images that its files are compared on.

    Attributes:
        name: for people and file names.
        model: in evaluation mode, on the CPU.
        model_name: canonical name of the network.
        options: its canonical options.
        input_shape: channels, height and width.
        trained: the run it comes from; None for a bare model, which has random weights.
    """

    name: str
    model: nn.Module
    model_name: str
    options: dict[str, Any]
    input_shape: tuple[int, int, int]
    trained: TrainedRun | None = None

    @property
    def run(self) -> str | None:
        """Id of the run, None for a bare model."""
        return self.trained.record.run if self.trained else None

    @property
    def weights(self) -> str | None:
        """SHA-256 of the run's weights file, None for a bare model."""
        return self.trained.record.files["model.safetensors"] if self.trained else None

    @property
    def classes(self) -> list[str]:
        """Names of the classes; none for a bare model."""
        return self.trained.classes if self.trained else []

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How images become its input; None for a bare model."""
        return self.trained.preprocessing if self.trained else None

    @property
    def timing_only(self) -> bool:
        """Whether its images are noise, for which no accuracy may be shown."""
        return bool(self.trained and self.trained.record.result["timing_only"])

    def dataset(self) -> Dataset | None:
        """Load the run's dataset; None for a bare model.

        Raises:
            BenchError: it cannot be had, or is not what the run was trained on.
        """
        return self.trained.dataset() if self.trained else None

    def test_images(self) -> Images | None:
        """Return the whole test set; None for a bare model."""
        dataset = self.dataset()
        return dataset.test if dataset else None

    def proof_images(self) -> Tensor:
        """Return the images that logits are compared on.

        Returns:
            Real uint8 images N×C×H×W of the test set (filled up from the training set), or
            for a bare model float32 N×C×S×S from a standard normal distribution; N is
            `PROOF_IMAGES`, unless the dataset has fewer.
        """
        dataset = self.dataset()
        if dataset is None:
            return random_images("proof", self.input_shape, PROOF_IMAGES)
        images = dataset.test.images[:PROOF_IMAGES]
        missing = PROOF_IMAGES - len(images)
        return torch.cat([images, dataset.train.images[:missing]]) if missing > 0 else images

    def calibration_images(self, count: int, seed: int) -> Tensor:
        """Draw float32 images N×C×S×S that the run was trained on, never test images.

        A bare model gets random ones, and a run that was trained on fewer all of those.
        """
        dataset = self.dataset()
        if dataset is None or self.trained is None or self.preprocessing is None:
            return random_images(f"calibration/{seed}", self.input_shape, count)
        trained_on, _ = split_places(self.trained.request, dataset)
        generator = torch.Generator().manual_seed(stable_seed("calibration", seed))
        chosen = torch.randperm(len(trained_on), generator=generator)[:count].sort().values
        return self.preprocessing.apply(dataset.train.images[trained_on[chosen]])

    def prepare(self, images: Tensor) -> Tensor:
        """Turn `proof_images` or uint8 images into what the network takes."""
        if images.dtype != torch.uint8 or self.preprocessing is None:
            return images
        return self.preprocessing.apply(images)


def random_images(purpose: str, shape: tuple[int, ...], count: int) -> Tensor:
    """Return float32 images N×C×H×W of a standard normal distribution, the same each time."""
    generator = torch.Generator().manual_seed(stable_seed("export", purpose))
    return torch.randn((count, *shape), generator=generator)
