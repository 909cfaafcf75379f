from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import pytest
import torch

from bench.data import Augmentation, Batches, Preprocessing, load_dataset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def consume(batches: Iterable[object], count: int) -> None:
    for _ in islice(batches, count):
        pass


@pytest.mark.parametrize("threads", [1, 2])
def test_input_pipeline_against_the_textbook_one(
    textbook, paired: Callable[..., None], threads: int
) -> None:
    """Goal: at least 20 times the images a second."""
    torch.set_num_threads(threads)
    data = load_dataset("fashion-mnist-mini", quiet=True)
    ours = Batches(
        data.train, batch_size=128, seed=0,
        augmentation=Augmentation(crop_padding=2, flip=True),
        preprocessing=Preprocessing(28, data.mean, data.std),
        memory_format=torch.channels_last,
    )  # fmt: skip
    theirs = textbook.loader(data.train, data.mean, data.std, batch_size=128)
    paired(
        lambda: consume(ours.epoch(0), 46),
        lambda: consume(theirs, 4),
        rounds=15,
        work=(46 * 128, 4 * 128),
    )
