"""Deterministic subsets, splits and orders.

Subsets and splits rank images by a hash of their index (SplitMix64; Steele, Lea, Flood:
"Fast splittable pseudorandom number generators", OOPSLA 2014) instead of by a library's
random generator, whose stream may change with the next version.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bench.errors import BenchError

SPLIT_SEED = 20170825  # fixed for every run: the day Fashion-MNIST was published


def stable_seed(*parts: object) -> int:
    """Return a 63-bit seed: the first 8 bytes of SHA-256 of the parts joined by ``/``.

    Hashing keeps streams apart where adding would not: seed 1 at epoch 2 must not
    be seed 2 at epoch 1.
    """
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes signed 64-bit seeds


def validation_split(
    labels: Tensor, fraction: float, seed: int | None = None
) -> tuple[Tensor, Tensor]:
    """Split a training set, by default the same way in every run.

    Args:
        labels: int64, N. The split is a function of the arguments and `SPLIT_SEED` only.
        fraction: Part of each class to hold out, in [0, 1); rounded to the nearest image,
            and at least one image of each class stays in training.
        seed: Another one gives another split; None is that of every run.

    Returns:
        Training and validation indices, int64, sorted, on the CPU. Validation is empty
        if *fraction* is 0.

    Raises:
        BenchError: *fraction* is out of range, or so small that it holds out no image.
    """
    if not 0 <= fraction < 1:
        raise BenchError(f"validation fraction {fraction} is outside 0 … 1: use for example 0.1")
    train, held_out = stratified_split(labels, fraction, purpose="validation", seed=seed)
    if fraction > 0 and len(held_out) == 0:
        raise BenchError(
            f"validation fraction {fraction} of {len(labels)} images holds out none: "
            "use a larger fraction, more images, or 0"
        )
    return train, held_out


def stratified_split(
    labels: Tensor, fraction: float, *, purpose: str, seed: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return sorted indices of the kept and the held-out part; *purpose* names the draw."""
    classes = labels.cpu().numpy()
    rank = _rank_within_class(classes, purpose, seed)
    _, inverse, counts = np.unique(classes, return_inverse=True, return_counts=True)
    quota = np.minimum(np.floor(fraction * counts + 0.5).astype(np.int64), counts - 1)
    held_out = rank < quota[inverse]
    return torch.from_numpy(np.flatnonzero(~held_out)), torch.from_numpy(np.flatnonzero(held_out))


def balanced_subset(labels: Tensor, size: int, seed: int | None = None) -> Tensor:
    """Choose *size* images, as equally many of each class as there are.

    Subsets are nested: those of 100 are among those of 200. A function of the arguments and
    `SPLIT_SEED` only.

    Args:
        labels: int64, N.
        size: How many images to take, 1…N.
        seed: Another one gives another subset; None is that of every run.

    Returns:
        Sorted indices, int64, *size*, on the CPU.

    Raises:
        BenchError: *size* is below 1 or above N.
    """
    if not 1 <= size <= len(labels):
        raise BenchError(
            f"train_images = {size}, but the training set has {len(labels)} images: "
            f"use 1 … {len(labels)}"
        )
    classes = labels.cpu().numpy()
    rank = _rank_within_class(classes, "subset", seed)
    # The first image of every class, then the second of every class, and so on.
    chosen = np.lexsort((classes, rank))[:size]
    return torch.from_numpy(np.sort(chosen))


def _rank_within_class(
    labels: npt.NDArray[np.int64], purpose: str, seed: int | None
) -> npt.NDArray[np.int64]:
    """Return each image's place (0, 1, …) in a shuffled order of its own class."""
    parts = (purpose, SPLIT_SEED) if seed is None else (purpose, SPLIT_SEED, seed)
    keys = _splitmix64(len(labels), stable_seed(*parts))
    order = np.lexsort((keys, labels))  # by class, then by key
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    rank = np.empty(len(labels), dtype=np.int64)
    rank[order] = np.arange(len(labels)) - np.repeat(starts, counts)
    return rank


def _splitmix64(count: int, seed: int) -> npt.NDArray[np.uint64]:
    """Return the first *count* outputs of the SplitMix64 generator (arithmetic modulo 2⁶⁴)."""
    state = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state += np.uint64(seed)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
