"""Datasets as uint8 tensors in memory, and the batches made from them.

`load_dataset` decodes once; `Batches` and `evaluation_batches` are tensor arithmetic on the
device where the images lie.
"""

from __future__ import annotations

from bench.data.augmentation import Augmentation, augment
from bench.data.batches import Batches, evaluation_batches
from bench.data.catalog import (
    count_channels,
    data_directory,
    list_datasets,
    load_dataset,
)
from bench.data.images import Dataset, Images
from bench.data.preprocessing import Preprocessing
from bench.data.splits import validation_split

__all__ = [
    "Augmentation",
    "Batches",
    "Dataset",
    "Images",
    "Preprocessing",
    "augment",
    "count_channels",
    "data_directory",
    "evaluation_batches",
    "list_datasets",
    "load_dataset",
    "validation_split",
]
