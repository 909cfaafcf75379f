"""Loading the trained network of a finished run."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.studies.run_request import RunRequest
from bench.training.inputs import remake
from bench.training.setup import load_data, preprocessing_of, read_trained
from bench.training.sizes import image_size

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from bench.data import Dataset, Preprocessing
    from bench.store import RunRecord, Store


@dataclass(frozen=True)
class TrainedRun:
    """A finished run, with its network in evaluation mode on the CPU."""

    record: RunRecord
    request: RunRequest
    model: nn.Module
    root: Path

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the logits."""
        return list(self.record.result["classes"])

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width the network was trained at."""
        channels, height, width = self.record.result["input_shape"]
        return channels, height, width

    @functools.cached_property
    def preprocessing(self) -> Preprocessing:
        """How images become the network's input, as in its training."""
        result = self.record.result
        size = result.get("image_size")  # not in the oldest records
        return preprocessing_of(
            self.request,
            self.input_shape[-1],
            tuple(result["mean"]),
            tuple(result["std"]),
            image_size(self.request) if size is None else size,
        )

    def dataset(self) -> Dataset:
        """Load the dataset that the run was trained on.

        Raises:
            BenchError: it cannot be loaded, or its images are others now.
        """
        dataset = load_data(self.request)
        if dataset.fingerprint != self.record.result["dataset_fingerprint"]:
            raise BenchError(
                f"the dataset '{dataset.name}' is not what run {self.record.run} was trained on "
                f"(its fingerprint differs): put the old files back, or {remake(self.request)}"
            )
        return dataset

    def preprocess(self, images: Tensor) -> Tensor:
        """Turn uint8 images N×C×H×W into the network's input."""
        return self.preprocessing.apply(images)


def load_run(run: str, store: Store) -> TrainedRun:
    """Load a run by its id; `bench.targets.find.load_trained` takes what a person names.

    Raises:
        BenchError: there is no such run, it did not finish, or its files are damaged.
    """
    record, model = read_trained(store, run)
    return TrainedRun(record, RunRequest.from_dict(record.request), model, store.root)
