from __future__ import annotations

import hashlib

import pytest
import torch

from bench.data import load_dataset, validation_split
from bench.data.splits import balanced_subset, stable_seed
from bench.errors import BenchError

LABELS = torch.arange(1000) % 10


def digest(indices):
    return hashlib.sha256(indices.numpy().astype("<i8").tobytes()).hexdigest()[:16]


def test_the_split_is_stratified_sorted_and_a_partition():
    train, validation = validation_split(LABELS, 0.1)
    assert LABELS[validation].bincount().tolist() == [10] * 10
    assert torch.equal(torch.cat((train, validation)).sort().values, torch.arange(1000))
    for indices in (train, validation):
        assert indices.dtype == torch.int64
        assert torch.equal(indices, indices.sort().values)


def test_the_split_never_changes():
    # If this fails, every published validation accuracy becomes incomparable.
    _, validation = validation_split(LABELS, 0.1)
    assert validation[:8].tolist() == [0, 3, 20, 40, 41, 48, 52, 55]
    assert digest(validation) == "1b3d2f2f163a9e73"
    assert digest(balanced_subset(LABELS, 123)) == "6520157d50ca45cc"


def test_the_split_depends_on_neither_the_random_state_nor_the_order_of_calls():
    torch.manual_seed(1)
    first = validation_split(LABELS, 0.2)[1]
    torch.manual_seed(2)
    assert torch.equal(first, validation_split(LABELS, 0.2)[1])


def test_a_class_keeps_at_least_one_training_image():
    labels = torch.tensor([0, 0, 0, 0, 1])
    train, validation = validation_split(labels, 0.9)
    assert labels[train].tolist() == [0, 1]
    assert labels[validation].tolist() == [0, 0, 0]


def test_fraction_zero_holds_out_nothing():
    train, validation = validation_split(LABELS, 0)
    assert len(validation) == 0
    assert torch.equal(train, torch.arange(1000))


@pytest.mark.parametrize("fraction", [-0.1, 1, 2.5, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(BenchError, match=r"outside 0 … 1"):
        validation_split(LABELS, fraction)


def test_a_fraction_that_holds_out_nothing_is_refused():
    with pytest.raises(BenchError, match="holds out none"):
        validation_split(LABELS, 0.001)


@pytest.mark.parametrize("size", [1, 7, 10, 123, 999, 1000])
def test_subsets_are_as_balanced_as_possible(size):
    counts = LABELS[balanced_subset(LABELS, size)].bincount(minlength=10)
    assert counts.sum() == size
    assert counts.max() - counts.min() <= 1


def test_a_small_class_is_taken_whole():
    labels = torch.tensor([0] * 50 + [1] * 3)
    assert labels[balanced_subset(labels, 20)].bincount().tolist() == [17, 3]


def test_subsets_are_nested():
    larger = set(balanced_subset(LABELS, 200).tolist())
    for size in (1, 50, 100, 199):
        smaller = set(balanced_subset(LABELS, size).tolist())
        assert smaller < larger
        larger_by_one = set(balanced_subset(LABELS, size + 1).tolist())
        assert smaller < larger_by_one


@pytest.mark.parametrize("size", [0, -1, 1001])
def test_a_subset_of_impossible_size_is_refused(size):
    with pytest.raises(BenchError, match="use 1 … 1000"):
        balanced_subset(LABELS, size)


def test_train_images_takes_a_balanced_subset_and_changes_the_fingerprint():
    whole = load_dataset("fashion-mnist-mini")
    part = load_dataset("fashion-mnist-mini", train_images=250)
    assert part.train.labels.bincount().tolist() == [25] * 10
    assert len(part.test) == 1000
    assert part.mean == whole.mean  # of the full training set
    assert part.fingerprint != whole.fingerprint
    with pytest.raises(BenchError, match="6000"):
        load_dataset("fashion-mnist-mini", train_images=6001)


def test_seeds_are_hashed_not_added():
    assert stable_seed("order", 1, 2) != stable_seed("order", 2, 1)
    assert stable_seed("order", 0, 0) == int(hashlib.sha256(b"order/0/0").hexdigest()[:16], 16) // 2
