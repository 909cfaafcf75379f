"""Time to accuracy, of a table by hand and of the command against the recorded epochs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bench import load_results, run_study
from bench.errors import BenchError
from bench.report.findings.summaries import Outcomes, summarise
from bench.report.findings.time_to_accuracy import (
    time_to_accuracy,
    time_to_accuracy_over_seeds,
)
from bench.report.pages.study_report import read_study_report
from bench.store import Store
from bench.studies import load_study
from builders import make_record, make_request, make_study

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


def test_a_target_that_is_reached_exactly_is_reached():
    """Of 600 images, 540 are 90 %, also in the single precision of older runs."""
    assert time_to_accuracy(epochs([float(np.float32(540 / 600))]), 0.9).epoch == 1


def test_the_test_accuracy_does_not_count():
    missed = time_to_accuracy(epochs([0.5, 0.6]), 0.8)
    assert (missed.seconds, missed.epoch, missed.best) == (None, None, 0.6)
    assert "not reached; the best of an epoch is 60.00 %" in str(missed)
    assert time_to_accuracy(epochs([float("nan")]), 0.1).best is None


def test_over_seeds_it_is_the_median_of_those_that_reached_it():
    frames = [epochs(a).assign(run=r) for r, a in (("a", [0.9]), ("b", [0.1, 0.8]), ("c", [0.2]))]
    table = pd.concat(frames)
    found = time_to_accuracy_over_seeds(table, ["a", "b", "c"], 0.8)
    assert (found.seconds, found.reached, found.runs) == (20.0, 2, 3)  # 10 and 30
    assert str(found) == "20.0 (2 of 3)"
    assert str(time_to_accuracy_over_seeds(table, ["a"], 0.8)) == "10.0"
    assert str(time_to_accuracy_over_seeds(table, ["c"], 0.8)) == "- (0 of 1)"


STUDY = """question = "How fast?"
target_accuracy = 0.01
[base]
model = "resnet8"
options = { width = 2 }
train_images = 100
batch_size = 50
epochs = 2
seeds = [0, 1]
[[variant]]
name = "one"
[[variant]]
name = "other"
learning_rate = 0.01
"""


def test_a_studys_table_tells_it(tmp_path):
    path = tmp_path / "fast.toml"
    path.write_text(STUDY)
    results = tmp_path / "results"
    run_study(path, results=results, device="cpu", workers=1, threads=1)
    store = Store(results)
    table = read_study_report(store, "fast").table
    assert table.columns[-1] == "seconds to 1 % validation accuracy"
    history = load_results(results, "epochs").query("variant == 'one' and epoch == 1")
    assert table.rows[0][-1] == f"{history['seconds'].median():.1f}"
    path.write_text(STUDY.replace("target_accuracy = 0.01", ""))
    run_study(path, results=results, device="cpu", workers=1, threads=1)
    assert read_study_report(store, "fast").table.columns == table.columns[:-1]
    assert len(load_results(results)) == 4  # the target is no part of the runs


def test_runs_that_diverged_have_not_reached_it():
    ok = make_record(make_request(seed=0), result={"test_accuracy": 0.9})
    gone = make_record(make_request(seed=1), status="diverged")
    study = make_study({"a": [ok.run, gone.run]}, target_accuracy=0.8)
    table = epochs([0.9]).assign(run=ok.run)
    (summary,) = summarise(Outcomes(study, {ok.run: ok, gone.run: gone}), table)
    assert str(summary.time_to_accuracy) == "10.0 (1 of 2)"
    (summary,) = summarise(Outcomes(study, {gone.run: gone}), table)
    assert str(summary.time_to_accuracy) == "- (0 of 1)"


def test_a_target_without_validation_images_is_refused(tmp_path):
    path = tmp_path / "fast.toml"
    path.write_text(STUDY.replace("epochs = 2", 'recipe = "book"'))
    with pytest.raises(BenchError, match="target_accuracy is one of validation images, but"):
        load_study(path).expand()


@pytest.mark.parametrize("given", ["94", '"94"'])
def test_a_target_in_per_cent_is_refused_in_a_study(given, tmp_path):
    path = tmp_path / "fast.toml"
    path.write_text(STUDY.replace("target_accuracy = 0.01", f"target_accuracy = {given}"))
    with pytest.raises(
        BenchError, match=rf"target_accuracy = {given}: .*\(a fraction; .*: 0\.94\)$"
    ):
        load_study(path)


def test_the_command_says_it_and_trains_on(bench):
    (row,) = bench("train", *TINY, "--target-accuracy", 2, "--json").document["rows"]
    history = load_results("bench-runs", "epochs")
    assert len(history) == 3  # it did not stop early
    assert (row["target_accuracy"], row["epochs_to_target"]) == (0.02, 1)
    assert row["seconds_to_target"] == history.set_index("epoch").loc[1, "seconds"]
    again = bench("train", *TINY, "--target-accuracy", 100, "--quiet")
    assert again.code == 0
    assert "validation accuracy 100 % not reached" in again.out
    assert len(load_results("bench-runs")) == 1  # the target is no part of the run


def test_a_run_that_fails_says_why(bench, tmp_path):
    (tmp_path / "failing.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Linear):\n"
        "    calls = 0\n"
        "    def forward(self, x):\n"
        "        Net.calls += 1\n"
        "        if Net.calls == 30:\n"
        "            raise KeyError('late')\n"
        "        return super().forward(x.mean(1).flatten(1))\n"
        "def net(num_classes, in_channels):\n"
        "    return Net(784, num_classes)\n"
    )
    words = ("--set", "train_images=300", "--set", "batch_size=20", "--epochs", 3)
    done = bench("train", "failing:net", *words, "--device", "cpu", "--target-accuracy", 90)
    assert done.code == 1
    assert "failed: KeyError: 'late'" in done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--target-accuracy", 0.94), "is given in per cent; write --target-accuracy 94"),
        (("--target-accuracy", 101), "--target-accuracy 101: it must be above 0 and at most 100"),
        (("--target-accuracy", "nan"), "it must be above 0"),
        (("--target-accuracy", 50, "--recipe", "book"), "add --set validation_fraction=0.1"),
        (("--target-accuracy", 50, "--dataset", "synthetic"), "made-up images"),
    ],
)
def test_a_target_that_cannot_be_compared_is_refused(words, message, bench, entries, tmp_path):
    assert message in bench("train", *TINY, *words).refusal
    assert not entries(tmp_path)
