from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.launch import estimate
from bench.launch.estimate import estimate_plan, steps_of, time_steps
from bench.launch.study import Execution
from bench.store import Store
from bench.studies import expand, parse_study
from bench.training.resources import Resources
from bench.training.run import execute
from bench.training.sizes import DataSize, data_size

STUDY = """
question = "How long?"
[base]
train_images = 100
input_size = 8
epochs = 2
batch_size = 32
seeds = [0, 1]
options = { width = 4 }
[[variant]]
name = "residual"
model = "resnet14"
[[variant]]
name = "longer"
model = "resnet14"
epochs = 40
"""


def plan(text=STUDY):
    return expand("long", parse_study(text, Path("long.toml")))


@pytest.fixture
def how(tmp_path):
    return Execution(results=tmp_path / "results", device="cpu", threads=1)


def test_every_run_is_estimated_and_nothing_is_written(how, tmp_path):
    rows = estimate_plan(plan(), how)
    assert [(row["variant"], row["seed"]) for row in rows] == [
        ("residual", 0), ("longer", 0), ("residual", 1), ("longer", 1),
    ]  # fmt: skip
    assert all(row["status"] == "to do" and row["seconds"] > 0 for row in rows)
    assert list(tmp_path.iterdir()) == []


def test_finished_run_needs_no_time(how, resources):
    first = plan().requests[0]
    execute(first, Store(how.results), resources)
    rows = {row["run"]: row for row in estimate_plan(plan(), how)}
    assert (rows[first.run_id]["status"], rows[first.run_id]["seconds"]) == ("complete", 0)
    assert sum(row["seconds"] > 0 for row in rows.values()) == 3


def test_tuning_is_counted(how):
    rows = estimate_plan(plan(STUDY + "[tune]\nlearning_rate = [0.01, 0.02]\n"), how)
    assert [row["variant"] for row in rows].count("tuning") == 4


def test_network_that_cannot_be_trained_is_refused(how):
    single = STUDY.replace("batch_size = 32", "batch_size = 1").replace("size = 8", "size = 4")
    with pytest.raises(BenchError, match="batch norm"):
        estimate_plan(plan(single), how)


def test_data_that_is_not_at_hand_is_timed_on_noise(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    request = tiny(dataset="cifar10", train_images=None, input_size=None)
    assert data_size(request) == DataSize(10, 3, 32, 50_000, 10_000, on_hand=False)
    assert time_steps(request, Resources(device="cpu", threads=1)) > 0
    assert steps_of(request) == pytest.approx((45_000 * 2 + (5_000 * 2 + 45_000 + 10_000) / 3) / 32)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BenchError, match="train_images = 60000, but the training set has 50000"):
        data_size(tiny(dataset="cifar10", train_images=60_000))


def test_a_large_step_is_timed_on_fewer_images(tiny, monkeypatch):
    request = tiny(batch_size=90)
    macs = 1_000_000
    monkeypatch.setattr(estimate, "count_macs", lambda *_: macs)
    monkeypatch.setattr(estimate, "TIMED_MACS", 30 * macs)
    monkeypatch.setattr(estimate, "_median_step", lambda trainer: trainer.batches.batch_size)
    # As many seconds as images: thirty are timed, and the batch takes thrice that.
    assert time_steps(request, Resources(device="cpu", threads=1)) == 90
    seen = []
    monkeypatch.setattr(estimate, "_median_step", lambda t: seen.append(t.batches.batch_size) or 1)
    time_steps(request, Resources(device="cpu", threads=1))
    assert seen == [30]


def test_step_takes_time(tiny):
    assert 0 < time_steps(tiny(), Resources(device="cpu", threads=1)) < 60
