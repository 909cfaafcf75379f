"""Time to accuracy, of a table by hand and of the command against the recorded epochs."""

from __future__ import annotations

import pandas as pd
import pytest

from bench import load_results
from bench.report.target import time_to_accuracy

TINY = ("resnet8", "--option", "width=4", "--set", "train_images=300", "--set", "batch_size=50",
        "--device", "cpu", "--threads", 1, "--epochs", 3)  # fmt: skip


def epochs(accuracies):
    numbers = range(1, len(accuracies) + 1)
    return pd.DataFrame(
        {
            "epoch": numbers,
            "validation_accuracy": accuracies,
            "test_accuracy": [1.0] * len(accuracies),
            "seconds": [10.0 * n for n in numbers],
        }
    )


def test_it_ends_with_the_first_epoch_at_or_above_the_target():
    reached = time_to_accuracy(epochs([0.5, 0.8, 0.7, 0.9]), 0.8)
    assert (reached.seconds, reached.epoch, reached.best) == (30.0, 2, 0.9)
    assert "after 30.0 s" in str(reached)


def test_the_test_accuracy_does_not_count():
    missed = time_to_accuracy(epochs([0.5, 0.6]), 0.8)
    assert (missed.seconds, missed.epoch, missed.best) == (None, None, 0.6)
    assert "not reached; the best of an epoch is 0.6000" in str(missed)
    assert time_to_accuracy(epochs([float("nan")]), 0.1).best is None


def test_the_command_says_it_and_trains_on(bench):
    (row,) = bench("train", *TINY, "--target-accuracy", 0.01, "--json").document["rows"]
    history = load_results("bench-runs", "epochs")
    assert len(history) == 3  # it did not stop early
    assert (row["target_accuracy"], row["epochs_to_target"]) == (0.01, 1)
    assert row["seconds_to_target"] == history.set_index("epoch").loc[1, "seconds"]
    again = bench("train", *TINY, "--target-accuracy", 1, "--quiet")
    assert again.code == 0
    assert "validation accuracy 1 not reached" in again.out
    assert len(load_results("bench-runs")) == 1  # the target is no part of the run


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--target-accuracy", 94), "--target-accuracy 94: an accuracy is above 0 and at most 1"),
        (("--target-accuracy", "nan"), "an accuracy is above 0"),
        (("--target-accuracy", 0.5, "--recipe", "book"), "add --set validation_fraction=0.1"),
        (("--target-accuracy", 0.5, "--dataset", "synthetic"), "made-up images"),
    ],
)
def test_a_target_that_cannot_be_compared_is_refused(words, message, bench, entries, tmp_path):
    assert message in bench("train", *TINY, *words).refusal
    assert not entries(tmp_path)
